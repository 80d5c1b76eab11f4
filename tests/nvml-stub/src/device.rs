//! Functions of a GPU. Most are one number each.

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong};

use serde_json::Value;

use crate::state::{Call, Handle, Raw};
use crate::system::text;
use crate::{Code, INVALID, NOT_FOUND, NOT_SUPPORTED, TOO_SMALL, code};

/// `function(device, …, &number)`, with what of `values` it is.
macro_rules! numbers {
    ($($symbol:ident($($argument:ident),*) -> $type:ty $(= $key:expr)?;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(device: Raw, $($argument: c_uint,)* out: *mut $type) -> Code {
            code(Call::of(stringify!($symbol), device).and_then(|call| {
                let key: Option<String> = None $(.or(Some($key)))?;
                let number = call.number(key.as_deref())?;
                // SAFETY: the caller's place for it.
                unsafe { *out = number as $type };
                Ok(())
            }))
        }
    )*};
}

numbers! {
    nvmlDeviceGetPowerUsage() -> c_uint;
    nvmlDeviceGetEnforcedPowerLimit() -> c_uint;
    nvmlDeviceGetPowerManagementLimit() -> c_uint;
    nvmlDeviceGetTotalEnergyConsumption() -> c_ulonglong;
    nvmlDeviceGetTemperature(sensor) -> c_uint = sensor.to_string();
    nvmlDeviceGetTemperatureThreshold(threshold) -> c_uint = threshold.to_string();
    nvmlDeviceGetClockInfo(kind) -> c_uint = kind.to_string();
    nvmlDeviceGetPcieThroughput(direction) -> c_uint = direction.to_string();
    nvmlDeviceGetPcieReplayCounter() -> c_uint;
    nvmlDeviceGetPerformanceState() -> c_uint;
    nvmlDeviceGetNumFans() -> c_uint;
    nvmlDeviceGetFanSpeed_v2(fan) -> c_uint = fan.to_string();
    nvmlDeviceGetCurrentClocksEventReasons() -> c_ulonglong;
    nvmlDeviceGetTotalEccErrors(kind, counter) -> c_ulonglong = format!("{kind},{counter}");
    nvmlDeviceGetMaxMigDeviceCount() -> c_uint;
    nvmlDeviceGetGpuInstanceId() -> c_uint;
}

/// Two numbers: `a` and `b` of it.
macro_rules! pairs {
    ($($symbol:ident $a:literal $b:literal;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(device: Raw, one: *mut c_uint, two: *mut c_uint) -> Code {
            code(Call::of(stringify!($symbol), device).and_then(|call| {
                let pair = (call.number(Some($a))?, call.number(Some($b))?);
                // SAFETY: the caller's places for them.
                unsafe { (*one, *two) = (pair.0 as c_uint, pair.1 as c_uint) };
                Ok(())
            }))
        }
    )*};
}

pairs! {
    nvmlDeviceGetEncoderUtilization "percent" "us";
    nvmlDeviceGetDecoderUtilization "percent" "us";
    nvmlDeviceGetMigMode "current" "pending";
}

/// nvmlUtilization_t.
#[repr(C)]
struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: Raw, out: *mut Utilization) -> Code {
    code(
        Call::of("nvmlDeviceGetUtilizationRates", device).and_then(|call| {
            let gpu = call.number(Some("gpu"))? as c_uint;
            let memory = call.number(Some("memory"))? as c_uint;
            // SAFETY: the caller's struct.
            unsafe { *out = Utilization { gpu, memory } };
            Ok(())
        }),
    )
}

/// nvmlMemory_v2_t.
#[repr(C)]
struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Raw, out: *mut MemoryV2) -> Code {
    code(
        Call::of("nvmlDeviceGetMemoryInfo_v2", device).and_then(|call| {
            // SAFETY: the caller's struct, whose first word says which one it is.
            let memory = unsafe { &mut *out };
            if memory.version as usize != size_of::<MemoryV2>() | (2 << 24) {
                return Err(INVALID);
            }
            memory.total = call.number(Some("total"))?;
            memory.reserved = call.number(Some("reserved"))?;
            memory.free = call.number(Some("free"))?;
            memory.used = call.number(Some("used"))?;
            Ok(())
        }),
    )
}

