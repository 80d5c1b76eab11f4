//! The one table of DCGM's names: what each value is called in either naming profile, its unit, type and help text.
//!
//! Profile `dcgm` is what dcgm-exporter has up to 4.8. Of profile `dcgm-4.7` these are certain, from DCGM's field lists:
//! `SM_CLOCK_HERTZ`, `MEMORY_CLOCK_HERTZ`, `GPU_ENERGY_JOULES_TOTAL`, `FAN_SPEED_RATIO`, `FB_CAPACITY_BYTES`, and the names
//! that 4.6 has already made primary (`GPU_TEMP_CELSIUS`, `MEMORY_TEMP_CELSIUS`, `BOARD_POWER_*`, `GPU_UTIL_RATIO`,
//! `PCIE_REPLAY_TOTAL`, `XID_ERROR`, `ROW_REMAP_*`, `PAGE_RETIRED_*`, `GPU_PSTATE`, `NVLINK_THROUGHPUT_TOTAL`, `FB_USED_RATIO`,
//! `PROF_*_RATIO`). That utilization is 0 to 1, memory is bytes and NVLink bytes/s is certain too, but
//! `MEM_COPY_UTIL_RATIO`, `ENC_UTIL_RATIO`, `DEC_UTIL_RATIO` and `FB_{USED,FREE,RESERVED}_BYTES` are named by analogy.

use crate::config::GpuNaming;
use crate::exposition::Kind;
use crate::gpu::unit::Unit;

/// A value of a GPU, in NVML's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Share of time with a kernel running, %.
    GpuUtil,
    /// Share of time with memory read or written, %.
    MemoryUtil,
    /// Video encoder, %.
    EncoderUtil,
    /// Video decoder, %.
    DecoderUtil,
    /// Memory allocated, bytes.
    MemoryUsed,
    /// Memory free, bytes.
    MemoryFree,
    /// Memory that the driver keeps, bytes.
    MemoryReserved,
    /// All of it, bytes.
    MemoryTotal,
    /// Used of what can be used, 0 to 1.
    MemoryUsedRatio,
    /// °C.
    GpuTemperature,
    /// °C.
    MemoryTemperature,
    /// mW.
    Power,
    /// mW.
    PowerLimitEnforced,
    /// mW.
    PowerLimit,
    /// mJ.
    Energy,
    /// MHz.
    SmClock,
    /// MHz.
    MemoryClock,
    /// Out of the GPU, bytes/s.
    PcieTx,
    /// Into the GPU, bytes/s.
    PcieRx,
    /// Count.
    PcieReplays,
    /// Both directions, all links, bytes/s.
    NvlinkTotal,
    /// Bytes/s.
    NvlinkTx,
    /// Bytes/s.
    NvlinkRx,
    /// Corrected, since the driver was loaded.
    EccSbeVolatile,
    /// Uncorrected, since the driver was loaded.
    EccDbeVolatile,
    /// Corrected, ever.
    EccSbeAggregate,
    /// Uncorrected, ever.
    EccDbeAggregate,
    /// Rows remapped after corrected errors.
    RemappedCorrectable,
    /// Rows remapped after uncorrected errors.
    RemappedUncorrectable,
    /// 0 or 1.
    RemapPending,
    /// 0 or 1.
    RemapFailure,
    /// Pages retired after corrected errors.
    RetiredSbe,
    /// Pages retired after uncorrected errors.
    RetiredDbe,
    /// 0 or 1.
    RetiredPending,
    /// Bit mask.
    ClocksEventReasons,
    /// 0 (fastest) to 15.
    PState,
    /// %.
    Fan,
    /// 0 or 1.
    MigMode,
    /// ns.
    ViolationPower,
    /// ns.
    ViolationThermal,
    /// ns.
    ViolationSyncBoost,
    /// ns.
    ViolationBoardLimit,
    /// ns.
    ViolationLowUtil,
    /// ns.
    ViolationReliability,
    /// %.
    ProfGraphics,
    /// %.
    ProfSm,
    /// %.
    ProfOccupancy,
    /// %.
    ProfTensor,
    /// %.
    ProfDram,
    /// nvmlDeviceGpuRecoveryAction: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.
    RecoveryAction,
    /// °C.
    ThresholdSlowdown,
    /// °C.
    ThresholdShutdown,
}

/// What a value is called.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// The family's name.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
}

