//! Everything that can go wrong with NVML, while requests pass.

use std::time::Duration;

use serde_json::{Value, json};

use crate::child::Child;
use crate::gpus::{Machine, Traffic, has, nothing_shown, reason, up, uuid};
use crate::support::Metrics;

const POWER: &str = "DCGM_FI_DEV_POWER_USAGE";

fn errors(state: &mut Value, errors: &Value) {
    state["errors"] = errors.clone();
}

/// `fault` from the start; then it goes away.
fn from_the_start(fault: &Value, expected: &str) {
    let mut machine = Machine::new(1);
    machine.set(|state| errors(state, fault));
    let child = machine.start("");
    let traffic = Traffic::through(&child);
    let metrics = child.wait_metrics(expected, |m| reason(m) == expected);
    assert!(!up(&metrics) && nothing_shown(&metrics));
    child.wait_log(&format!("\"reason\":\"{expected}\""));
    machine.set(|state| errors(state, &json!({})));
    let metrics = child.wait_metrics("recovered", up);
    assert!(has(&metrics, POWER, &[]));
    traffic.was_undisturbed();
}

#[test]
fn driver_not_loaded() {
    from_the_start(&json!({"nvmlInit_v2": 9}), "driver_not_loaded");
}

#[test]
fn library_and_driver_of_different_versions() {
    from_the_start(&json!({"nvmlInit_v2": 18}), "version_mismatch");
}

#[test]
fn no_permission() {
    from_the_start(&json!({"nvmlInit_v2": 4}), "no_permission");
}

#[test]
fn devices_taken_away_from_the_container() {
    from_the_start(&json!({"nvmlDeviceGetHandleByIndex_v2": 999}), "unknown");
}

