//! NVML itself, by nvml-wrapper: each question of [`Call`] as the function that answers it.

use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PcieUtilCounter, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::gpu::ffi::{self, FieldValue};
use crate::gpu::gpm::Gpm;
use crate::gpu::lifecycle::{Class, Fault};
use crate::gpu::names::Field;
use crate::gpu::source::{Answer, Call, Identity, Instance, Source};

const PCIE_TX: u32 = 197;
const PCIE_RX: u32 = 198;
const NVLINK_TX: u32 = 138;
const NVLINK_RX: u32 = 139;
/// NVML_PSTATE_UNKNOWN.
const PSTATE_UNKNOWN: u32 = 32;
/// Beyond it a temperature is not one.
const HOT: u64 = 200;

/// `(NVML_FI_*, scope)`, read in one call at each poll.
const FIELDS: [(u32, u32); 12] = [
    (82, 0),
    (230, 0),
    (PCIE_TX, 0),
    (PCIE_RX, 0),
    (NVLINK_TX, ffi::ALL_LINKS),
    (NVLINK_RX, ffi::ALL_LINKS),
    (74, 0),
    (75, 0),
    (76, 0),
    (77, 0),
    (78, 0),
    (79, 0),
];
/// Likewise, now and then.
const SLOW_FIELDS: [(u32, u32); 7] = [
    (29, 0),
    (30, 0),
    (31, 0),
    (142, 0),
    (143, 0),
    (144, 0),
    (145, 0),
];

/// The GPUs of one generation.
#[derive(Debug)]
pub(super) struct Gpus<'n> {
    nvml: &'n Nvml,
    devices: Vec<(u32, Device<'n>)>,
    gpm: Gpm<'n>,
}

impl<'n> Gpus<'n> {
    pub(super) fn new(nvml: &'n Nvml) -> Self {
        Self {
            nvml,
            devices: Vec::new(),
            gpm: Gpm::default(),
        }
    }

    /// Finds GPU `index` and who it is.
    pub(super) fn identify(&mut self, index: u32) -> Result<Identity, Fault> {
        let device = self.nvml.device_by_index(index)?;
        let identity = Identity {
            index,
            uuid: device.uuid()?,
            model: ffi::name(&device)?,
            // On some virtual GPUs there is no such thing.
            pci_bus_id: device.pci_info().map(|pci| pci.bus_id).unwrap_or_default(),
            minor: device.minor_number().ok(),
        };
        self.devices.push((index, device));
        Ok(identity)
    }

    fn device(&self, gpu: u32) -> Result<&Device<'n>, Fault> {
        self.devices
            .iter()
            .find_map(|(index, device)| (*index == gpu).then_some(device))
            .ok_or(Fault::NotFound)
    }
}

impl Source for Gpus<'_> {
    fn count(&self) -> Result<u32, Fault> {
        Ok(self.nvml.device_count()?)
    }

    fn ask(&mut self, gpu: u32, call: Call) -> Result<Answer, Fault> {
        if call == Call::Gpm {
            let device = self
                .devices
                .iter()
                .find_map(|(index, device)| (*index == gpu).then_some(device))
                .ok_or(Fault::NotFound)?;
            let values = self.gpm.read(device, gpu, None)?;
            return Ok(Answer {
                values,
                ..Answer::default()
            });
        }
        ask(self.device(gpu)?, call)
    }

    fn instances(&mut self, gpu: u32) -> Result<Vec<Instance>, Fault> {
        let Self { devices, gpm, .. } = self;
        let parent = devices
            .iter()
            .find_map(|(index, device)| (*index == gpu).then_some(device))
            .ok_or(Fault::NotFound)?;
        let mut found: Vec<Instance> = Vec::new();
        for index in 0..parent.mig_device_count()? {
            // Slots without an instance answer "not found".
            let device = match parent.mig_device_by_index(index).map_err(Fault::from) {
                Ok(device) => device,
                Err(fault) if matches!(fault.class(), Class::Never | Class::NotNow) => continue,
                Err(fault) => return Err(fault),
            };
            let Ok(id) = ffi::gpu_instance_id(&device) else {
                continue;
            };
            let uuid = device.uuid().ok();
            // A MIG device is a compute instance: several of them may be in one GPU instance, whose memory they share.
            if let Some(known) = found.iter_mut().find(|known| known.id == id) {
                known.uuids.extend(uuid);
                continue;
            }
            let mut values = memory(&device).unwrap_or_default().values;
            // Samples of an instance are taken of its parent.
            values.extend(
                gpm.read(parent, gpu, Some(id))
                    .unwrap_or_default()
                    .into_iter()
                    .filter(
                        // PCIe and NVLink are the whole GPU's.
                        |(field, _)| *field <= Field::ProfDram && *field >= Field::ProfGraphics,
                    ),
            );
            found.push(Instance {
                id,
                profile: profile(&device),
                uuids: uuid.into_iter().collect(),
                values,
            });
        }
        gpm.keep(gpu, &found.iter().map(|instance| instance.id).collect());
        Ok(found)
    }

    fn processes(&mut self, gpu: u32) -> Result<Vec<(u32, u64)>, Fault> {
        let processes = self.device(gpu)?.running_compute_processes()?;
        Ok(processes
            .into_iter()
            .filter_map(|process| match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some((process.pid, bytes)),
                UsedGpuMemory::Unavailable => None,
            })
            .collect())
    }
}