/// nvmlMemory_t.
#[repr(C)]
struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: Raw, out: *mut Memory) -> Code {
    code(
        Call::of("nvmlDeviceGetMemoryInfo", device).and_then(|call| {
            let memory = Memory {
                total: call.number(Some("total"))?,
                free: call.number(Some("free"))?,
                used: call.number(Some("used"))?,
            };
            // SAFETY: the caller's struct.
            unsafe { *out = memory };
            Ok(())
        }),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(device: Raw, out: *mut c_char, size: c_uint) -> Code {
    code(Call::of("nvmlDeviceGetUUID", device).and_then(|call| {
        // SAFETY: the caller's buffer and its size.
        unsafe { text(out, size, call.object()["uuid"].as_str()) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(device: Raw, out: *mut c_char, size: c_uint) -> Code {
    code(Call::of("nvmlDeviceGetName", device).and_then(|call| {
        let name = match &call.object()["name"] {
            // Bytes, for one that is not UTF-8.
            Value::Array(bytes) => bytes
                .iter()
                .map(|byte| byte.as_u64().unwrap_or(0) as u8)
                .collect(),
            name => name.as_str().ok_or(NOT_SUPPORTED)?.as_bytes().to_vec(),
        };
        // SAFETY: the caller's buffer and its size.
        unsafe { text(out, size, Some(name)) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMinorNumber(device: Raw, out: *mut c_uint) -> Code {
    code(
        Call::of("nvmlDeviceGetMinorNumber", device).and_then(|call| {
            let minor = call.object()["minor"].as_u64().ok_or(NOT_SUPPORTED)?;
            // SAFETY: the caller's place for it.
            unsafe { *out = minor as c_uint };
            Ok(())
        }),
    )
}

/// nvmlPciInfo_t.
#[repr(C)]
struct Pci {
    legacy: [c_char; 16],
    numbers: [c_uint; 5],
    bus_id: [c_char; 32],
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Raw, out: *mut Pci) -> Code {
    code(
        Call::of("nvmlDeviceGetPciInfo_v3", device).and_then(|call| {
            // SAFETY: the caller's struct, and a buffer within it.
            unsafe {
                *out = Pci {
                    legacy: [0; 16],
                    numbers: [0; 5],
                    bus_id: [0; 32],
                };
                text(
                    (*out).bus_id.as_mut_ptr(),
                    32,
                    call.object()["pci"].as_str(),
                )
            }
        }),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Raw,
    index: c_uint,
    out: *mut Raw,
) -> Code {
    code(
        Call::of("nvmlDeviceGetMigDeviceHandleByIndex", device).and_then(|call| {
            let gpu = Handle::from_raw(device)?.gpu;
            if !call.object()["mig"][index as usize].is_object() {
                return Err(NOT_FOUND);
            }
            // SAFETY: the caller's place for it.
            unsafe {
                *out = Handle {
                    gpu,
                    instance: Some(index as usize),
                }
                .raw()
            };
            Ok(())
        }),
    )
}

/// nvmlDeviceAttributes_t.
#[repr(C)]
struct Attributes {
    counts: [c_uint; 8],
    memory_mb: c_ulonglong,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetAttributes_v2(device: Raw, out: *mut Attributes) -> Code {
    code(
        Call::of("nvmlDeviceGetAttributes_v2", device).and_then(|call| {
            let mut counts = [0; 8];
            counts[6] = call.number(Some("slices"))? as c_uint;
            let memory_mb = call.number(Some("memory_mb"))?;
            // SAFETY: the caller's struct.
            unsafe { *out = Attributes { counts, memory_mb } };
            Ok(())
        }),
    )
}

/// nvmlProcessInfo_t.
#[repr(C)]
struct Process {
    pid: c_uint,
    memory: c_ulonglong,
    instance: c_uint,
    compute: c_uint,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Raw,
    count: *mut c_uint,
    out: *mut Process,
) -> Code {
    code(
        Call::of("nvmlDeviceGetComputeRunningProcesses_v3", device).and_then(|call| {
            let processes = call.object()["processes"].as_array().ok_or(NOT_SUPPORTED)?;
            // SAFETY: the caller's number of places, and how many it has been given.
            unsafe {
                let room = std::mem::replace(&mut *count, processes.len() as c_uint) as usize;
                if room < processes.len() {
                    return Err(TOO_SMALL);
                }
                for (at, process) in processes.iter().enumerate() {
                    *out.add(at) = Process {
                        pid: process["pid"].as_u64().unwrap_or(0) as c_uint,
                        memory: process["bytes"].as_u64().unwrap_or(0),
                        instance: c_uint::MAX,
                        compute: c_uint::MAX,
                    };
                }
            }
            Ok(())
        }),
    )
}

/// nvmlFieldValue_t.
#[repr(C)]
struct Field {
    id: c_uint,
    scope: c_uint,
    timestamp: c_longlong,
    latency: c_longlong,
    kind: c_uint,
    result: Code,
    value: c_ulonglong,
}

/// NVML_VALUE_TYPE_UNSIGNED_INT and _UNSIGNED_LONG_LONG.
const NARROW: c_uint = 1;
const WIDE: c_uint = 3;

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(device: Raw, count: c_int, out: *mut Field) -> Code {
    code(
        Call::of("nvmlDeviceGetFieldValues", device).and_then(|call| {
            let count = usize::try_from(count).map_err(|_| INVALID)?;
            // SAFETY: the caller's array and its length.
            let fields = unsafe { std::slice::from_raw_parts_mut(out, count) };
            for field in fields {
                let value = &call.object()["fields"][field.id.to_string()];
                // NVLink throughput is of one link, or of all: only all is in the file.
                let in_scope = !matches!(field.id, 138 | 139) || field.scope == c_uint::MAX;
                field.result = match value {
                    Value::Number(number) if in_scope => {
                        field.value = number.as_u64().unwrap_or(0);
                        field.kind = if field.value > u64::from(u32::MAX) {
                            WIDE
                        } else {
                            NARROW
                        };
                        0
                    }
                    // An error code as a text.
                    Value::String(error) => error.parse().unwrap_or(NOT_SUPPORTED),
                    _ => NOT_SUPPORTED,
                };
            }
            Ok(())
        }),
    )
}

const _: () = assert!(size_of::<Field>() == 40 && size_of::<MemoryV2>() == 40);
