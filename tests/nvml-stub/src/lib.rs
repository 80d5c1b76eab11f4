//! A libnvidia-ml.so.1 whose GPUs are in a JSON file, `$NVML_STUB_STATE`, looked at again at each call: what a test writes
//! there is what the next poll finds. Errors and delays can be set for each function, for all GPUs or for one.
//!
//! ```json
//! {"driver": "570.86.15", "errors": {"nvmlInit_v2": 9}, "delays_ms": {"nvmlDeviceGetPowerUsage": 60000},
//!  "gpus": [{"uuid": "GPU-1", "name": "…", "pci": "00000000:07:00.0", "minor": 0, "errors": {"*": 15},
//!            "values": {"nvmlDeviceGetPowerUsage": 347250}, "fields": {"82": 61}, "gpm": {"1": 97.5}, "mig": []}],
//!  "xids": [{"id": 1, "gpu": 0, "xid": 79}]}
//! ```
//!
//! A value that is not there is not supported. A delay ends early when it is taken out of the file.

mod device;
mod events;
mod gpm;
mod state;
mod system;

/// An error code of NVML's.
pub type Code = u32;

/// NVML_SUCCESS.
pub const SUCCESS: Code = 0;
/// NVML_ERROR_INVALID_ARGUMENT.
pub const INVALID: Code = 2;
/// NVML_ERROR_NOT_SUPPORTED.
pub const NOT_SUPPORTED: Code = 3;
/// NVML_ERROR_NOT_FOUND.
pub const NOT_FOUND: Code = 6;
/// NVML_ERROR_INSUFFICIENT_SIZE.
pub const TOO_SMALL: Code = 7;
/// NVML_ERROR_TIMEOUT.
pub const TIMEOUT: Code = 10;

/// A result as C has it.
fn code(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(SUCCESS)
}