fn ask(device: &Device<'_>, call: Call) -> Result<Answer, Fault> {
    let ecc = |kind, counter| device.total_ecc_errors(kind, counter).map(|n| n as f64);
    Ok(match call {
        Call::Utilization => {
            let rates = device.utilization_rates()?;
            let mut answer = Answer::of(Field::GpuUtil, rates.gpu.into());
            answer.values.push((Field::MemoryUtil, rates.memory.into()));
            answer
        }
        Call::Encoder => Answer::of(
            Field::EncoderUtil,
            device.encoder_utilization()?.utilization.into(),
        ),
        Call::Decoder => Answer::of(
            Field::DecoderUtil,
            device.decoder_utilization()?.utilization.into(),
        ),
        Call::Memory => memory(device)?,
        Call::Temperature => Answer::of(Field::GpuTemperature, temperature(device)?),
        Call::Power => Answer::of(Field::Power, device.power_usage()?.into()),
        Call::Energy => Answer::of(Field::Energy, device.total_energy_consumption()? as f64),
        Call::SmClock => Answer::of(Field::SmClock, device.clock_info(Clock::SM)?.into()),
        Call::MemoryClock => {
            Answer::of(Field::MemoryClock, device.clock_info(Clock::Memory)?.into())
        }
        Call::PcieReplays => Answer::of(Field::PcieReplays, device.pcie_replay_counter()?.into()),
        Call::PState => match device.performance_state()?.as_c() {
            PSTATE_UNKNOWN => Answer::default(),
            state => Answer::of(Field::PState, state.into()),
        },
        Call::ClocksEvent => Answer::of(
            Field::ClocksEventReasons,
            ffi::clocks_event_reasons(device)? as f64,
        ),
        Call::EccSbeVolatile => Answer::of(
            Field::EccSbeVolatile,
            ecc(MemoryError::Corrected, EccCounter::Volatile)?,
        ),
        Call::EccDbeVolatile => Answer::of(
            Field::EccDbeVolatile,
            ecc(MemoryError::Uncorrected, EccCounter::Volatile)?,
        ),
        Call::EccSbeAggregate => Answer::of(
            Field::EccSbeAggregate,
            ecc(MemoryError::Corrected, EccCounter::Aggregate)?,
        ),
        Call::EccDbeAggregate => Answer::of(
            Field::EccDbeAggregate,
            ecc(MemoryError::Uncorrected, EccCounter::Aggregate)?,
        ),
        Call::Fields => fields(&ffi::field_values(device, &FIELDS)?)?,
        Call::SlowFields => fields(&ffi::field_values(device, &SLOW_FIELDS)?)?,
        // A GPU of a server has no fans of its own.
        Call::Fan if device.num_fans()? == 0 => return Err(Fault::NotSupported),
        Call::Fan => Answer::of(Field::Fan, device.fan_speed(0)?.into()),
        Call::MigMode => Answer::of(Field::MigMode, device.mig_mode()?.current.into()),
        Call::PcieThroughput => {
            // In KB/s.
            let out = f64::from(device.pcie_throughput(PcieUtilCounter::Send)?);
            let into = f64::from(device.pcie_throughput(PcieUtilCounter::Receive)?);
            let mut answer = Answer::of(Field::PcieTx, out * 1024.0);
            answer.values.push((Field::PcieRx, into * 1024.0));
            answer
        }
        Call::PowerLimitEnforced => Answer::of(
            Field::PowerLimitEnforced,
            device.enforced_power_limit()?.into(),
        ),
        Call::PowerLimit => Answer::of(Field::PowerLimit, device.power_management_limit()?.into()),
        Call::ThresholdSlowdown => Answer::of(
            Field::ThresholdSlowdown,
            device
                .temperature_threshold(TemperatureThreshold::Slowdown)?
                .into(),
        ),
        Call::ThresholdShutdown => Answer::of(
            Field::ThresholdShutdown,
            device
                .temperature_threshold(TemperatureThreshold::Shutdown)?
                .into(),
        ),
        Call::Init
        | Call::Count
        | Call::Identity
        | Call::Gpm
        | Call::MigInstances
        | Call::Processes
        | Call::RegisterEvents
        | Call::EventSetWait => return Err(Fault::Other),
    })
}

