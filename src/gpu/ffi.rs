//! The few calls that nvml-wrapper does not make: fields with a scope, memory of drivers before R510, the clocks event
//! reasons under their present name, names of any bytes, and the id of a GPU instance. The only unsafe code of this crate.
#![allow(unsafe_code)]

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlMemory_t, nvmlTemperature_t,
    nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE as DOUBLE,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT as UNSIGNED_SHORT,
};

/// As `scopeId`: all links together.
pub(super) const ALL_LINKS: u32 = u32::MAX;

/// One value of [`field_values`].
pub(super) struct FieldValue {
    pub(super) id: u32,
    pub(super) value: Result<u64, NvmlError>,
}

/// `nvmlDeviceGetFieldValues` of `(field, scope)`; the wrapper's own cannot say a scope.
pub(super) fn field_values(
    device: &Device<'_>,
    fields: &[(u32, u32)],
) -> Result<Vec<FieldValue>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut values: Vec<_> = fields
        .iter()
        .map(|(field, scope)| nvmlFieldValue_t {
            fieldId: *field,
            scopeId: *scope,
            timestamp: 0,
            latencyUsec: 0,
            valueType: UNSIGNED_LONG_LONG,
            nvmlReturn: 0,
            value: nvmlValue_t { ullVal: 0 },
        })
        .collect();
    let count = i32::try_from(values.len()).map_err(|_too_many| NvmlError::InvalidArg)?;
    // SAFETY: the handle is a live one of this library, and `values` has room for `count` entries.
    nvml_try(unsafe { call(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values
        .iter()
        .map(|value| FieldValue {
            id: value.fieldId,
            value: nvml_try(value.nvmlReturn).and_then(|()| decode(value)),
        })
        .collect())
}

/// The memory temperature, whose tag some drivers (R545) get wrong.
const MEMORY_TEMP: u32 = 82;

fn decode(field: &nvmlFieldValue_t) -> Result<u64, NvmlError> {
    let kind = if field.fieldId == MEMORY_TEMP {
        UNSIGNED_INT
    } else {
        field.valueType
    };
    let value = &field.value;
    // SAFETY: the union was zeroed and then written by NVML; each member is a plain number of any bits.
    let (whole, signed) = unsafe {
        match kind {
            DOUBLE => (value.dVal as u64, 0),
            UNSIGNED_INT => (value.uiVal.into(), 0),
            UNSIGNED_LONG | UNSIGNED_LONG_LONG => (value.ullVal, 0),
            UNSIGNED_SHORT => (value.usVal.into(), 0),
            SIGNED_INT => (0, value.siVal.into()),
            SIGNED_LONG_LONG => (0, value.sllVal),
            other => return Err(NvmlError::UnexpectedVariant(other)),
        }
    };
    Ok(whole.max(u64::try_from(signed).unwrap_or(0)))
}

/// `nvmlDeviceGetMemoryInfo`: total, free, and used with what is reserved. For drivers before R510.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<(u64, u64, u64), NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref())?;
    let mut memory = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    // SAFETY: a live handle of this library, and a struct of the type that the function fills.
    nvml_try(unsafe { call(device.handle(), &raw mut memory) })?;
    Ok((memory.total, memory.free, memory.used))
}

/// `nvmlDeviceGetTemperatureV`, for when the older function is gone.
pub(super) fn temperature(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetTemperatureV.as_ref())?;
    let size = u32::try_from(size_of::<nvmlTemperature_t>()).unwrap_or(0);
    let mut reading = nvmlTemperature_t {
        version: size | (1 << 24),
        sensorType: nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU,
        temperature: 0,
    };
    // SAFETY: a live handle of this library, and a struct whose version word says which one it is.
    nvml_try(unsafe { call(device.handle(), &raw mut reading) })?;
    u32::try_from(reading.temperature).map_err(|_negative| NvmlError::NoData)
}

/// `nvmlDeviceGetCurrentClocksEventReasons`: R535 and later; before that under its deprecated name.
pub(super) fn clocks_event_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let mut reasons = 0;
    match nvml_sym(lib.nvmlDeviceGetCurrentClocksEventReasons.as_ref()) {
        // SAFETY: a live handle of this library, and a place for the mask.
        Ok(call) => nvml_try(unsafe { call(device.handle(), &raw mut reasons) })?,
        Err(_older) => return Ok(device.current_throttle_reasons()?.bits()),
    }
    Ok(reasons)
}

/// NVML_DEVICE_NAME_V2_BUFFER_SIZE.
const NAME_SIZE: usize = 96;

/// `nvmlDeviceGetName`. The wrapper's own fails at a name that is not UTF-8: no reason to do without the GPU.
pub(super) fn name(device: &Device<'_>) -> Result<String, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetName.as_ref())?;
    let mut name = [0_u8; NAME_SIZE];
    let size = u32::try_from(name.len()).map_err(|_too_long| NvmlError::InvalidArg)?;
    // SAFETY: a live handle of this library, and a buffer with its size.
    nvml_try(unsafe { call(device.handle(), name.as_mut_ptr().cast(), size) })?;
    let end = name.iter().position(|byte| *byte == 0);
    let text = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// `nvmlDeviceGetGpuInstanceId` of a MIG device.
pub(super) fn gpu_instance_id(device: &Device<'_>) -> Result<u32, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: a live handle of this library, and a place for the number.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Whether both are the same GPU, without asking the driver: a lost one would not answer.
pub(super) fn same(one: &Device<'_>, other: &Device<'_>) -> bool {
    // SAFETY: the handles are only compared.
    unsafe { one.handle() == other.handle() }
}

/// Whether the library has what the wrapper's destructors call; they panic without it.
pub(super) fn can_be_dropped(nvml: &Nvml) -> bool {
    nvml.lib().nvmlShutdown.is_ok()
}
