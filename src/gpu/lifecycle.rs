//! What NVML's errors mean for the poller, the reasons that it shows, and how long it waits between attempts.

use std::time::Duration;

use nvml_wrapper::error::NvmlError;

/// An error of one call, as the `error` label of `tokenglass_nvml_errors_total` has it. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// libnvidia-ml.so.1 is nowhere.
    LibraryNotFound,
    /// The library has not got the function: it is older, or newer, than what we ask for.
    SymbolMissing,
    /// NVML_ERROR_UNINITIALIZED (1): the driver was reloaded under us.
    Uninitialized,
    /// NVML_ERROR_INVALID_ARGUMENT (2).
    InvalidArgument,
    /// NVML_ERROR_NOT_SUPPORTED (3).
    NotSupported,
    /// NVML_ERROR_NO_PERMISSION (4).
    NoPermission,
    /// NVML_ERROR_NOT_FOUND (6).
    NotFound,
    /// NVML_ERROR_DRIVER_NOT_LOADED (9).
    DriverNotLoaded,
    /// NVML_ERROR_TIMEOUT (10).
    Timeout,
    /// NVML_ERROR_GPU_IS_LOST (15): fallen off the bus.
    GpuLost,
    /// NVML_ERROR_RESET_REQUIRED (16).
    ResetRequired,
    /// NVML_ERROR_LIB_RM_VERSION_MISMATCH (18): the driver was upgraded, the library was not.
    VersionMismatch,
    /// NVML_ERROR_NO_DATA (21).
    NoData,
    /// NVML_ERROR_GPU_NOT_FOUND (28).
    GpuNotFound,
    /// NVML_ERROR_UNKNOWN (999): often a container that has lost its device nodes.
    Unknown,
    /// Any other.
    Other,
}

/// What to do about a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// This GPU or driver cannot: no value, and not asked again before the next generation.
    Never,
    /// No value this time.
    NotNow,
    /// This GPU is gone; the others may be well.
    Lost,
    /// Nothing that this library says can be trusted any more: start it anew.
    Over,
}

impl Fault {
    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::LibraryNotFound => "library_not_found",
            Self::SymbolMissing => "symbol_missing",
            Self::Uninitialized => "uninitialized",
            Self::InvalidArgument => "invalid_argument",
            Self::NotSupported => "not_supported",
            Self::NoPermission => "no_permission",
            Self::NotFound => "not_found",
            Self::DriverNotLoaded => "driver_not_loaded",
            Self::Timeout => "timeout",
            Self::GpuLost => "gpu_lost",
            Self::ResetRequired => "reset_required",
            Self::VersionMismatch => "version_mismatch",
            Self::NoData => "no_data",
            Self::GpuNotFound => "gpu_not_found",
            Self::Unknown => "unknown",
            Self::Other => "other",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::NotSupported | Self::SymbolMissing => Class::Never,
            Self::GpuLost | Self::ResetRequired | Self::GpuNotFound => Class::Lost,
            Self::Uninitialized
            | Self::DriverNotLoaded
            | Self::VersionMismatch
            | Self::LibraryNotFound => Class::Over,
            Self::InvalidArgument
            | Self::NoPermission
            | Self::NotFound
            | Self::Timeout
            | Self::NoData
            | Self::Unknown
            | Self::Other => Class::NotNow,
        }
    }

    /// What a failure to start, or an end, is shown as.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::LibraryNotFound => Reason::LibraryNotFound,
            Self::DriverNotLoaded | Self::Uninitialized => Reason::DriverNotLoaded,
            Self::VersionMismatch => Reason::VersionMismatch,
            Self::NoPermission => Reason::NoPermission,
            Self::GpuLost | Self::ResetRequired | Self::GpuNotFound => Reason::GpuLost,
            Self::SymbolMissing
            | Self::InvalidArgument
            | Self::NotSupported
            | Self::NotFound
            | Self::Timeout
            | Self::NoData
            | Self::Unknown
            | Self::Other => Reason::Unknown,
        }
    }
}

