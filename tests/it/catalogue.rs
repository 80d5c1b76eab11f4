//! docs/metrics-catalog.md against live scrapes: every family is in both, with its type, and the labels are as written.

use std::collections::{BTreeMap, BTreeSet};

use loadtest::traffic::{Mix, Plan, run};
use serde_json::json;
use tokenglass::config::GpuNaming;
use tokenglass::gpu::names;

use crate::gpus::Machine;
use crate::nodes::{self, Node};
use crate::support::runtime;

const TEXT: &str = include_str!("../../docs/metrics-catalog.md");
const REQUEST: [&str; 3] = ["model", "endpoint", "stream"];
const GPU: [&str; 7] = [
    "gpu",
    "UUID",
    "pci_bus_id",
    "device",
    "modelName",
    "Hostname",
    "DCGM_FI_DRIVER_VERSION",
];
/// vLLM's own, and what its HTTP server and python add: theirs to change.
const THEIRS: [&str; 4] = ["vllm:", "http_", "python_", "process_"];

#[derive(Default)]
struct Catalogue {
    /// Ours: family → (type, labels).
    ours: BTreeMap<String, (String, BTreeSet<String>)>,
    /// vLLM's, under old names and new.
    theirs: BTreeSet<String>,
    /// Of the other naming profile.
    modern: BTreeSet<String>,
}

/// The tables, told apart by their first rows.
fn catalogue() -> Catalogue {
    let mut found = Catalogue::default();
    let mut header = Vec::new();
    for line in TEXT.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            if !line.starts_with("|---") {
                header.clear();
            }
            continue;
        };
        let cells: Vec<_> = row
            .split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']))
            .collect();
        if header.is_empty() {
            header = cells;
            continue;
        }
        match header[..] {
            ["profile `dcgm`", ..] => {
                let labels = GPU.map(str::to_owned).into();
                let family = (cells[1].to_owned(), labels);
                found.ours.insert(ticked(cells[0]).remove(0), family);
                found.modern.extend(ticked(cells[3]));
            }
            ["metric", .., "versions seen", "alert"] => found.theirs.extend(ticked(cells[0])),
            ["metric", ..] => {
                let own = cells[3].split(':').next().unwrap();
                let mut labels: BTreeSet<_> = ticked(own).into_iter().collect();
                if own.split(',').any(|word| word.trim() == "request") {
                    labels.extend(REQUEST.map(str::to_owned));
                }
                for name in ticked(cells[0]) {
                    found
                        .ours
                        .insert(name, (cells[1].to_owned(), labels.clone()));
                }
            }
            ["old", "new", ..] => {
                let both = cells.iter().take(2).flat_map(|cell| ticked(cell));
                found
                    .theirs
                    .extend(both.filter(|name| name.starts_with("vllm:")));
            }
            _ => {}
        }
    }
    assert!(found.ours.len() > 100 && found.theirs.len() > 50 && found.modern.len() > 50);
    found
}

