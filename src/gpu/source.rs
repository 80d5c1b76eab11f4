//! What the reader asks, and of whom: a trait above NVML, so that reading can be tested without it.

use crate::gpu::lifecycle::Fault;
use crate::gpu::names::Field;

/// One question. Each is one NVML function, or two that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Loading the library and `nvmlInit_v2`.
    Init,
    /// How many GPUs there are.
    Count,
    /// Handle, UUID, name, PCI address, minor number.
    Identity,
    /// GPU and memory utilization.
    Utilization,
    /// Video encoder.
    Encoder,
    /// Video decoder.
    Decoder,
    /// Memory.
    Memory,
    /// The GPU's temperature.
    Temperature,
    /// Power.
    Power,
    /// Energy.
    Energy,
    /// SM clock.
    SmClock,
    /// Memory clock.
    MemoryClock,
    /// PCIe replays.
    PcieReplays,
    /// Performance state.
    PState,
    /// Why clocks are as they are.
    ClocksEvent,
    /// Corrected errors since the driver was loaded.
    EccSbeVolatile,
    /// Uncorrected errors since the driver was loaded.
    EccDbeVolatile,
    /// Fields that are read in one call each poll: memory temperature, PCIe and NVLink counters, violations, recovery.
    Fields,
    /// Fan.
    Fan,
    /// GPM: what DCGM calls PROF.
    Gpm,
    /// MIG on or off.
    MigMode,
    /// The MIG instances.
    MigInstances,
    /// Processes.
    Processes,
    /// PCIe rates by the call that blocks for 2 × 20 ms.
    PcieThroughput,
    /// Limit in force.
    PowerLimitEnforced,
    /// Limit as set.
    PowerLimit,
    /// Slowdown threshold.
    ThresholdSlowdown,
    /// Shutdown threshold.
    ThresholdShutdown,
    /// Corrected errors, ever.
    EccSbeAggregate,
    /// Uncorrected errors, ever.
    EccDbeAggregate,
    /// Fields that change rarely: remapped rows, retired pages.
    SlowFields,
    /// Registering for XIDs.
    RegisterEvents,
    /// Waiting for XIDs.
    EventSetWait,
}

impl Call {
    /// Asked at each poll, in this order.
    pub const FAST: [Self; 18] = [
        Self::Utilization,
        Self::Memory,
        Self::Temperature,
        Self::Power,
        Self::Energy,
        Self::SmClock,
        Self::MemoryClock,
        Self::ClocksEvent,
        Self::PState,
        Self::Fields,
        Self::PcieReplays,
        Self::EccSbeVolatile,
        Self::EccDbeVolatile,
        Self::Encoder,
        Self::Decoder,
        Self::Fan,
        Self::MigMode,
        Self::Gpm,
    ];

    /// Asked now and then.
    pub const SLOW: [Self; 7] = [
        Self::PowerLimitEnforced,
        Self::PowerLimit,
        Self::ThresholdSlowdown,
        Self::ThresholdShutdown,
        Self::EccSbeAggregate,
        Self::EccDbeAggregate,
        Self::SlowFields,
    ];

    /// The `call` label: NVML's name of the function.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Init => "nvmlInit",
            Self::Count => "nvmlDeviceGetCount",
            Self::Identity => "nvmlDeviceGetHandleByIndex",
            Self::Utilization => "nvmlDeviceGetUtilizationRates",
            Self::Encoder => "nvmlDeviceGetEncoderUtilization",
            Self::Decoder => "nvmlDeviceGetDecoderUtilization",
            Self::Memory => "nvmlDeviceGetMemoryInfo",
            Self::Temperature => "nvmlDeviceGetTemperature",
            Self::Power => "nvmlDeviceGetPowerUsage",
            Self::Energy => "nvmlDeviceGetTotalEnergyConsumption",
            Self::SmClock | Self::MemoryClock => "nvmlDeviceGetClockInfo",
            Self::PcieReplays => "nvmlDeviceGetPcieReplayCounter",
            Self::PState => "nvmlDeviceGetPerformanceState",
            Self::ClocksEvent => "nvmlDeviceGetCurrentClocksEventReasons",
            Self::EccSbeVolatile
            | Self::EccDbeVolatile
            | Self::EccSbeAggregate
            | Self::EccDbeAggregate => "nvmlDeviceGetTotalEccErrors",
            Self::Fields | Self::SlowFields => "nvmlDeviceGetFieldValues",
            Self::Fan => "nvmlDeviceGetFanSpeed",
            Self::Gpm => "nvmlGpmMetricsGet",
            Self::MigMode => "nvmlDeviceGetMigMode",
            Self::MigInstances => "nvmlDeviceGetMigDeviceHandleByIndex",
            Self::Processes => "nvmlDeviceGetComputeRunningProcesses",
            Self::PcieThroughput => "nvmlDeviceGetPcieThroughput",
            Self::PowerLimitEnforced => "nvmlDeviceGetEnforcedPowerLimit",
            Self::PowerLimit => "nvmlDeviceGetPowerManagementLimit",
            Self::ThresholdSlowdown | Self::ThresholdShutdown => {
                "nvmlDeviceGetTemperatureThreshold"
            }
            Self::RegisterEvents => "nvmlDeviceRegisterEvents",
            Self::EventSetWait => "nvmlEventSetWait",
        }
    }
}

/// What never changes about a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// NVML's index.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// As NVML says it.
    pub model: String,
    /// As NVML says it, `00000000:07:00.0`.
    pub pci_bus_id: String,
    /// N of /dev/nvidiaN.
    pub minor: Option<u32>,
}

/// Cumulative counters: rates are made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Bytes out and in over PCIe, wrapping (fields 197 and 198).
    pub pcie: Option<(u64, u64)>,
    /// KiB out and in over all NVLinks (fields 138 and 139).
    pub nvlink: Option<(u64, u64)>,
}

/// What a call has brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Values in NVML's units.
    pub values: Vec<(Field, f64)>,
    /// Counters.
    pub counters: Counters,
}

impl Answer {
    /// One value.
    #[must_use]
    pub fn of(field: Field, value: f64) -> Self {
        Self {
            values: vec![(field, value)],
            counters: Counters::default(),
        }
    }
}

/// A MIG instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// GPU instance id: label `GPU_I_ID`.
    pub id: u32,
    /// `1g.10gb`: label `GPU_I_PROFILE`.
    pub profile: String,
    /// `MIG-…`, of each of its compute instances: they share what is measured.
    pub uuids: Vec<String>,
    /// Memory and GPM.
    pub values: Vec<(Field, f64)>,
}

/// Who answers.
pub trait Source {
    /// How many GPUs there are.
    ///
    /// # Errors
    /// NVML's.
    fn count(&self) -> Result<u32, Fault>;

    /// Asks one GPU one thing.
    ///
    /// # Errors
    /// NVML's.
    fn ask(&mut self, gpu: u32, call: Call) -> Result<Answer, Fault>;

    /// Its MIG instances.
    ///
    /// # Errors
    /// NVML's.
    fn instances(&mut self, gpu: u32) -> Result<Vec<Instance>, Fault>;

    /// Pid and bytes of each process with memory on it.
    ///
    /// # Errors
    /// NVML's.
    fn processes(&mut self, gpu: u32) -> Result<Vec<(u32, u64)>, Fault>;
}