impl From<NvmlError> for Fault {
    fn from(error: NvmlError) -> Self {
        match error {
            NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => Self::LibraryNotFound,
            NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => Self::SymbolMissing,
            NvmlError::Uninitialized => Self::Uninitialized,
            NvmlError::InvalidArg => Self::InvalidArgument,
            NvmlError::NotSupported => Self::NotSupported,
            NvmlError::NoPermission => Self::NoPermission,
            NvmlError::NotFound => Self::NotFound,
            NvmlError::DriverNotLoaded => Self::DriverNotLoaded,
            NvmlError::Timeout => Self::Timeout,
            NvmlError::GpuLost => Self::GpuLost,
            NvmlError::ResetRequired => Self::ResetRequired,
            NvmlError::LibRmVersionMismatch => Self::VersionMismatch,
            NvmlError::NoData => Self::NoData,
            // The binding has no name for it.
            NvmlError::UnexpectedVariant(28) => Self::GpuNotFound,
            NvmlError::Unknown => Self::Unknown,
            _ => Self::Other,
        }
    }
}

/// How NVML is: the `reason` label of `tokenglass_nvml_state`. Exactly one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The first attempt is under way.
    Starting,
    /// GPUs are read.
    Ok,
    /// No libnvidia-ml.so.1.
    LibraryNotFound,
    /// The library is there, the driver is not, or was unloaded.
    DriverNotLoaded,
    /// Library and driver are of different versions.
    VersionMismatch,
    /// We may not.
    NoPermission,
    /// It works and shows no GPU, or none that the filter lets through.
    NoDevices,
    /// Every GPU is lost.
    GpuLost,
    /// A call has not come back.
    Stuck,
    /// Something else.
    Unknown,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Starting,
        Self::Ok,
        Self::LibraryNotFound,
        Self::DriverNotLoaded,
        Self::VersionMismatch,
        Self::NoPermission,
        Self::NoDevices,
        Self::GpuLost,
        Self::Stuck,
        Self::Unknown,
    ];

    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::LibraryNotFound => "library_not_found",
            Self::DriverNotLoaded => "driver_not_loaded",
            Self::VersionMismatch => "version_mismatch",
            Self::NoPermission => "no_permission",
            Self::NoDevices => "no_devices",
            Self::GpuLost => "gpu_lost",
            Self::Stuck => "stuck",
            Self::Unknown => "unknown",
        }
    }

    /// What somebody who reads the log can do.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Starting | Self::Ok => "",
            Self::LibraryNotFound => {
                "no libnvidia-ml.so.1: in a container it comes with the NVIDIA runtime and NVIDIA_DRIVER_CAPABILITIES=utility"
            }
            Self::DriverNotLoaded => "the NVIDIA driver is not loaded",
            Self::VersionMismatch => {
                "driver and library are of different versions: after a driver upgrade restart this container"
            }
            Self::NoPermission => {
                "the driver refuses us: look at the device nodes and the device cgroup"
            }
            Self::NoDevices => "no GPU is visible, or gpu.devices lets none through",
            Self::GpuLost => "every GPU is lost or needs a reset",
            Self::Stuck => "a call into the driver does not come back",
            Self::Unknown => {
                "the driver gives no reason; a container that has lost its devices needs a restart"
            }
        }
    }
}

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// 1 s, doubling, up to 60 s.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let now = self.next;
        self.next = now.saturating_mul(2).min(LONGEST);
        now
    }

    /// All is well.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified() {
        for (code, class, reason) in [
            (1, Class::Over, Reason::DriverNotLoaded),
            (3, Class::Never, Reason::Unknown),
            (4, Class::NotNow, Reason::NoPermission),
            (9, Class::Over, Reason::DriverNotLoaded),
            (13, Class::Never, Reason::Unknown),
            (15, Class::Lost, Reason::GpuLost),
            (16, Class::Lost, Reason::GpuLost),
            (18, Class::Over, Reason::VersionMismatch),
            (21, Class::NotNow, Reason::Unknown),
            (28, Class::Lost, Reason::GpuLost),
            (999, Class::NotNow, Reason::Unknown),
            (4711, Class::NotNow, Reason::Unknown),
        ] {
            let fault = Fault::from(NvmlError::from(code));
            assert_eq!(fault.class(), class, "{code}");
            assert_eq!(fault.reason(), reason, "{code}");
        }
    }

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::BTreeSet<_> =
            Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
    }

    #[test]
    fn backs_off_to_a_minute_and_forgets() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.wait().as_secs(), 1);
    }
}
