//! Functions of the library itself.

use std::ffi::{c_char, c_uint};

use crate::state::{Call, Handle, Raw};
use crate::{Code, NOT_FOUND, NOT_SUPPORTED, TOO_SMALL, code};

/// Writes a text with its end.
///
/// # Safety
/// `out` has room for `size` bytes.
pub(crate) unsafe fn text(
    out: *mut c_char,
    size: c_uint,
    text: Option<impl AsRef<[u8]>>,
) -> Result<(), Code> {
    let text = text.ok_or(NOT_SUPPORTED)?;
    let text = text.as_ref();
    if text.len() >= size as usize {
        return Err(TOO_SMALL);
    }
    // SAFETY: it fits, by the above and the caller's word.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        *out.add(text.len()) = 0;
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Code {
    code(Call::global("nvmlInit_v2").map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Code {
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(out: *mut c_char, size: c_uint) -> Code {
    code(Call::global("nvmlSystemGetDriverVersion").and_then(|call| {
        // SAFETY: the caller's buffer and its size.
        unsafe { text(out, size, call.state["driver"].as_str()) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> Code {
    code(Call::global("nvmlDeviceGetCount_v2").map(|call| {
        let count = call.state["gpus"].as_array().map_or(0, Vec::len);
        // SAFETY: the caller's place for it.
        unsafe { *out = count as c_uint };
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut Raw) -> Code {
    let handle = Handle {
        gpu: index as usize,
        instance: None,
    };
    code(
        Call::of("nvmlDeviceGetHandleByIndex_v2", handle.raw()).and_then(|call| {
            if call.object().is_null() {
                return Err(NOT_FOUND);
            }
            // SAFETY: the caller's place for it.
            unsafe { *out = handle.raw() };
            Ok(())
        }),
    )
}