/// A family of DCGM's.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Where its value comes from.
    pub field: Field,
    /// In profile `dcgm`.
    pub legacy: Name,
    /// In profile `dcgm-4.7`; `None`: not there.
    pub modern: Option<Name>,
    /// Its type.
    pub kind: Kind,
    /// What it is, without the unit.
    pub help: &'static str,
}

impl Family {
    /// In the given profile.
    #[must_use]
    pub fn name(&self, naming: GpuNaming) -> Option<Name> {
        match naming {
            GpuNaming::Dcgm => Some(self.legacy),
            GpuNaming::Dcgm47 => self.modern,
        }
    }
}

/// The gauge of the last XID: its labels differ from the others'.
#[must_use]
pub fn xid(naming: GpuNaming) -> &'static str {
    match naming {
        GpuNaming::Dcgm => "DCGM_FI_DEV_XID_ERRORS",
        GpuNaming::Dcgm47 => "DCGM_FI_DEV_XID_ERROR",
    }
}

/// The label with the driver's version.
#[must_use]
pub fn driver_label(naming: GpuNaming) -> &'static str {
    match naming {
        GpuNaming::Dcgm => "DCGM_FI_DRIVER_VERSION",
        GpuNaming::Dcgm47 => "DCGM_FI_SYSTEM_DRIVER_VERSION",
    }
}

macro_rules! families {
    ($($kind:ident $field:ident $legacy:literal $unit:ident => $modern:tt $munit:ident, $help:literal;)*) => {
        /// All of them, in the order in which they are written.
        pub const FAMILIES: &[Family] = &[$(Family {
            field: Field::$field,
            legacy: Name { name: concat!("DCGM_FI_", $legacy), unit: Unit::$unit },
            modern: families!(@modern $modern $munit),
            kind: Kind::$kind,
            help: $help,
        }),*];
    };
    (@modern - $unit:ident) => { None };
    (@modern $name:literal $unit:ident) => {
        Some(Name { name: concat!("DCGM_FI_", $name), unit: Unit::$unit })
    };
}

