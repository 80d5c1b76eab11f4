//! Each value of a GPU, its name, unit and labels, in both naming profiles.

use std::time::Duration;

use serde_json::{Value, json};
use tokenglass::config::GpuNaming;
use tokenglass::exposition::Kind;
use tokenglass::gpu::{names, own};

use crate::gpus::{Machine, has, series, up, uuid};
use crate::support::Metrics;

/// Of one H100: profile `dcgm`, profile `dcgm-4.7`.
const VALUES: &[(&str, f64, &str, f64)] = &[
    ("DEV_SM_CLOCK", 1755.0, "DEV_SM_CLOCK_HERTZ", 1.755e9),
    ("DEV_MEM_CLOCK", 2619.0, "DEV_MEMORY_CLOCK_HERTZ", 2.619e9),
    ("DEV_MEMORY_TEMP", 73.0, "DEV_MEMORY_TEMP_CELSIUS", 73.0),
    ("DEV_GPU_TEMP", 64.0, "DEV_GPU_TEMP_CELSIUS", 64.0),
    ("DEV_POWER_USAGE", 634.25, "DEV_BOARD_POWER_WATTS", 634.25),
    (
        "DEV_ENFORCED_POWER_LIMIT",
        700.0,
        "DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS",
        700.0,
    ),
    (
        "DEV_POWER_MGMT_LIMIT",
        650.0,
        "DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS",
        650.0,
    ),
    (
        "DEV_TOTAL_ENERGY_CONSUMPTION",
        1_234_567_891.0,
        "DEV_GPU_ENERGY_JOULES_TOTAL",
        1_234_567.891,
    ),
    (
        "DEV_PCIE_TX_THROUGHPUT",
        102_400.0,
        "DEV_PCIE_TX_THROUGHPUT",
        102_400.0,
    ),
    (
        "DEV_PCIE_RX_THROUGHPUT",
        204_800.0,
        "DEV_PCIE_RX_THROUGHPUT",
        204_800.0,
    ),
    (
        "DEV_PCIE_REPLAY_COUNTER",
        11.0,
        "DEV_PCIE_REPLAY_TOTAL",
        11.0,
    ),
    ("DEV_GPU_UTIL", 97.0, "DEV_GPU_UTIL_RATIO", 0.97),
    ("DEV_MEM_COPY_UTIL", 41.0, "DEV_MEM_COPY_UTIL_RATIO", 0.41),
    ("DEV_ENC_UTIL", 3.0, "DEV_ENC_UTIL_RATIO", 0.03),
    ("DEV_DEC_UTIL", 5.0, "DEV_DEC_UTIL_RATIO", 0.05),
    (
        "DEV_FB_TOTAL",
        81559.0,
        "DEV_FB_CAPACITY_BYTES",
        85_520_809_984.0,
    ),
    ("DEV_FB_FREE", 4096.0, "DEV_FB_FREE_BYTES", 4_294_967_296.0),
    (
        "DEV_FB_USED",
        76854.0,
        "DEV_FB_USED_BYTES",
        80_587_259_904.0,
    ),
    (
        "DEV_FB_RESERVED",
        609.0,
        "DEV_FB_RESERVED_BYTES",
        638_582_784.0,
    ),
    (
        "DEV_FB_USED_PERCENT",
        0.949_400_864_7,
        "DEV_FB_USED_RATIO",
        0.949_400_864_7,
    ),
    (
        "DEV_NVLINK_BANDWIDTH_TOTAL",
        7_340.032,
        "DEV_NVLINK_THROUGHPUT_TOTAL",
        7_340_032_000.0,
    ),
    ("DEV_ECC_SBE_VOL_TOTAL", 21.0, "DEV_ECC_SBE_VOL_TOTAL", 21.0),
    ("DEV_ECC_DBE_VOL_TOTAL", 22.0, "DEV_ECC_DBE_VOL_TOTAL", 22.0),
    ("DEV_ECC_SBE_AGG_TOTAL", 23.0, "DEV_ECC_SBE_AGG_TOTAL", 23.0),
    ("DEV_ECC_DBE_AGG_TOTAL", 24.0, "DEV_ECC_DBE_AGG_TOTAL", 24.0),
    ("DEV_RETIRED_SBE", 31.0, "DEV_PAGE_RETIRED_SBE_TOTAL", 31.0),
    ("DEV_RETIRED_DBE", 32.0, "DEV_PAGE_RETIRED_DBE_TOTAL", 32.0),
    ("DEV_RETIRED_PENDING", 1.0, "DEV_PAGE_RETIRED_PENDING", 1.0),
    (
        "DEV_UNCORRECTABLE_REMAPPED_ROWS",
        13.0,
        "DEV_ROW_REMAP_UNCORRECTABLE_TOTAL",
        13.0,
    ),
    (
        "DEV_CORRECTABLE_REMAPPED_ROWS",
        12.0,
        "DEV_ROW_REMAP_CORRECTABLE_TOTAL",
        12.0,
    ),
    ("DEV_ROW_REMAP_FAILURE", 0.0, "DEV_ROW_REMAP_FAILED", 0.0),
    ("DEV_ROW_REMAP_PENDING", 1.0, "DEV_ROW_REMAP_PENDING", 1.0),
    (
        "DEV_CLOCKS_EVENT_REASONS",
        68.0,
        "DEV_CLOCKS_EVENT_REASONS",
        68.0,
    ),
    ("DEV_CLOCK_THROTTLE_REASONS", 68.0, "", 0.0),
    ("DEV_PSTATE", 2.0, "DEV_GPU_PSTATE", 2.0),
    ("DEV_FAN_SPEED", 38.0, "DEV_FAN_SPEED_RATIO", 0.38),
    ("DEV_MIG_MODE", 0.0, "DEV_MIG_MODE", 0.0),
    ("DEV_POWER_VIOLATION", 741.0, "DEV_POWER_VIOLATION", 741.0),
    (
        "DEV_THERMAL_VIOLATION",
        751.0,
        "DEV_THERMAL_VIOLATION",
        751.0,
    ),
    (
        "DEV_SYNC_BOOST_VIOLATION",
        761.0,
        "DEV_SYNC_BOOST_VIOLATION",
        761.0,
    ),
    (
        "DEV_BOARD_LIMIT_VIOLATION",
        771.0,
        "DEV_BOARD_LIMIT_VIOLATION",
        771.0,
    ),
    (
        "DEV_LOW_UTIL_VIOLATION",
        781.0,
        "DEV_LOW_UTIL_VIOLATION",
        781.0,
    ),
    (
        "DEV_RELIABILITY_VIOLATION",
        791.0,
        "DEV_RELIABILITY_VIOLATION",
        791.0,
    ),
    (
        "PROF_GR_ENGINE_ACTIVE",
        0.915,
        "PROF_GR_ENGINE_UTIL_RATIO",
        0.915,
    ),
    ("PROF_SM_ACTIVE", 0.8225, "PROF_SM_UTIL_RATIO", 0.8225),
    ("PROF_SM_OCCUPANCY", 0.4, "PROF_SM_OCCUPANCY_RATIO", 0.4),
    (
        "PROF_PIPE_TENSOR_ACTIVE",
        0.355,
        "PROF_TENSOR_UTIL_RATIO",
        0.355,
    ),
    ("PROF_DRAM_ACTIVE", 0.61, "PROF_DRAM_UTIL_RATIO", 0.61),
    (
        "PROF_PCIE_TX_BYTES",
        104_857_600.0,
        "PROF_PCIE_TX_BYTES",
        104_857_600.0,
    ),
    (
        "PROF_PCIE_RX_BYTES",
        209_715_200.0,
        "PROF_PCIE_RX_BYTES",
        209_715_200.0,
    ),
    (
        "PROF_NVLINK_TX_BYTES",
        3_145_728_000.0,
        "PROF_NVLINK_TX_BYTES",
        3_145_728_000.0,
    ),
    (
        "PROF_NVLINK_RX_BYTES",
        4_194_304_000.0,
        "PROF_NVLINK_RX_BYTES",
        4_194_304_000.0,
    ),
];

