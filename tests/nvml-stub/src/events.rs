//! XIDs: each of the file's `xids` is delivered once to whoever waits.

use std::collections::BTreeSet;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::state::{Call, Handle, Raw};
use crate::{Code, TIMEOUT, code};

const SLICE: Duration = Duration::from_millis(10);
/// nvmlEventTypeXidCriticalError.
const XID: c_ulonglong = 8;

static DELIVERED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// nvmlEventData_t.
#[repr(C)]
struct Event {
    device: Raw,
    kind: c_ulonglong,
    data: c_ulonglong,
    instance: c_uint,
    compute: c_uint,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(out: *mut Raw) -> Code {
    code(Call::global("nvmlEventSetCreate").map(|_| {
        // SAFETY: the caller's place for it.
        unsafe { *out = std::ptr::without_provenance_mut(1) };
    }))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(_set: Raw) -> Code {
    0
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(device: Raw, _types: c_ulonglong, _set: Raw) -> Code {
    code(Call::of("nvmlDeviceRegisterEvents", device).map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(_set: Raw, out: *mut Event, timeout_ms: c_uint) -> Code {
    let began = Instant::now();
    code(loop {
        let call = match Call::global("nvmlEventSetWait_v2") {
            Ok(call) => call,
            Err(error) => break Err(error),
        };
        for xid in call.state["xids"].as_array().into_iter().flatten() {
            let number = |key: &str| xid[key].as_u64().unwrap_or(0);
            let mut delivered = DELIVERED.lock().unwrap_or_else(PoisonError::into_inner);
            if delivered.insert(number("id")) {
                let handle = Handle {
                    gpu: number("gpu") as usize,
                    instance: None,
                };
                // SAFETY: the caller's struct.
                unsafe {
                    *out = Event {
                        device: handle.raw(),
                        kind: XID,
                        data: number("xid"),
                        instance: c_uint::MAX,
                        compute: c_uint::MAX,
                    };
                }
                return 0;
            }
        }
        if began.elapsed() >= Duration::from_millis(timeout_ms.into()) {
            break Err(TIMEOUT);
        }
        std::thread::sleep(SLICE);
    })
}