families! {
    Gauge SmClock "DEV_SM_CLOCK" Megahertz => "DEV_SM_CLOCK_HERTZ" Hertz, "SM clock frequency";
    Gauge MemoryClock "DEV_MEM_CLOCK" Megahertz => "DEV_MEMORY_CLOCK_HERTZ" Hertz, "Memory clock frequency";
    Gauge MemoryTemperature "DEV_MEMORY_TEMP" Celsius => "DEV_MEMORY_TEMP_CELSIUS" Celsius, "Memory temperature";
    Gauge GpuTemperature "DEV_GPU_TEMP" Celsius => "DEV_GPU_TEMP_CELSIUS" Celsius, "GPU temperature";
    Gauge Power "DEV_POWER_USAGE" Watts => "DEV_BOARD_POWER_WATTS" Watts, "Power draw";
    Gauge PowerLimitEnforced "DEV_ENFORCED_POWER_LIMIT" Watts => "DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS" Watts, "Power limit that the driver enforces, all limiters considered";
    Gauge PowerLimit "DEV_POWER_MGMT_LIMIT" Watts => "DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS" Watts, "Power limit that was set";
    Counter Energy "DEV_TOTAL_ENERGY_CONSUMPTION" Millijoules => "DEV_GPU_ENERGY_JOULES_TOTAL" Joules, "Total energy consumption since boot";
    Gauge PcieTx "DEV_PCIE_TX_THROUGHPUT" KibibytesPerSecond => "DEV_PCIE_TX_THROUGHPUT" KibibytesPerSecond, "PCIe transmit rate, a gauge";
    Gauge PcieRx "DEV_PCIE_RX_THROUGHPUT" KibibytesPerSecond => "DEV_PCIE_RX_THROUGHPUT" KibibytesPerSecond, "PCIe receive rate, a gauge";
    Counter PcieReplays "DEV_PCIE_REPLAY_COUNTER" Count => "DEV_PCIE_REPLAY_TOTAL" Count, "Total number of PCIe retries";
    Gauge GpuUtil "DEV_GPU_UTIL" Percent => "DEV_GPU_UTIL_RATIO" Ratio, "GPU utilization";
    Gauge MemoryUtil "DEV_MEM_COPY_UTIL" Percent => "DEV_MEM_COPY_UTIL_RATIO" Ratio, "Share of time in which memory was read or written, not memory in use";
    Gauge EncoderUtil "DEV_ENC_UTIL" Percent => "DEV_ENC_UTIL_RATIO" Ratio, "Encoder utilization";
    Gauge DecoderUtil "DEV_DEC_UTIL" Percent => "DEV_DEC_UTIL_RATIO" Ratio, "Decoder utilization";
    Gauge MemoryTotal "DEV_FB_TOTAL" Mebibytes => "DEV_FB_CAPACITY_BYTES" Bytes, "Framebuffer memory, all of it";
    Gauge MemoryFree "DEV_FB_FREE" Mebibytes => "DEV_FB_FREE_BYTES" Bytes, "Framebuffer memory free";
    Gauge MemoryUsed "DEV_FB_USED" Mebibytes => "DEV_FB_USED_BYTES" Bytes, "Framebuffer memory used";
    Gauge MemoryReserved "DEV_FB_RESERVED" Mebibytes => "DEV_FB_RESERVED_BYTES" Bytes, "Framebuffer memory that the driver keeps";
    Gauge MemoryUsedRatio "DEV_FB_USED_PERCENT" Fraction => "DEV_FB_USED_RATIO" Fraction, "Framebuffer memory used of what is not reserved";
    Gauge NvlinkTotal "DEV_NVLINK_BANDWIDTH_TOTAL" MegabytesPerSecond => "DEV_NVLINK_THROUGHPUT_TOTAL" BytesPerSecond, "NVLink rate, all links and both directions, a gauge";
    Counter EccSbeVolatile "DEV_ECC_SBE_VOL_TOTAL" Count => "DEV_ECC_SBE_VOL_TOTAL" Count, "Single-bit ECC errors since the driver was loaded";
    Counter EccDbeVolatile "DEV_ECC_DBE_VOL_TOTAL" Count => "DEV_ECC_DBE_VOL_TOTAL" Count, "Double-bit ECC errors since the driver was loaded";
    Counter EccSbeAggregate "DEV_ECC_SBE_AGG_TOTAL" Count => "DEV_ECC_SBE_AGG_TOTAL" Count, "Single-bit ECC errors over the GPU's life";
    Counter EccDbeAggregate "DEV_ECC_DBE_AGG_TOTAL" Count => "DEV_ECC_DBE_AGG_TOTAL" Count, "Double-bit ECC errors over the GPU's life";
    Counter RetiredSbe "DEV_RETIRED_SBE" Count => "DEV_PAGE_RETIRED_SBE_TOTAL" Count, "Pages retired because of single-bit errors";
    Counter RetiredDbe "DEV_RETIRED_DBE" Count => "DEV_PAGE_RETIRED_DBE_TOTAL" Count, "Pages retired because of double-bit errors";
    Gauge RetiredPending "DEV_RETIRED_PENDING" Count => "DEV_PAGE_RETIRED_PENDING" Count, "Whether pages wait to be retired";
    Counter RemappedUncorrectable "DEV_UNCORRECTABLE_REMAPPED_ROWS" Count => "DEV_ROW_REMAP_UNCORRECTABLE_TOTAL" Count, "Rows remapped for uncorrectable errors";
    Counter RemappedCorrectable "DEV_CORRECTABLE_REMAPPED_ROWS" Count => "DEV_ROW_REMAP_CORRECTABLE_TOTAL" Count, "Rows remapped for correctable errors";
    Gauge RemapFailure "DEV_ROW_REMAP_FAILURE" Count => "DEV_ROW_REMAP_FAILED" Count, "Whether remapping of rows has failed";
    Gauge RemapPending "DEV_ROW_REMAP_PENDING" Count => "DEV_ROW_REMAP_PENDING" Count, "Whether remapping of rows waits for a reset";
    Gauge ClocksEventReasons "DEV_CLOCKS_EVENT_REASONS" Count => "DEV_CLOCKS_EVENT_REASONS" Count, "Why clocks are as they are, a bit mask";
    Gauge ClocksEventReasons "DEV_CLOCK_THROTTLE_REASONS" Count => - Count, "Why clocks are as they are, a bit mask (older name)";
    Gauge PState "DEV_PSTATE" Count => "DEV_GPU_PSTATE" Count, "Performance state, 0 is the highest";
    Gauge Fan "DEV_FAN_SPEED" Percent => "DEV_FAN_SPEED_RATIO" Ratio, "Fan speed";
    Gauge MigMode "DEV_MIG_MODE" Count => "DEV_MIG_MODE" Count, "Whether MIG is on";
    Counter ViolationPower "DEV_POWER_VIOLATION" Nanoseconds => "DEV_POWER_VIOLATION" Nanoseconds, "Time held back by the power cap";
    Counter ViolationThermal "DEV_THERMAL_VIOLATION" Nanoseconds => "DEV_THERMAL_VIOLATION" Nanoseconds, "Time held back by heat";
    Counter ViolationSyncBoost "DEV_SYNC_BOOST_VIOLATION" Nanoseconds => "DEV_SYNC_BOOST_VIOLATION" Nanoseconds, "Time held back by sync boost";
    Counter ViolationBoardLimit "DEV_BOARD_LIMIT_VIOLATION" Nanoseconds => "DEV_BOARD_LIMIT_VIOLATION" Nanoseconds, "Time held back by the board limit";
    Counter ViolationLowUtil "DEV_LOW_UTIL_VIOLATION" Nanoseconds => "DEV_LOW_UTIL_VIOLATION" Nanoseconds, "Time held back by low utilization";
    Counter ViolationReliability "DEV_RELIABILITY_VIOLATION" Nanoseconds => "DEV_RELIABILITY_VIOLATION" Nanoseconds, "Time held back by the reliability voltage";
    Gauge ProfGraphics "PROF_GR_ENGINE_ACTIVE" Ratio => "PROF_GR_ENGINE_UTIL_RATIO" Ratio, "Share of time in which the graphics engine was active";
    Gauge ProfSm "PROF_SM_ACTIVE" Ratio => "PROF_SM_UTIL_RATIO" Ratio, "Share of cycles in which an SM had a warp";
    Gauge ProfOccupancy "PROF_SM_OCCUPANCY" Ratio => "PROF_SM_OCCUPANCY_RATIO" Ratio, "Resident warps of what an SM can hold";
    Gauge ProfTensor "PROF_PIPE_TENSOR_ACTIVE" Ratio => "PROF_TENSOR_UTIL_RATIO" Ratio, "Share of cycles in which the tensor pipe was active";
    Gauge ProfDram "PROF_DRAM_ACTIVE" Ratio => "PROF_DRAM_UTIL_RATIO" Ratio, "Share of cycles in which memory moved data";
    Gauge PcieTx "PROF_PCIE_TX_BYTES" BytesPerSecond => "PROF_PCIE_TX_BYTES" BytesPerSecond, "PCIe transmit rate, a gauge";
    Gauge PcieRx "PROF_PCIE_RX_BYTES" BytesPerSecond => "PROF_PCIE_RX_BYTES" BytesPerSecond, "PCIe receive rate, a gauge";
    Gauge NvlinkTx "PROF_NVLINK_TX_BYTES" BytesPerSecond => "PROF_NVLINK_TX_BYTES" BytesPerSecond, "NVLink transmit rate, all links, a gauge";
    Gauge NvlinkRx "PROF_NVLINK_RX_BYTES" BytesPerSecond => "PROF_NVLINK_RX_BYTES" BytesPerSecond, "NVLink receive rate, all links, a gauge";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed_in_both_profiles() {
        for naming in [GpuNaming::Dcgm, GpuNaming::Dcgm47] {
            let mut seen = BTreeSet::from([xid(naming)]);
            for family in FAMILIES {
                let Some(Name { name, unit }) = family.name(naming) else {
                    continue;
                };
                assert!(seen.insert(name), "{name} twice");
                assert!(
                    name.bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
                );
                assert!(
                    !family.help.is_empty() && !family.help.ends_with('.'),
                    "{name}"
                );
                // A name that says its unit has it.
                for (suffix, units) in [
                    ("_CELSIUS", &[Unit::Celsius][..]),
                    ("_WATTS", &[Unit::Watts]),
                    ("_HERTZ", &[Unit::Hertz]),
                    ("_RATIO", &[Unit::Ratio, Unit::Fraction]),
                    ("_JOULES_TOTAL", &[Unit::Joules]),
                    ("_BYTES", &[Unit::Bytes, Unit::BytesPerSecond]),
                ] {
                    assert!(
                        !name.ends_with(suffix) || units.contains(&unit),
                        "{name} in {unit:?}"
                    );
                }
            }
        }
    }
}