/// With something of everything: an XID, and a call that fails.
fn machine() -> Machine {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        state["xids"] = json!([{"id": 1, "gpu": 0, "xid": 31}]);
        state["errors"]["nvmlDeviceGetMinorNumber"] = 3.into();
    });
    machine
}

#[track_caller]
fn close(found: f64, wanted: f64, name: &str) {
    assert!(
        (found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0),
        "{name}: {found}, not {wanted}"
    );
}

fn check(metrics: &Metrics, naming: GpuNaming, labels: &str) {
    for (legacy, old, modern, new) in VALUES {
        let (name, wanted) = match naming {
            GpuNaming::Dcgm => (legacy, old),
            GpuNaming::Dcgm47 => (modern, new),
        };
        if name.is_empty() {
            continue;
        }
        let name = format!("DCGM_FI_{name}");
        let [line] = &series(metrics, &name)[..] else {
            panic!("{name}: {:?}", series(metrics, &name));
        };
        let (found, value) = line.rsplit_once(' ').unwrap();
        assert_eq!(found, format!("{name}{{{labels}}}"));
        close(value.parse().unwrap(), *wanted, &name);
    }
    let xid = format!(
        "{}{{{labels},err_code=\"31\",err_msg=\"GPU memory page fault\"}} 31",
        names::xid(naming)
    );
    assert!(metrics.0.contains(&xid), "{xid}");
    // The table of this test is the table of the names.
    let dcgm = names::FAMILIES
        .iter()
        .filter_map(|family| Some((family.name(naming)?.name, family.kind)));
    let mut count = 0;
    for (name, kind) in dcgm.chain(
        own::FAMILIES
            .iter()
            .map(|family| (family.name, family.kind)),
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            _ => "gauge",
        };
        assert!(
            metrics.0.contains(&format!("# TYPE {name} {kind}\n")),
            "{name} {kind}"
        );
        count += usize::from(name.starts_with("DCGM_"));
    }
    let expected = VALUES
        .iter()
        .filter(|row| naming == GpuNaming::Dcgm || !row.2.is_empty());
    assert_eq!(count, expected.count());
}

