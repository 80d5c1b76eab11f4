//! Several GPUs, some of them, and parts of them.

use serde_json::json;

use crate::gpus::{Machine, h100, has, reason, series, up, uuid};
use crate::support::Metrics;

const POWER: &str = "DCGM_FI_DEV_POWER_USAGE";

fn shown(metrics: &Metrics) -> Vec<usize> {
    let all = 0..8;
    all.filter(|index| has(metrics, POWER, &[&format!("UUID=\"{}\"", uuid(*index))]))
        .collect()
}

#[test]
fn eight_gpus() {
    let mut machine = Machine::new(8);
    machine.set(|state| {
        for index in 0..8_u64 {
            let gpu = &mut state["gpus"][index as usize];
            gpu["values"]["nvmlDeviceGetPowerUsage"] = (100_000 + index * 1000).into();
        }
    });
    let metrics = machine.start("").wait_metrics("all rates", |m| {
        series(m, "DCGM_FI_PROF_GR_ENGINE_ACTIVE").len() == 8
    });
    for index in 0..8 {
        let labels = [
            format!("gpu=\"{index}\""),
            format!("device=\"nvidia{index}\""),
        ];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        assert_eq!(metrics.count(POWER, &labels), 100 + index);
    }
    // A family's head comes once, however many samples follow.
    assert_eq!(metrics.0.matches(&format!("# TYPE {POWER} ")).count(), 1);
    assert_eq!(metrics.count("tokenglass_gpu_up", &[]), 8);
}

#[test]
fn only_those_that_are_named() {
    let machine = Machine::new(4);
    let child = machine.start(&format!("devices = [\"{}\"]", uuid(2)));
    assert_eq!(shown(&child.wait_metrics("up", up)), [2]);
    let both = format!("{},{}", uuid(1), uuid(3));
    for (visible, expected) in [
        (&*both, &[1, 3][..]),
        ("0,2", &[0, 2]),
        ("all", &[0, 1, 2, 3]),
    ] {
        let child = machine.start_with(
            "devices = [\"container\"]",
            &[("NVIDIA_VISIBLE_DEVICES", visible)],
        );
        assert_eq!(shown(&child.wait_metrics("up", up)), expected, "{visible}");
    }
    let child = machine.start("devices = [\"GPU-00000009-none\"]");
    child.wait_metrics("none", |m| reason(m) == "no_devices");
}

