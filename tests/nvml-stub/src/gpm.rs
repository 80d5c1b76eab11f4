//! GPM: a sample is which GPU or instance it is of; a metric is `gpm.<id>` of that.

use std::ffi::{c_char, c_uint};

use crate::state::{Call, Handle, Raw};
use crate::{Code, NOT_FOUND, NOT_SUPPORTED, code};

/// A sample: the handle of what it was taken of, once it was.
type Sample = *mut Raw;

/// nvmlGpmMetric_t.
#[repr(C)]
struct Metric {
    id: c_uint,
    result: Code,
    value: f64,
    texts: [*mut c_char; 3],
}

/// nvmlGpmMetricsGet_t, of which only what was asked for is touched.
#[repr(C)]
struct Request {
    version: c_uint,
    count: c_uint,
    one: Sample,
    two: Sample,
    metrics: [Metric; 210],
}

/// nvmlGpmSupport_t.
#[repr(C)]
struct Support {
    version: c_uint,
    supported: c_uint,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmQueryDeviceSupport(device: Raw, out: *mut Support) -> Code {
    code(Call::of("nvmlGpmQueryDeviceSupport", device).map(|call| {
        // SAFETY: the caller's struct.
        unsafe { (*out).supported = call.object()["gpm"].is_object().into() };
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleAlloc(out: *mut Sample) -> Code {
    // SAFETY: the caller's place for it.
    unsafe { *out = Box::into_raw(Box::new(std::ptr::null_mut())) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleFree(sample: Sample) -> Code {
    // SAFETY: it came from nvmlGpmSampleAlloc and is freed once.
    drop(unsafe { Box::from_raw(sample) });
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmSampleGet(device: Raw, sample: Sample) -> Code {
    code(Call::of("nvmlGpmSampleGet", device).map(|_| {
        // SAFETY: a live sample.
        unsafe { *sample = device };
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMigSampleGet(device: Raw, id: c_uint, sample: Sample) -> Code {
    code(Call::of("nvmlGpmMigSampleGet", device).and_then(|call| {
        let gpu = Handle::from_raw(device)?.gpu;
        let instances = call.object()["mig"].as_array().ok_or(NOT_FOUND)?;
        let instance = instances.iter().position(|instance| {
            instance["values"]["nvmlDeviceGetGpuInstanceId"].as_u64() == Some(id.into())
        });
        let handle = Handle {
            gpu,
            instance: Some(instance.ok_or(NOT_FOUND)?),
        };
        // SAFETY: a live sample.
        unsafe { *sample = handle.raw() };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut Request) -> Code {
    // SAFETY: the caller's struct and the live samples in it.
    let (device, request) = unsafe { (*(*request).two, &mut *request) };
    code(Call::of("nvmlGpmMetricsGet", device).map(|call| {
        for metric in request.metrics.iter_mut().take(request.count as usize) {
            match call.object()["gpm"][metric.id.to_string()].as_f64() {
                Some(value) => (metric.result, metric.value) = (0, value),
                None => metric.result = NOT_SUPPORTED,
            }
        }
    }))
}
