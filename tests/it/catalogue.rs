//! docs/metrics-catalog.md against a live scrape: every family is in both, with its type, and the labels are as written.

use std::collections::{BTreeMap, BTreeSet};

use loadtest::sim;
use loadtest::traffic::{Mix, Plan, run};

use crate::support::{Proxy, runtime};

/// Family → (type, its own labels) as documented.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let request = ["model", "endpoint", "stream"];
    let text = include_str!("../../docs/metrics-catalog.md");
    let mut families = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let more = ticked(cells[3]);
        let labels: BTreeSet<_> = if cells[1].starts_with("`vllm_") {
            request
                .iter()
                .map(|s| (*s).to_owned())
                .chain(more)
                .collect()
        } else {
            more.into_iter().collect()
        };
        for name in ticked(cells[1]) {
            families.insert(name, (cells[2].to_owned(), labels.clone()));
        }
    }
    assert!(families.len() > 25);
    families
}

fn ticked(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_catalogue_is_what_is_scraped() {
    let runtime = runtime();
    let text = runtime.block_on(async {
        let sim = sim::Server::start(sim::Config {
            behaviour: sim::Behaviour {
                reasoning_tokens: Some(2),
                ..Default::default()
            },
            ..Default::default()
        })
        .unwrap();
        let proxy = Proxy::start(sim.addr());
        let mut plan = Plan::new(proxy.addr());
        plan.requests = Some(200);
        plan.mix = Mix::default().with_cancels();
        run(plan).await;
        proxy.wait_metrics("all recorded", |m| {
            m.count("vllm_request_duration_seconds_count", &[]) == 200
        });
        proxy
            .wait_metrics("estimates", |m| {
                m.count(
                    "vllm_output_tokens_per_request_count",
                    &[r#"source="estimate""#],
                ) > 0
            })
            .0
    });
    let documented = documented();
    let mut scraped = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let (wanted, _) = documented
                .get(name)
                .unwrap_or_else(|| panic!("{name} is not in docs/metrics-catalog.md"));
            assert!(
                wanted.is_empty() || wanted == kind,
                "{name} is a {kind}, not a {wanted}"
            );
            scraped.insert(name.to_owned());
        } else if !line.starts_with('#') {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| {
                    name.strip_suffix(suffix)
                        .filter(|n| documented.contains_key(*n))
                })
                .unwrap_or(name);
            let (_, wanted) = &documented[family];
            let found: BTreeSet<_> = labels
                .split(',')
                .filter_map(|pair| pair.split_once('=').map(|(key, _)| key.to_owned()))
                .filter(|key| key != "le")
                .collect();
            assert_eq!(&found, wanted, "{series}");
        }
    }
    // What this traffic cannot cause: vLLM's own extras, and a stall.
    let rare = [
        "vllm_cached_input_tokens_total",
        "vllm_request_queue_seconds",
        "vllm_request_frontend_seconds",
        "vllm_streams_stalled",
        "vllm_reasoning_tokens_total",
    ];
    for name in documented.keys() {
        assert!(
            scraped.contains(name) || rare.contains(&name.as_str()),
            "{name} is documented, not scraped"
        );
    }
}