#[test]
fn no_library() {
    let machine = Machine::new(0);
    let missing = "library = \"/nowhere/libnvidia-ml.so.1\"";
    for (mode, level) in [("nvml", "WARN"), ("auto", "INFO")] {
        let child = Child::start(
            machine.upstream(),
            &format!("[gpu]\nmode = \"{mode}\"\ninterval = \"200ms\"\n{missing}\n"),
        );
        let traffic = Traffic::through(&child);
        let line = child.wait_log("\"reason\":\"library_not_found\"");
        assert!(line.contains(level), "{line}");
        let metrics = child.wait_metrics("counted", |m| {
            m.count("tokenglass_nvml_errors_total", &[r#"call="nvmlInit""#]) >= 2
        });
        assert!(!up(&metrics) && nothing_shown(&metrics));
        assert_eq!(reason(&metrics), "library_not_found");
        traffic.was_undisturbed();
    }
}

#[test]
fn no_gpus_is_not_an_idle_machine() {
    let mut machine = Machine::new(0);
    let child = machine.start("");
    let traffic = Traffic::through(&child);
    child.wait_metrics("none", |m| reason(m) == "no_devices" && !up(m));
    machine.set(|state| state["gpus"] = json!([crate::gpus::h100(0)]));
    child.wait_metrics("one has come", up);
    traffic.was_undisturbed();
}

#[test]
fn one_of_two_is_lost_and_comes_back() {
    let mut machine = Machine::new(2);
    // Values are shown for three intervals: time enough to begin anew on a busy machine.
    let child = machine.start("interval = \"700ms\"");
    let traffic = Traffic::through(&child);
    child.wait_metrics("both", |m| m.count("tokenglass_gpu_up", &[]) == 2);
    machine.set(|state| {
        state["xids"] = json!([{"id": 1, "gpu": 1, "xid": 79}]);
        state["gpus"][1]["errors"] = json!({"*": 15});
    });
    let (one, other) = (
        format!("UUID=\"{}\"", uuid(0)),
        format!("UUID=\"{}\"", uuid(1)),
    );
    let half = |m: &Metrics| has(m, POWER, &[&one]) && !has(m, POWER, &[&other]);
    let metrics = child.wait_metrics("one is gone", half);
    assert!(up(&metrics));
    assert_eq!(metrics.count("tokenglass_gpu_up", &[&one]), 1);
    assert_eq!(metrics.count("tokenglass_gpu_up", &[&other]), 0);
    assert!(has(&metrics, "tokenglass_gpu_up", &[&other]));
    let lost = [r#"error="gpu_lost""#];
    assert!(metrics.count("tokenglass_nvml_errors_total", &lost) > 0);
    // What it went with is still there, and the other one is served while NVML is begun anew.
    let again = child.wait_metrics("begun anew", |m| {
        assert!(half(m), "{}", m.non_zero());
        m.count("tokenglass_nvml_generation", &[]) >= 3
            && m.count("tokenglass_gpu_xid_errors_total", &[&other, r#"xid="79""#]) == 1
    });
    assert!(has(
        &again,
        "tokenglass_gpu_xid_last_timestamp_seconds",
        &[&other]
    ));
    machine.set(|state| state["gpus"][1]["errors"] = json!({}));
    child.wait_metrics("it is back", |m| m.count("tokenglass_gpu_up", &[]) == 2);
    traffic.was_undisturbed();
}

#[test]
fn all_are_lost() {
    let mut machine = Machine::new(2);
    let child = machine.start("");
    child.wait_metrics("up", up);
    machine.set(|state| {
        errors(
            state,
            &json!({"nvmlDeviceGetPowerUsage": 15, "nvmlDeviceGetHandleByIndex_v2": 15}),
        )
    });
    let metrics = child.wait_metrics("lost", |m| reason(m) == "gpu_lost");
    assert!(nothing_shown(&metrics) && has(&metrics, "tokenglass_gpu_up", &[]));
    assert_eq!(metrics.count("tokenglass_gpu_up", &[]), 0);
    machine.set(|state| errors(state, &json!({})));
    child.wait_metrics("back", up);
}

#[test]
fn a_call_that_hangs_takes_its_values_with_it_and_nothing_else() {
    let mut machine = Machine::new(1);
    let child = machine.start("");
    let traffic = Traffic::through(&child);
    child.wait_metrics("up", up);
    machine.set(|state| state["delays_ms"]["nvmlDeviceGetPowerUsage"] = 60_000.into());
    let stuck = "tokenglass_nvml_stuck_total";
    let metrics = child.wait_metrics("stuck", |m| reason(m) == "stuck");
    assert!(!up(&metrics) && nothing_shown(&metrics));
    assert_eq!(metrics.count("tokenglass_gpu_up", &[]), 0);
    let count = metrics.count(stuck, &[]);
    assert!(count >= 1);
    child.wait_log("\"reason\":\"stuck\"");
    // Still the same one.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(child.metrics().count(stuck, &[]), count);
    machine.set(|state| state["delays_ms"] = json!({}));
    let metrics = child.wait_metrics("recovered", up);
    assert!(has(&metrics, POWER, &[]));
    traffic.was_undisturbed();
}

#[test]
fn a_hanging_call_does_not_hold_up_the_end() {
    let mut machine = Machine::new(1);
    let mut child = machine.start("");
    child.wait_metrics("up", up);
    machine.set(|state| state["delays_ms"]["nvmlDeviceGetPowerUsage"] = 60_000.into());
    child.wait_metrics("stuck", |m| reason(m) == "stuck");
    child.signal("TERM");
    assert_eq!(child.wait_exit(Duration::from_secs(20)), Some(0));
}

#[test]
fn the_driver_is_reloaded_under_us() {
    let mut machine = Machine::new(1);
    let child = machine.start("");
    let traffic = Traffic::through(&child);
    child.wait_metrics("up", up);
    // Everything is uninitialized, and there is no driver to begin anew with.
    machine.set(|state| errors(state, &json!({"*": 1, "nvmlInit_v2": 9})));
    let metrics = child.wait_metrics("unloaded", |m| reason(m) == "driver_not_loaded");
    assert!(nothing_shown(&metrics));
    machine.set(|state| {
        errors(state, &json!({}));
        state["driver"] = "580.95.05".into();
    });
    let metrics = child.wait_metrics("the new one", up);
    // The version is read anew too.
    assert!(has(
        &metrics,
        POWER,
        &[r#"DCGM_FI_DRIVER_VERSION="580.95.05""#]
    ));
    assert!(metrics.count("tokenglass_nvml_generation", &[]) >= 2);
    traffic.was_undisturbed();
}

#[test]
fn xids_that_cannot_be_waited_for_are_no_reason_to_stop() {
    let mut machine = Machine::new(1);
    machine.set(|state| errors(state, &json!({"nvmlEventSetWait_v2": 999})));
    let child = machine.start("");
    child.wait_log("cannot wait for XIDs");
    child.wait_metrics("up all the same", |m| {
        up(m)
            && m.count(
                "tokenglass_nvml_errors_total",
                &[r#"call="nvmlEventSetWait""#],
            ) >= 2
    });
}

#[test]
fn a_gpu_that_cannot_be_identified_at_first_is_found_later() {
    let mut machine = Machine::new(3);
    machine.set(|state| {
        state["gpus"][1]["errors"] = json!({"nvmlDeviceGetUUID": 999});
        // That is nothing to wait for.
        state["gpus"][2]["errors"] = json!({"nvmlDeviceGetUUID": 4});
    });
    let child = machine.start("");
    let (one, other) = (
        format!("UUID=\"{}\"", uuid(0)),
        format!("UUID=\"{}\"", uuid(1)),
    );
    child.wait_metrics("one", |m| has(m, POWER, &[&one]));
    machine.set(|state| state["gpus"][1]["errors"] = json!({}));
    child.wait_metrics("the other", |m| {
        has(m, POWER, &[&one]) && has(m, POWER, &[&other])
    });
    let generation = |m: &Metrics| m.count("tokenglass_nvml_generation", &[]);
    let now = generation(&child.metrics());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(generation(&child.metrics()), now, "the third is left alone");
}

#[test]
fn a_name_of_any_bytes_is_a_name() {
    let mut machine = Machine::new(1);
    machine.set(|state| state["gpus"][0]["name"] = json!([72, 49, 255, 48]));
    let child = machine.start("");
    child.wait_metrics("up", |m| has(m, POWER, &["modelName=\"H1\u{fffd}0\""]));
}

#[test]
fn a_storm_of_xids_is_counted_and_not_logged_line_by_line() {
    let mut machine = Machine::new(1);
    let child = machine.start("");
    let counter = "tokenglass_gpu_xid_errors_total";
    child.wait_metrics("XIDs are heard", |m| has(m, "DCGM_FI_DEV_XID_ERRORS", &[]));
    let storm: Vec<_> = (1..=500)
        .map(|id| json!({"id": id, "gpu": 0, "xid": 31}))
        .collect();
    machine.set(|state| state["xids"] = storm.clone().into());
    child.wait_metrics("all of them", |m| m.count(counter, &[]) == 500);
    // A second later there is a line again, which says how many there were not.
    std::thread::sleep(Duration::from_millis(1100));
    machine.set(|state| {
        let mut all = storm.clone();
        all.push(json!({"id": 501, "gpu": 0, "xid": 79}));
        state["xids"] = all.into();
    });
    let (mut lines, mut suppressed) = (0, 0);
    loop {
        let line: Value =
            serde_json::from_str(&child.wait_log("a GPU reports an XID")).expect("a line of JSON");
        let fields = if line["fields"].is_object() {
            &line["fields"]
        } else {
            &line
        };
        lines += 1;
        suppressed += fields["suppressed"].as_u64().unwrap();
        if fields["xid"] == 79 {
            break;
        }
    }
    assert_eq!(lines + suppressed, 501);
    assert!(lines < 50, "{lines} lines");
}

#[test]
fn a_wait_for_xids_that_hangs_is_seen_and_not_waited_for() {
    let mut machine = Machine::new(1);
    let child = machine.start("");
    let traffic = Traffic::through(&child);
    let (xids, stuck) = ("DCGM_FI_DEV_XID_ERRORS", "tokenglass_nvml_stuck_total");
    child.wait_metrics("XIDs are heard", |m| has(m, xids, &[]));
    machine.set(|state| state["delays_ms"]["nvmlEventSetWait_v2"] = 600_000.into());
    // Not knowing of any is not that there was none.
    let metrics = child.wait_metrics("deaf", |m| !has(m, xids, &[]));
    assert!(up(&metrics) && has(&metrics, POWER, &[]));
    assert_eq!(metrics.count(stuck, &[]), 1);
    child.wait_log("a wait for XIDs does not come back");
    // The driver goes, and comes back: the thread that hangs holds up neither.
    machine.set(|state| errors(state, &json!({"*": 1, "nvmlInit_v2": 9})));
    child.wait_metrics("unloaded", |m| reason(m) == "driver_not_loaded");
    machine.set(|state| errors(state, &json!({})));
    let metrics = child.wait_metrics("up again", |m| up(m) && has(m, POWER, &[]));
    assert!(!has(&metrics, xids, &[]));
    // So does the wait, and then they are heard again.
    machine.set(|state| state["delays_ms"] = json!({}));
    let metrics = child.wait_metrics("heard again", |m| has(m, xids, &[]));
    assert_eq!(metrics.count(stuck, &[]), 1);
    machine.set(|state| state["xids"] = json!([{"id": 1, "gpu": 0, "xid": 79}]));
    child.wait_metrics("one", |m| {
        m.count("tokenglass_gpu_xid_errors_total", &[]) == 1
    });
    traffic.was_undisturbed();
}