fn all_there(metrics: &Metrics) -> bool {
    has(metrics, "DCGM_FI_PROF_PCIE_TX_BYTES", &[])
        && metrics.count("tokenglass_gpu_xid_errors_total", &[]) == 1
        && has(metrics, "tokenglass_nvml_errors_total", &[])
}

#[test]
fn every_value_as_dcgm_has_it() {
    let mut machine = machine();
    machine.set(|state| {
        state["errors"] = json!({});
        // A function that fails now and then is counted, and asked again.
        state["gpus"][0]["errors"]["nvmlDeviceGetComputeRunningProcesses_v3"] = 999.into();
    });
    let child = machine.start("processes = true");
    child.wait_metrics("an error", |m| has(m, "tokenglass_nvml_errors_total", &[]));
    machine.set(|state| state["gpus"][0]["errors"] = json!({}));
    let metrics = child.wait_metrics("all", |m| {
        all_there(m) && has(m, "tokenglass_gpu_process_memory_bytes", &[])
    });
    let uuid = uuid(0);
    check(
        &metrics,
        GpuNaming::Dcgm,
        &format!(
            "gpu=\"0\",UUID=\"{uuid}\",pci_bus_id=\"00000000:07:00.0\",device=\"nvidia0\",modelName=\"NVIDIA H100 80GB HBM3\",Hostname=\"node-1\",DCGM_FI_DRIVER_VERSION=\"570.86.15\""
        ),
    );
    let own = |name: &str, labels: &[&str]| metrics.sum(&format!("tokenglass_{name}"), labels);
    let gpu = [r#"gpu="0""#, &format!("UUID=\"{uuid}\"")];
    close(own("gpu_recovery_action", &gpu), 1.0, "recovery");
    close(own("gpu_up", &gpu), 1.0, "up");
    close(
        own("gpu_process_memory_bytes", &[r#"pid="4711""#]),
        8e10,
        "process",
    );
    close(
        own(
            "gpu_temperature_threshold_celsius",
            &[r#"threshold="slowdown""#],
        ),
        89.0,
        "slowdown",
    );
    close(
        own(
            "gpu_temperature_threshold_celsius",
            &[r#"threshold="shutdown""#],
        ),
        92.0,
        "shutdown",
    );
    for (event, on) in [
        ("power_cap", 1.0),
        ("hw_thermal", 1.0),
        ("sw_thermal", 0.0),
        ("gpu_idle", 0.0),
    ] {
        close(
            own("gpu_clocks_event", &[&format!("reason=\"{event}\"")]),
            on,
            event,
        );
    }
    close(own("nvml_generation", &[]), 1.0, "generation");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    for time in [
        "nvml_last_success_timestamp_seconds",
        "gpu_xid_last_timestamp_seconds",
    ] {
        assert!((now - own(time, &[])).abs() < 60.0, "{time}");
    }
    assert!(own("nvml_poll_duration_seconds", &[]) > 0.0);
}

#[test]
fn every_value_as_dcgm_4_7_has_it() {
    let machine = machine();
    let child = machine.start(
        "naming = \"dcgm-4.7\"\nhostname_label = \"hostname\"\nprocesses = true\n\
         container = \"vllm\"\nnamespace = \"serving\"\npod = \"vllm-0\"",
    );
    // The minor number is refused by this driver. That is no error, it is a number less.
    let metrics = child.wait_metrics("all", |m| {
        has(m, "DCGM_FI_PROF_PCIE_TX_BYTES", &[]) && has(m, "tokenglass_gpu_xid_errors_total", &[])
    });
    drop(metrics);
    let mut machine = machine;
    machine.set(|state| state["gpus"][0]["errors"]["nvmlDeviceGetEncoderUtilization"] = 999.into());
    child.wait_metrics("an error", |m| {
        has(m, "tokenglass_nvml_errors_total", &[r#"error="unknown""#])
    });
    machine.set(|state| state["gpus"][0]["errors"] = json!({}));
    let metrics = child.wait_metrics("again", |m| has(m, "DCGM_FI_DEV_ENC_UTIL_RATIO", &[]));
    check(
        &metrics,
        GpuNaming::Dcgm47,
        &format!(
            "gpu=\"0\",UUID=\"{}\",pci_bus_id=\"00000000:07:00.0\",device=\"nvidia0\",modelName=\"NVIDIA H100 80GB HBM3\",hostname=\"node-1\",DCGM_FI_SYSTEM_DRIVER_VERSION=\"570.86.15\",container=\"vllm\",namespace=\"serving\",pod=\"vllm-0\"",
            uuid(0)
        ),
    );
}

#[test]
fn what_a_gpu_cannot_say_is_absent_and_asked_once() {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        let gpu = &mut state["gpus"][0];
        for part in ["values", "fields"] {
            gpu[part] = json!({});
        }
        gpu["values"]["nvmlDeviceGetPowerUsage"] = 70_000.into();
        gpu["gpm"] = Value::Null;
        gpu["errors"] = json!({"nvmlDeviceRegisterEvents": 3});
    });
    let child = machine.start("");
    let metrics = child.wait_metrics("up", up);
    let dcgm: Vec<_> = metrics
        .0
        .lines()
        .filter(|line| line.starts_with("DCGM_"))
        .collect();
    assert_eq!(dcgm.len(), 1, "{dcgm:?}");
    close(metrics.sum("DCGM_FI_DEV_POWER_USAGE", &[]), 70.0, "power");
    let unsupported = |m: &Metrics| {
        m.count(
            "tokenglass_nvml_errors_total",
            &[r#"error="not_supported""#],
        )
    };
    let polls = |m: &Metrics| m.sum("tokenglass_nvml_last_success_timestamp_seconds", &[]);
    let before = (unsupported(&metrics), polls(&metrics));
    let later = child.wait_metrics("more polls", |m| polls(m) > before.1 + 1.0);
    assert_eq!(unsupported(&later), before.0);
}

#[test]
fn a_driver_before_r510_has_memory_without_what_is_reserved() {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        let gpu = &mut state["gpus"][0];
        gpu["errors"] = json!({"nvmlDeviceGetMemoryInfo_v2": 13});
        gpu["values"]["nvmlDeviceGetMemoryInfo"] =
            json!({"total": 17_179_869_184_u64, "free": 1_073_741_824, "used": 16_106_127_360_u64});
    });
    let metrics = machine.start("").wait_metrics("up", up);
    close(metrics.sum("DCGM_FI_DEV_FB_TOTAL", &[]), 16384.0, "total");
    close(metrics.sum("DCGM_FI_DEV_FB_USED", &[]), 15360.0, "used");
    assert!(!has(&metrics, "DCGM_FI_DEV_FB_RESERVED", &[]));
}

#[test]
fn pcie_counters_wrap_at_32_bits() {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        state["gpus"][0]["gpm"] = Value::Null;
        state["gpus"][0]["fields"]["197"] = (u32::MAX - 999).into();
    });
    let child = machine.start("");
    child.wait_metrics("still", |m| has(m, "DCGM_FI_PROF_PCIE_TX_BYTES", &[]));
    machine.set(|state| state["gpus"][0]["fields"]["197"] = 1000.into());
    // Shown until the next poll.
    let metrics = child.wait_metrics("a rate", |m| m.sum("DCGM_FI_PROF_PCIE_TX_BYTES", &[]) > 0.0);
    let rate = metrics.sum("DCGM_FI_PROF_PCIE_TX_BYTES", &[]);
    // 2000 bytes within about 200 ms, however busy the machine; not the 4 GB of a counter that went back.
    assert!((20.0..1e6).contains(&rate), "{rate}");
    close(
        metrics.sum("DCGM_FI_DEV_PCIE_TX_THROUGHPUT", &[]),
        rate / 1024.0,
        "KB/s",
    );
    close(
        metrics.sum("DCGM_FI_PROF_PCIE_RX_BYTES", &[]),
        0.0,
        "nothing came in",
    );
}

#[test]
fn nvlink_by_its_counters_where_there_is_no_gpm() {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        state["gpus"][0]["gpm"] = Value::Null;
        state["gpus"][0]["fields"]["138"] = 0.into();
        state["gpus"][0]["fields"]["139"] = 0.into();
    });
    let child = machine.start("");
    let tx = "DCGM_FI_PROF_NVLINK_TX_BYTES";
    child.wait_metrics("still", |m| has(m, tx, &[]));
    machine.set(|state| {
        state["gpus"][0]["fields"]["138"] = 1000.into();
        state["gpus"][0]["fields"]["139"] = 3000.into();
    });
    // KiB, over all links.
    let metrics = child.wait_metrics("a rate", |m| m.sum(tx, &[]) > 0.0);
    let rate = metrics.sum(tx, &[]);
    assert!((10_240.0..1e9).contains(&rate), "{rate}");
    close(
        metrics.sum("DCGM_FI_PROF_NVLINK_RX_BYTES", &[]),
        rate * 3.0,
        "in",
    );
    close(
        metrics.sum("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", &[]),
        rate * 4.0 / 1e6,
        "MB/s",
    );
}

