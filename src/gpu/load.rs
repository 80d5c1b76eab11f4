//! Finding and loading libnvidia-ml.so.1.

use std::path::Path;

use nvml_wrapper::Nvml;

use crate::gpu::ffi;
use crate::gpu::lifecycle::Fault;

/// Where it may be if the linker does not know: Google's nodes, the GPU Operator's driver container, WSL.
const USUAL: [&str; 5] = [
    "libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
];

/// Loads and initializes it.
///
/// # Errors
/// Of the first library that could be loaded, or that there is none.
pub(super) fn open(configured: Option<&Path>) -> Result<Nvml, Fault> {
    match configured {
        Some(path) => try_open(path),
        None => USUAL
            .iter()
            .map(|path| try_open(Path::new(path)))
            .find(|result| !matches!(result, Err(Fault::LibraryNotFound)))
            .unwrap_or(Err(Fault::LibraryNotFound)),
    }
}

fn try_open(path: &Path) -> Result<Nvml, Fault> {
    let nvml = Nvml::builder().lib_path(path.as_os_str()).init()?;
    if ffi::can_be_dropped(&nvml) {
        Ok(nvml)
    } else {
        // Its destructor would panic. Whatever this library is, it is not NVIDIA's.
        std::mem::forget(nvml);
        Err(Fault::SymbolMissing)
    }
}
