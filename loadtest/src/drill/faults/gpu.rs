//! A GPU each.

use serde_json::Value;

use super::{Act, Case, Fault, On, Stage};
use crate::drill::rig::Which;

pub(super) fn all() -> Vec<Fault> {
    let fault = |about, index, change, case: fn(&'static str, On) -> Case, alert| Fault {
        about,
        stage: Stage::Gpu,
        rig: Which::Gpu,
        act: Act::Gpu(index, change),
        cases: vec![case(alert, On::Gpu(index))],
    };
    let hot = |state: &mut Value| state["values"]["nvmlDeviceGetTemperature"]["0"] = 85.into();
    let mut faults = vec![
        fault(
            "95 °C",
            1,
            |s| s["values"]["nvmlDeviceGetTemperature"]["0"] = 95.into(),
            Case::critical,
            "GpuTemperatureHigh",
        ),
        fault("85 °C", 0, hot, Case::warning, "GpuTemperatureHigh"),
        fault(
            "hw_thermal",
            2,
            |s| s["values"]["nvmlDeviceGetCurrentClocksEventReasons"] = 0x40.into(),
            Case::warning,
            "GpuHardwareThrottled",
        ),
        fault(
            "sw_thermal",
            3,
            |s| s["values"]["nvmlDeviceGetCurrentClocksEventReasons"] = 0x20.into(),
            Case::warning,
            "GpuSoftwareThrottled",
        ),
        fault(
            "98 % in use",
            4,
            |s| s["values"]["nvmlDeviceGetMemoryInfo_v2"]["free"] = 1_294_967_296_u64.into(),
            Case::warning,
            "GpuMemoryNearlyFull",
        ),
        fault(
            "double-bit errors",
            5,
            |s| s["values"]["nvmlDeviceGetTotalEccErrors"]["1,0"] = 3.into(),
            Case::critical,
            "GpuEccDoubleBit",
        ),
        fault(
            "remapping failed",
            6,
            |s| s["fields"]["145"] = 1.into(),
            Case::critical,
            "GpuRowRemapFailed",
        ),
        fault(
            "NVML says it is lost",
            8,
            |s| s["errors"] = serde_json::json!({"*": 15}),
            Case::critical,
            "GpuLost",
        ),
        fault(
            "recovery action: reset",
            9,
            |s| s["fields"]["230"] = 1.into(),
            Case::warning,
            "GpuResetNeeded",
        ),
    ];
    let hidden = Case::warning("GpuTemperatureHigh", On::Gpu(1)).hidden("critical");
    faults[0].cases.push(hidden);
    let mut xid = fault("XID 79", 7, hot, Case::critical, "GpuXidCritical");
    xid.act = Act::Xid(7);
    faults.push(xid);
    faults
}