fn memory(device: &Device<'_>) -> Result<Answer, Fault> {
    let (total, free, used, reserved) = match device.memory_info() {
        Ok(memory) => (
            memory.total,
            memory.free,
            memory.used,
            Some(memory.reserved),
        ),
        // Before R510; what is reserved is then in `used`.
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => {
            let (total, free, used) = ffi::memory_v1(device)?;
            (total, free, used, None)
        }
        Err(error) => return Err(error.into()),
    };
    let mut answer = Answer::of(Field::MemoryTotal, total as f64);
    answer.values.push((Field::MemoryFree, free as f64));
    answer.values.push((Field::MemoryUsed, used as f64));
    if let Some(reserved) = reserved {
        answer.values.push((Field::MemoryReserved, reserved as f64));
    }
    let usable = total.saturating_sub(reserved.unwrap_or(0));
    if usable > 0 {
        answer
            .values
            .push((Field::MemoryUsedRatio, used as f64 / usable as f64));
    }
    Ok(answer)
}

fn temperature(device: &Device<'_>) -> Result<f64, Fault> {
    let degrees = match device.temperature(TemperatureSensor::Gpu) {
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => {
            ffi::temperature(device)?
        }
        other => other?,
    };
    if u64::from(degrees) > HOT {
        Err(Fault::NoData)
    } else {
        Ok(degrees.into())
    }
}

fn fields(fields: &[FieldValue]) -> Result<Answer, Fault> {
    let mut answer = Answer::default();
    let (mut pcie, mut nvlink) = ((None, None), (None, None));
    for FieldValue { id, value } in fields {
        let value = match value {
            Ok(value) => *value,
            Err(NvmlError::GpuLost) => return Err(Fault::GpuLost),
            Err(_absent) => continue,
        };
        let field = match *id {
            29 => Field::RetiredSbe,
            30 => Field::RetiredDbe,
            31 => Field::RetiredPending,
            74 => Field::ViolationPower,
            75 => Field::ViolationThermal,
            76 => Field::ViolationSyncBoost,
            77 => Field::ViolationBoardLimit,
            78 => Field::ViolationLowUtil,
            79 => Field::ViolationReliability,
            82 if value <= HOT => Field::MemoryTemperature,
            142 => Field::RemappedCorrectable,
            143 => Field::RemappedUncorrectable,
            144 => Field::RemapPending,
            145 => Field::RemapFailure,
            230 => Field::RecoveryAction,
            counter => {
                match counter {
                    PCIE_TX => pcie.0 = Some(value),
                    PCIE_RX => pcie.1 = Some(value),
                    NVLINK_TX => nvlink.0 = Some(value),
                    NVLINK_RX => nvlink.1 = Some(value),
                    _ => {}
                }
                continue;
            }
        };
        answer.values.push((field, value as f64));
    }
    answer.counters.pcie = pcie.0.zip(pcie.1);
    answer.counters.nvlink = nvlink.0.zip(nvlink.1);
    Ok(answer)
}

/// `1g.10gb`: the end of its name, `… MIG 1g.10gb`; of drivers that do not name it so, from its size.
fn profile(device: &Device<'_>) -> String {
    let named = ffi::name(device)
        .ok()
        .and_then(|name| Some(gpu_instance(name.rsplit_once("MIG ")?.1.trim()).to_owned()));
    named.unwrap_or_else(|| match device.attributes() {
        Ok(attributes) => format!(
            "{}g.{}gb",
            attributes.gpu_instance_slice_count,
            attributes.memory_size_mb.div_ceil(1024)
        ),
        Err(_unknown) => String::new(),
    })
}

/// Of a part of a GPU instance, `1c.3g.40gb`, the GPU instance: `3g.40gb`.
fn gpu_instance(profile: &str) -> &str {
    match profile.split_once("c.") {
        Some((slices, whole)) if slices.parse::<u32>().is_ok() => whole,
        _ => profile,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_the_gpu_instances() {
        for (named, wanted) in [
            ("1g.10gb", "1g.10gb"),
            ("1c.3g.40gb", "3g.40gb"),
            ("2c.7g.80gb+me", "7g.80gb+me"),
            ("", ""),
        ] {
            assert_eq!(gpu_instance(named), wanted, "{named}");
        }
    }
}
