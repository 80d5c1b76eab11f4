//! The families that are not DCGM's.

use crate::exposition::Kind;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it is.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $constant: Family =
            Family { name: concat!("tokenglass_", $name), kind: Kind::$kind, help: $help };)*
        /// All of them.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    UP Gauge "nvml_up" "Whether GPUs are read by NVML.";
    STATE Gauge "nvml_state" "How NVML is: 1 for the reason that holds, 0 for the others.";
    GENERATION Gauge "nvml_generation" "How often NVML was loaded and initialized.";
    STUCK Counter "nvml_stuck_total" "Polls that did not come back within three intervals, and waits for XIDs that did not within 5 s.";
    POLL Gauge "nvml_poll_duration_seconds" "How long the last poll of all GPUs took.";
    SUCCESS Gauge "nvml_last_success_timestamp_seconds" "When the last poll ended well, seconds since 1970.";
    ERRORS Counter "nvml_errors_total" "Calls that failed, by NVML function and error.";
    GPU_UP Gauge "gpu_up" "Whether a GPU that has been seen answers.";
    XIDS Counter "gpu_xid_errors_total" "XID errors seen since the start, by code.";
    XID_TIME Gauge "gpu_xid_last_timestamp_seconds" "When an XID error was last seen, seconds since 1970.";
    RECOVERY Gauge "gpu_recovery_action" "What the GPU needs: 0 nothing, 1 a reset, 2 a reboot, 3 to drain P2P, 4 to drain and reset.";
    CLOCKS_EVENT Gauge "gpu_clocks_event" "Whether a reason for lower clocks holds now.";
    THRESHOLD Gauge "gpu_temperature_threshold_celsius" "Temperature at which the GPU slows or shuts down.";
    PROCESS Gauge "gpu_process_memory_bytes" "Memory that a process has on a GPU; pids are the host's.";
}