#[test]
fn instances_of_a_gpu_with_mig() {
    let mut machine = Machine::new(0);
    machine.set(|state| {
        let mut gpu = h100(0);
        gpu["values"]["nvmlDeviceGetMigMode"]["current"] = 1.into();
        gpu["values"]["nvmlDeviceGetMaxMigDeviceCount"] = 7.into();
        gpu["values"]["nvmlDeviceGetUtilizationRates"] = json!(null);
        // A hole, and one whose name does not say what it is.
        gpu["mig"] = json!([
            {"uuid": "MIG-a", "name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "gpm": {"1": 50.0, "20": 1.0},
             "values": {"nvmlDeviceGetGpuInstanceId": 2, "nvmlDeviceGetMemoryInfo_v2":
                {"total": 42_949_672_960_u64, "reserved": 0, "free": 10_737_418_240_u64, "used": 32_212_254_720_u64}}},
            null,
            {"uuid": "MIG-b", "name": "NVIDIA H100 80GB HBM3",
             "values": {"nvmlDeviceGetGpuInstanceId": 9,
                "nvmlDeviceGetAttributes_v2": {"slices": 1, "memory_mb": 9984},
                "nvmlDeviceGetMemoryInfo_v2":
                {"total": 10_737_418_240_u64, "reserved": 0, "free": 10_737_418_240_u64, "used": 0}}}
        ]);
        state["gpus"] = json!([gpu]);
    });
    let child = machine.start("");
    let metrics = child.wait_metrics("profiled", |m| {
        has(m, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", &[r#"GPU_I_ID="2""#])
    });
    let one = [
        r#"GPU_I_PROFILE="3g.40gb",GPU_I_ID="2",Hostname="#,
        r#"gpu="0""#,
    ];
    let other = [r#"GPU_I_PROFILE="1g.10gb",GPU_I_ID="9",Hostname="#];
    let used = "DCGM_FI_DEV_FB_USED";
    assert_eq!(metrics.count(used, &one), 30720);
    assert!(has(&metrics, used, &other));
    assert_eq!(metrics.count("DCGM_FI_DEV_FB_FREE", &other), 10240);
    // Memory is the instances' to tell, so that a sum has it once; power is the GPU's.
    assert_eq!(series(&metrics, used).len(), 2);
    assert_eq!(series(&metrics, POWER).len(), 1);
    assert!(!series(&metrics, POWER)[0].contains("GPU_I_ID"));
    assert!(!has(&metrics, "DCGM_FI_DEV_GPU_UTIL", &[]));
    assert_eq!(metrics.count("DCGM_FI_DEV_MIG_MODE", &[]), 1);
    // PCIe is the whole GPU's.
    assert_eq!(series(&metrics, "DCGM_FI_PROF_PCIE_TX_BYTES").len(), 1);

    let child = machine.start_with(
        "devices = [\"container\"]",
        &[("NVIDIA_VISIBLE_DEVICES", "MIG-b")],
    );
    let metrics = child.wait_metrics("up", up);
    assert_eq!(series(&metrics, used).len(), 1);
    assert!(has(&metrics, used, &other));
}

#[test]
fn compute_instances_that_share_a_gpu_instance_are_shown_once() {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        let gpu = &mut state["gpus"][0];
        gpu["values"]["nvmlDeviceGetMigMode"]["current"] = 1.into();
        gpu["values"]["nvmlDeviceGetMaxMigDeviceCount"] = 7.into();
        let part = |uuid: &str| {
            json!({"uuid": uuid, "name": "NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb", "gpm": {"1": 50.0},
             "values": {"nvmlDeviceGetGpuInstanceId": 2, "nvmlDeviceGetMemoryInfo_v2":
                {"total": 42_949_672_960_u64, "reserved": 0, "free": 10_737_418_240_u64, "used": 32_212_254_720_u64}}})
        };
        gpu["mig"] = json!([part("MIG-a"), part("MIG-b")]);
    });
    // Either name lets it through.
    for visible in ["all", "MIG-a", "MIG-b"] {
        let child = machine.start_with(
            "devices = [\"container\"]",
            &[("NVIDIA_VISIBLE_DEVICES", visible)],
        );
        let metrics = child.wait_metrics("profiled", |m| {
            has(m, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", &[r#"GPU_I_ID="2""#])
        });
        for name in ["DCGM_FI_DEV_FB_USED", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"] {
            let lines = series(&metrics, name);
            assert_eq!(lines.len(), 1, "{visible}: {lines:?}");
            assert!(lines[0].contains(r#"GPU_I_PROFILE="3g.40gb",GPU_I_ID="2""#));
        }
    }
}

#[test]
fn mig_turned_off_and_on_while_it_runs() {
    let mut machine = Machine::new(1);
    let (util, used) = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED");
    let rates = h100(0)["values"]["nvmlDeviceGetUtilizationRates"].clone();
    let mig = |machine: &mut Machine, on: bool| {
        machine.set(|state| {
            let gpu = &mut state["gpus"][0];
            gpu["values"]["nvmlDeviceGetMigMode"]["current"] = u8::from(on).into();
            gpu["values"]["nvmlDeviceGetMaxMigDeviceCount"] = if on { json!(7) } else { json!(null) };
            gpu["values"]["nvmlDeviceGetUtilizationRates"] =
                if on { json!(null) } else { rates.clone() };
            gpu["mig"] = if on {
                json!([{"uuid": "MIG-a", "name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
                 "values": {"nvmlDeviceGetGpuInstanceId": 2, "nvmlDeviceGetMemoryInfo_v2":
                    {"total": 42_949_672_960_u64, "reserved": 0, "free": 10_737_418_240_u64, "used": 32_212_254_720_u64}}}])
            } else {
                json!([])
            };
        });
    };
    mig(&mut machine, true);
    let child = machine.start("");
    let instance = [r#"GPU_I_ID="2""#];
    let parts = |m: &Metrics| has(m, used, &instance) && !has(m, util, &[]);
    let whole = |m: &Metrics| !has(m, used, &instance) && has(m, used, &[]) && has(m, util, &[]);
    child.wait_metrics("instances", parts);
    mig(&mut machine, false);
    child.wait_metrics("the whole", whole);
    mig(&mut machine, true);
    let metrics = child.wait_metrics("instances again", parts);
    assert_eq!(metrics.count("tokenglass_nvml_generation", &[]), 1);
}