#[test]
fn nvlink_counters_that_begin_anew_are_no_traffic() {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        state["gpus"][0]["gpm"] = Value::Null;
        state["gpus"][0]["fields"]["138"] = 3_000_000.into();
        state["gpus"][0]["fields"]["139"] = 0.into();
    });
    let child = machine.start("interval = \"700ms\"");
    let tx = "DCGM_FI_PROF_NVLINK_TX_BYTES";
    child.wait_metrics("still", |m| has(m, tx, &[]));
    machine.set(|state| state["gpus"][0]["fields"]["138"] = 0.into());
    // No rate for one poll, and none that is not 0 before or after.
    child.wait_metrics("the reset", |m| {
        assert!(m.sum(tx, &[]) <= 0.0, "{:?}", series(m, tx));
        !has(m, tx, &[])
    });
    child.wait_metrics("still again", |m| {
        assert!(m.sum(tx, &[]) <= 0.0, "{:?}", series(m, tx));
        has(m, tx, &[])
    });
}

#[test]
fn the_blocking_call_is_the_last_way_to_a_pcie_rate() {
    let mut machine = Machine::new(1);
    machine.set(|state| {
        let gpu = &mut state["gpus"][0];
        gpu["gpm"] = Value::Null;
        gpu["fields"]["197"] = Value::Null;
        gpu["values"]["nvmlDeviceGetPcieThroughput"] = json!({"0": 500, "1": 300});
    });
    let metrics = machine.start("").wait_metrics("up", up);
    close(
        metrics.sum("DCGM_FI_DEV_PCIE_TX_THROUGHPUT", &[]),
        500.0,
        "KB/s",
    );
    close(
        metrics.sum("DCGM_FI_PROF_PCIE_RX_BYTES", &[]),
        307_200.0,
        "bytes/s",
    );
}