fn ticked(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// All there is: traffic of every kind, a vLLM with metrics, GPUs.
fn scrape() -> String {
    let mut machine = Machine::new(2);
    machine.set(|state| {
        state["xids"] = json!([{"id": 1, "gpu": 0, "xid": 31}]);
        state["errors"]["nvmlDeviceGetMinorNumber"] = 3.into();
        state["gpus"][0]["errors"] = json!({"nvmlDeviceGetComputeRunningProcesses_v3": 999});
    });
    let child = machine.start(
        "processes = true\n[health]\ninterval = \"200ms\"\n[engine]\ninterval = \"200ms\"\n",
    );
    runtime().block_on(async {
        let mut plan = Plan::new(child.addr());
        plan.requests = Some(200);
        plan.mix = Mix::default().with_cancels();
        run(plan).await;
    });
    let text = child.wait_metrics("all recorded", |m| {
        let count = |name: &str| m.count(name, &[]);
        count("vllm_request_duration_seconds_count") == 200
            && m.count(
                "vllm_output_tokens_per_request_count",
                &[r#"source="estimate""#],
            ) > 0
            && count("vllm_model_loaded") == 1
            && count("tokenglass_engine_up") == 1
            && count("tokenglass_gpu_xid_errors_total") == 1
            && m.0.contains("DCGM_FI_PROF_PCIE_TX_BYTES")
            && m.0.contains("vllm_version_info")
    });
    text.0 + &gateway()
}

/// What only a gateway has.
fn gateway() -> String {
    let nodes = Node::many(2);
    let proxy = nodes::gateway(&nodes, |config| {
        config.gateway.discover = vec!["dns:http://localhost.invalid:1".parse().unwrap()];
    });
    let text = proxy.metrics().0;
    let lines = text.lines().filter(|line| {
        (line.contains("tokenglass_upstream_") || line.contains("tokenglass_discovery_"))
            && !line.contains("_connections")
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_catalogue_is_what_is_scraped() {
    let text = scrape();
    let documented = catalogue();
    let mut scraped = BTreeSet::new();
    let mut theirs = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let known = documented.ours.get(name);
            theirs = known.is_none() && THEIRS.iter().any(|prefix| name.starts_with(prefix));
            if theirs {
                let told = !name.starts_with("vllm:") || documented.theirs.contains(name);
                assert!(
                    told || name.ends_with("_created"),
                    "{name} is not in the catalogue"
                );
                continue;
            }
            let (wanted, _) = known.unwrap_or_else(|| panic!("{name} is not in the catalogue"));
            assert!(
                wanted.is_empty() || wanted == kind,
                "{name} is a {kind}, not a {wanted}"
            );
            scraped.insert(name.to_owned());
        } else if !line.starts_with('#') && !theirs {
            labels_are_as_written(line, &documented);
        }
    }
    // What this machine cannot cause: vLLM's own extras, a stall, a hang.
    let rare = [
        "vllm_cached_input_tokens_total",
        "vllm_request_queue_seconds",
        "vllm_request_frontend_seconds",
        "vllm_streams_stalled",
        "vllm_reasoning_tokens_total",
    ];
    let missing: Vec<_> = documented
        .ours
        .keys()
        .filter(|name| !scraped.contains(*name) && !rare.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "documented, not scraped: {missing:?}");
}

fn labels_are_as_written(line: &str, documented: &Catalogue) {
    let series = line.rsplit_once(' ').unwrap().0;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let family = ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .find(|stem| documented.ours.contains_key(*stem))
        .unwrap_or(name);
    let (_, wanted) = &documented.ours[family];
    let found: BTreeSet<_> = labels
        .split("\",")
        .filter_map(|pair| pair.split_once("=\"").map(|(key, _)| key.to_owned()))
        .filter(|key| key != "le")
        .collect();
    let more: BTreeSet<_> = found.difference(wanted).map(String::as_str).collect();
    let missing: Vec<_> = wanted.difference(&found).collect();
    // The XID gauge says which error.
    let allowed = more.is_empty() || more == BTreeSet::from(["err_code", "err_msg"]);
    assert!(missing.is_empty() && allowed, "{series}: not {wanted:?}");
}

#[test]
fn the_other_naming_profile_is_in_the_catalogue() {
    let coded: BTreeSet<_> = names::FAMILIES
        .iter()
        .filter_map(|family| Some(family.name(GpuNaming::Dcgm47)?.name.to_owned()))
        .chain([names::xid(GpuNaming::Dcgm47).to_owned()])
        .collect();
    assert_eq!(coded, catalogue().modern);
}

#[test]
fn what_a_real_vllm_has_is_in_the_catalogue() {
    let documented = catalogue();
    let recorded = include_str!("../captures/metrics-under-load.resp");
    for line in recorded.lines() {
        let Some(rest) = line.strip_prefix("# TYPE vllm:") else {
            continue;
        };
        let name = format!("vllm:{}", rest.split(' ').next().unwrap());
        let told = documented.theirs.contains(&name) || name.ends_with("_created");
        assert!(told, "{name} is not in the catalogue");
    }
}