#[test]
fn xids_are_zero_from_the_start_and_then_counted() {
    let mut machine = Machine::new(2);
    let child = machine.start("");
    let gauge = "DCGM_FI_DEV_XID_ERRORS";
    let metrics = child.wait_metrics("XIDs are heard", |m| series(m, gauge).len() == 2);
    assert!(
        series(&metrics, gauge)
            .iter()
            .all(|line| line.ends_with(" 0"))
    );
    assert!(series(&metrics, gauge)[0].contains(r#"err_code="0",err_msg="No Error""#));
    machine.set(|state| {
        state["xids"] = json!([
            {"id": 1, "gpu": 1, "xid": 94}, {"id": 2, "gpu": 1, "xid": 48}, {"id": 3, "gpu": 1, "xid": 94}
        ]);
    });
    let counter = "tokenglass_gpu_xid_errors_total";
    let metrics = child.wait_metrics("three", |m| m.count(counter, &[]) == 3);
    assert_eq!(metrics.count(counter, &[r#"gpu="1""#, r#"xid="94""#]), 2);
    assert_eq!(metrics.count(counter, &[r#"gpu="1""#, r#"xid="48""#]), 1);
    assert_eq!(
        metrics.count(gauge, &[r#"gpu="1""#, r#"err_msg="Contained ECC error""#]),
        94
    );
    assert_eq!(metrics.count(gauge, &[r#"gpu="0""#]), 0);
    child.wait_log("a GPU reports an XID");
}

#[test]
fn gpus_are_read_while_vllm_is_down_and_off_means_off() {
    let machine = Machine::new(1);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let child = machine.start_before(nobody, "", &[]);
    child.wait_metrics("up", up);
    let off = crate::child::Child::start(machine.upstream(), "[gpu]\nmode = \"off\"\n");
    std::thread::sleep(Duration::from_millis(100));
    let metrics = off.metrics();
    assert!(!metrics.0.contains("DCGM_") && !metrics.0.contains("nvml"));
}
