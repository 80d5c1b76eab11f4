//! vLLM's own metrics: text in, text out.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokenglass::engine::{Filter, Settings, Snapshots, Taken};
use tokenglass::exposition::{Format, Kind, Writer};

use crate::exposition_parser::{Family, go_reads, parse};

const RECORDED: &str = include_str!("../captures/metrics-under-load.resp");
const VERSIONS: [(&str, &str); 5] = [
    ("0.6.6", include_str!("../expositions/0.6.6.prom")),
    ("0.8.5", include_str!("../expositions/0.8.5.prom")),
    ("0.10.2", include_str!("../expositions/0.10.2.prom")),
    ("0.14", include_str!("../expositions/0.14.prom")),
    ("0.32", include_str!("../expositions/0.32.prom")),
];
const FRESH: Duration = Duration::from_secs(12);

fn recorded() -> &'static str {
    let (_, body) = RECORDED
        .split_once("\n\n")
        .or(RECORDED.split_once("\r\n\r\n"))
        .unwrap();
    body
}

fn settings() -> Settings {
    Settings {
        filter: Filter::default(),
        aliases: true,
        fresh: FRESH,
    }
}

fn taken() -> Taken {
    Taken::new([
        ("vllm_request_success_total", Kind::Counter),
        ("vllm_request_duration_seconds", Kind::Histogram),
        ("process_open_fds", Kind::Gauge),
        ("process_cpu_seconds_total", Kind::Counter),
    ])
}

fn one(settings: Settings) -> Snapshots {
    Snapshots::new(settings, taken(), ["http://vllm:8000".to_owned()])
}

fn text(snapshots: &Snapshots, format: Format, now: Instant) -> String {
    let mut out = Writer::new(format, 0);
    snapshots.write(&mut out, now);
    String::from_utf8(out.finish()).unwrap()
}

/// Both formats, which must both parse; the text comes back without what tokenglass says of itself.
#[track_caller]
fn shown(snapshots: &Snapshots, now: Instant) -> (Vec<Family>, Vec<Family>) {
    let both = [Format::Text, Format::OpenMetrics].map(|format| {
        let text = text(snapshots, format, now);
        let families = parse(&text, format == Format::OpenMetrics);
        let mut families = families.unwrap_or_else(|error| panic!("{format:?}: {error}\n{text}"));
        families.retain(|family| !family.name.starts_with("tokenglass_"));
        families
    });
    both.into()
}

/// What is shown of one exposition, as text.
#[track_caller]
fn through(exposition: &str) -> String {
    let snapshots = one(settings());
    let now = Instant::now();
    snapshots.update(0, exposition.as_bytes(), now);
    shown(&snapshots, now);
    let text = text(&snapshots, Format::Text, now);
    let own = text
        .find("# TYPE tokenglass_engine_lines_dropped_total")
        .unwrap();
    let mut rest = text[own..].lines().skip(1);
    let vllms: Vec<_> = rest
        .by_ref()
        .skip_while(|line| line.starts_with("tokenglass_"))
        .map(|line| format!("{line}\n"))
        .collect();
    vllms.concat()
}

fn dropped(snapshots: &Snapshots, reason: &str) -> u64 {
    let text = text(snapshots, Format::Text, Instant::now());
    let line = format!("tokenglass_engine_lines_dropped_total{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|l| l.strip_prefix(&line)).unwrap();
    value.parse().unwrap()
}

fn find<'a>(families: &'a [Family], name: &str) -> Option<&'a Family> {
    families.iter().find(|family| family.name == name)
}

#[test]
fn a_recorded_exposition_is_shown_byte_for_byte() {
    let through = through(recorded());
    let kept: String = recorded()
        .split_inclusive('\n')
        .filter(|line| !line.contains("process_open_fds") && !line.contains("process_cpu_seconds"))
        .collect();
    assert!(kept.lines().count() > 600);
    let (same, aliases) = through.split_at(kept.len().min(through.len()));
    for (now, was) in same.lines().zip(kept.lines()) {
        assert_eq!(now, was);
    }
    assert_eq!(same.len(), kept.len());
    let added: Vec<_> = aliases
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .map(|line| line.split_once(" added by tokenglass)").unwrap().0)
        .collect();
    assert_eq!(
        added,
        [
            "vllm:gpu_cache_usage_perc (alias of vllm:kv_cache_usage_perc,",
            "vllm:gpu_prefix_cache_queries_total (alias of vllm:prefix_cache_queries_total,",
            "vllm:gpu_prefix_cache_hits_total (alias of vllm:prefix_cache_hits_total,",
            "vllm:time_per_output_token_seconds (alias of vllm:inter_token_latency_seconds,",
        ]
    );
}

#[test]
fn every_version_has_both_names() {
    for (version, exposition) in VERSIONS {
        let snapshots = one(settings());
        let now = Instant::now();
        assert!(snapshots.update(0, exposition.as_bytes(), now));
        let (text, open_metrics) = shown(&snapshots, now);
        // 0.6.6 has hit rates, of which no counts can be made.
        let counts = version != "0.6.6";
        for (old, new, there) in [
            (
                "vllm:gpu_cache_usage_perc",
                "vllm:kv_cache_usage_perc",
                true,
            ),
            (
                "vllm:time_per_output_token_seconds",
                "vllm:inter_token_latency_seconds",
                true,
            ),
            (
                "vllm:gpu_prefix_cache_queries_total",
                "vllm:prefix_cache_queries_total",
                counts,
            ),
            (
                "vllm:gpu_prefix_cache_hits_total",
                "vllm:prefix_cache_hits_total",
                counts,
            ),
        ] {
            let [one, other] = [old, new].map(|name| find(&text, name));
            assert_eq!(
                (one.is_some(), other.is_some()),
                (there, there),
                "{version} {old}"
            );
            let (Some(one), Some(other)) = (one, other) else {
                continue;
            };
            assert_eq!(one.kind, other.kind);
            assert_eq!(one.samples.len(), other.samples.len());
            for (a, b) in one.samples.iter().zip(&other.samples) {
                assert_eq!(a.name.strip_prefix(old), b.name.strip_prefix(new));
                assert_eq!(a.labels, b.labels);
                if version != "0.10.2" {
                    assert_eq!(a.value, b.value);
                }
            }
            let marks = [one, other].map(|family| {
                family
                    .help
                    .as_ref()
                    .unwrap()
                    .contains("added by tokenglass")
            });
            // 0.10.2 has both by itself.
            let wanted = if version == "0.10.2" { 0 } else { 1 };
            assert_eq!(
                marks.iter().filter(|mark| **mark).count(),
                wanted,
                "{version} {old}"
            );
            for name in [old, new] {
                let name = name.strip_suffix("_total").unwrap_or(name);
                assert!(find(&open_metrics, name).is_some(), "{version} {name}");
            }
        }
    }
}

#[test]
fn an_upgrade_changes_the_set_of_names() {
    let snapshots = one(settings());
    let now = Instant::now();
    for (version, exposition) in VERSIONS {
        assert!(snapshots.update(0, exposition.as_bytes(), now));
        let (text, _) = shown(&snapshots, now);
        assert_eq!(
            find(&text, "vllm:num_requests_swapped").is_some(),
            version == "0.6.6"
        );
        assert_eq!(
            find(&text, "vllm:num_requests_waiting_by_reason").is_some(),
            version == "0.32"
        );
    }
}

#[test]
fn malformed_lines_cost_only_themselves() {
    let through = through(
        "# TYPE a gauge\na 1\na{ 2\na{x=\"1\"} 3\na{x=\"2} 4\na{x=\"3\"} five\na{x=\"4\"}\n\
         a{x=\"5\",x=\"6\"} 1\na{x=\"\\q\"} 1\na{__name__=\"b\"} 1\na{x=\"7\"} 1e999\na{x=\"8\"} 1 2 3\n9a 1\n\
         <html>\na{x=\"\0\"} 1\n# TYPE b nonsense\n# TYPE c\nb 1\n# a comment\n\n# TYPE h histogram\nh 1\n\
         h_bucket{le=\"x\"} 1\nh_bucket 1\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 1",
    );
    assert_eq!(
        through,
        "# TYPE a gauge\na 1\na{x=\"1\"} 3\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 1\n\
         # TYPE b untyped\nb 1\n"
    );
}

#[test]
fn odd_but_readable_lines_are_tidied() {
    let through = through(
        "# TYPE a gauge\r\n a { x = \"1\" , y=\"}, \\\" #\\\\ \\n\", } \t 2\t1700000000000\r\na{} NaN\r\n\
         a{x=\"2\"} +Inf 1700000000.5\r\na{x=\"3\"} 4 # {trace=\"1\"} 4 1.5\r\n# EOF\r\n",
    );
    assert_eq!(
        through,
        "# TYPE a gauge\na{x=\"1\",y=\"}, \\\" #\\\\ \\n\"} 2 1700000000000\na NaN\na{x=\"2\"} +Inf\na{x=\"3\"} 4\n"
    );
}

#[test]
fn no_sign_is_where_prometheus_refuses_one() {
    let through = through(
        "# TYPE a gauge\na{x=\"1\"} -nan\na{x=\"2\"} +NaN 5\na{x=\"3\"} nan\na{x=\"4\"} 1 -5\na{x=\"5\"} 1 -0\na{x=\"6\"} 1 +7\n",
    );
    assert_eq!(
        through,
        "# TYPE a gauge\na{x=\"1\"} NaN\na{x=\"2\"} NaN 5\na{x=\"3\"} NaN\na{x=\"4\"} 1\na{x=\"5\"} 1 0\na{x=\"6\"} 1 7\n"
    );
}

#[test]
fn families_in_pieces_and_types_behind_are_put_together() {
    let through = through(
        "a{x=\"1\"} 1\nb 1\na{x=\"2\"} 2\n# HELP b B\n# TYPE a counter\n# TYPE b gauge\n# HELP a A\n# TYPE a gauge\n\
         # HELP a again\na{x=\"1\"} 9\nb{x=\"\"} 9\nh_bucket{le=\"1\"} 1\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 7\n\
         h_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\nh_bucket{y=\"1\",le=\"+Inf\",x=\"1\"} 1\nh_bucket{x=\"1\",y=\"1\",le=\"Inf\"} 7\n",
    );
    assert_eq!(
        through,
        "# HELP b B\n# TYPE b gauge\nb 1\n# HELP a A\n# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\n\
         # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n\
         h_bucket{y=\"1\",le=\"+Inf\",x=\"1\"} 1\n"
    );
}

#[test]
fn open_metrics_from_upstream_is_read_too() {
    let through = through(
        "# HELP vllm:prompt_tokens P\n# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 5\nvllm:prompt_tokens_created 17\n\
         # TYPE build info\nbuild_info{v=\"1\"} 1\n# TYPE u unknown\nu 1\n# EOF\n",
    );
    assert_eq!(
        through,
        "# HELP vllm:prompt_tokens_total P\n# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total 5\n\
         # TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n# TYPE u untyped\nu 1\n\
         # HELP vllm:prompt_tokens_created P\n# TYPE vllm:prompt_tokens_created gauge\nvllm:prompt_tokens_created 17\n"
    );
}

#[test]
fn our_names_stay_ours() {
    let exposition = "# TYPE vllm_request_success_total counter\nvllm_request_success_total 1\ntokenglass_up 1\n\
        DCGM_FI_DEV_GPU_UTIL 1\nvllm_request_duration_seconds_count 1\n# TYPE vllm_request gauge\nvllm_request 1\n\
        # TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 1\nprocess_open_fds 3\n\
        # TYPE process_open summary\nprocess_open_sum 1\nprocess_open_count 1\n";
    let snapshots = one(settings());
    let now = Instant::now();
    snapshots.update(0, exposition.as_bytes(), now);
    let (text, _) = shown(&snapshots, now);
    let names: Vec<_> = text.iter().map(|family| family.name.as_str()).collect();
    // What vLLM counts under an underscore is not lost: it is there under its own name.
    assert_eq!(
        names,
        ["vllm_request", "process_open", "vllm:request_success_total"]
    );
    assert_eq!(dropped(&snapshots, "name_taken"), 6);
}

#[test]
fn underscores_become_colons_and_old_names_new_ones() {
    let through = through(
        "# TYPE vllm_gpu_cache_usage_perc gauge\nvllm_gpu_cache_usage_perc 0.5\nvllm_nonsense 1\n",
    );
    for name in [
        "vllm_gpu_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:kv_cache_usage_perc",
    ] {
        assert!(through.contains(&format!("\n{name} 0.5\n")), "{through}");
    }
    assert!(!through.contains("vllm:nonsense"));
}

#[test]
fn several_upstreams_are_told_apart() {
    let urls = ["http://a:8000", "unix:/tmp/\"b\\"].map(str::to_owned);
    let snapshots = Snapshots::new(settings(), taken(), urls);
    let now = Instant::now();
    snapshots.update(0, b"# HELP g first\n# TYPE g gauge\ng 1\n# TYPE c counter\nc{upstream=\"x\",exported_upstream=\"y\"} 1\n", now);
    snapshots.update(
        1,
        b"# HELP g second\n# TYPE g gauge\ng 2\n# TYPE c gauge\nc 2\n# TYPE c_sum gauge\nc_sum 1\n",
        now,
    );
    shown(&snapshots, now);
    let all = text(&snapshots, Format::Text, now);
    assert!(all.contains(
        "# HELP g first\n# TYPE g gauge\ng{upstream=\"http://a:8000\"} 1\ng{upstream=\"unix:/tmp/\\\"b\\\\\"} 2\n\
         # TYPE c counter\nc{exported_exported_upstream=\"x\",exported_upstream=\"y\",upstream=\"http://a:8000\"} 1\n"
    ), "{all}");
    assert!(all.contains("tokenglass_engine_lines_dropped_total{upstream=\"unix:/tmp/\\\"b\\\\\",reason=\"type_conflict\"} 1\n"));
    snapshots.failed(0);
    snapshots.failed(0);
    let (text, _) = shown(&snapshots, now);
    // Now the other's type counts.
    assert_eq!(find(&text, "c").unwrap().kind, "gauge");
    assert_eq!(find(&text, "g").unwrap().samples.len(), 1);
}

#[test]
fn stale_is_gone() {
    let snapshots = one(settings());
    let now = Instant::now();
    let up = |at: Instant| {
        let text = text(&snapshots, Format::Text, at);
        (
            text.contains("tokenglass_engine_up 1\n"),
            text.contains("vllm:num_requests_running"),
        )
    };
    assert_eq!(up(now), (false, false));
    snapshots.update(0, recorded().as_bytes(), now);
    assert_eq!(up(now), (true, true));
    snapshots.failed(0);
    assert_eq!(up(now), (false, true), "one failure may be a moment's load");
    snapshots.failed(0);
    assert_eq!(up(now), (false, false));
    snapshots.update(0, recorded().as_bytes(), now);
    assert_eq!(up(now + FRESH), (true, true));
    assert!(!up(now + FRESH + Duration::from_millis(1)).1, "too old");
    assert!(!snapshots.update(0, b"<html><body>Sign in</body></html>\n", now));
    assert!(!up(now).0);
}

#[test]
fn only_what_is_wanted() {
    let mut settings = settings();
    settings.filter.include = vec!["vllm:*".to_owned(), "python_info".to_owned()];
    settings.filter.exclude = vec!["*_created".to_owned(), "vllm:request_*".to_owned()];
    let snapshots = one(settings);
    let now = Instant::now();
    snapshots.update(0, recorded().as_bytes(), now);
    let (text, _) = shown(&snapshots, now);
    assert!(
        find(&text, "python_info").is_some() && find(&text, "vllm:gpu_cache_usage_perc").is_some()
    );
    assert!(text.iter().all(|family| !family.name.ends_with("_created")
        && !family.name.starts_with("vllm:request_")
        && !family.name.starts_with("http_")));
}

#[test]
fn open_metrics_leaves_out_what_it_cannot_say() {
    let snapshots = one(settings());
    let now = Instant::now();
    let exposition = "# TYPE a counter\na 1\n# TYPE x gauge\nx 1\n# TYPE x_total counter\nx_total{time=\"1\"} 1 1500\nx_total -1\n\
        # TYPE h histogram\nh_bucket{k=\"1\",le=\"+Inf\"} 2\nh_bucket{k=\"1\",le=\"1\"} 1\nh_bucket{k=\"2\",le=\"1\"} 1\n\
        h_count{k=\"1\"} 2\nh_sum{k=\"1\"} 2\nh_bucket{k=\"3\",le=\"+Inf\"} 1\nh_count{k=\"3\"} 2\nh_sum{k=\"3\"} 2\n\
        # HELP c_total \"quoted\" \\\\ \\q\n# TYPE c_total counter\nc_total 1\n# TYPE c_created gauge\nc_created 2\n";
    snapshots.update(0, exposition.as_bytes(), now);
    shown(&snapshots, now);
    let all = text(&snapshots, Format::OpenMetrics, now);
    let vllms = &all[all.find("# TYPE a ").unwrap()..];
    assert_eq!(
        vllms,
        "# TYPE a unknown\na 1\n# TYPE x gauge\nx 1\n# TYPE x_total unknown\nx_total{time=\"1\"} 1 1.500\n\
         # TYPE h histogram\nh_bucket{k=\"1\",le=\"1\"} 1\nh_bucket{k=\"1\",le=\"+Inf\"} 2\nh_count{k=\"1\"} 2\nh_sum{k=\"1\"} 2\n\
         # TYPE c counter\n# HELP c \\\"quoted\\\" \\\\ \\\\q\nc_total 1\n# EOF\n"
    );
}

/// Pieces from which an exposition can be made that is nearly one.
fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "a",
        "a_total",
        "a_created",
        "a_count",
        "a_sum",
        "a_bucket",
        "b",
        "b_info",
        "process_open",
        "process_open_fds",
        "vllm_request_success_total",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds_sum",
        "tokenglass_x",
    ]);
    let kind = prop::sample::select(vec![
        "counter",
        "gauge",
        "histogram",
        "summary",
        "untyped",
        "info",
        "x",
    ]);
    let labels = prop::sample::select(vec![
        "",
        "{}",
        "{le=\"1\"}",
        "{le=\"+Inf\"}",
        "{le=\"NaN\"}",
        "{quantile=\"0.5\"}",
        "{quantile=\"7\"}",
        "{x=\"1\",y=\"2\"}",
        "{y=\"2\",x=\"1\"}",
        "{x=\"\"}",
        "{x=\"\\\"}\"}",
        "{le=\"1.0\",x=\"1\"}",
        "{x=\"1\",le=\"1e0\"}",
        "{upstream=\"u\"}",
        "{x=\"",
    ]);
    let value = prop::sample::select(vec![
        "1", "2.5", "-1", "NaN", "-nan", "+Inf", "-Inf", "x", "1 5", "1 -5", "1 # {} 1", "",
    ]);
    prop_oneof![
        4 => (name.clone(), labels, value).prop_map(|(n, l, v)| format!("{n}{l} {v}")),
        2 => (name.clone(), kind).prop_map(|(n, k)| format!("# TYPE {n} {k}")),
        1 => (name, ".*").prop_map(|(n, h)| format!("# HELP {n} {h}")),
        1 => ".*",
    ]
}

proptest! {
    #[test]
    fn whatever_upstream_says_it_parses(
        one_says in prop::collection::vec(line(), 0..40),
        other_says in prop::collection::vec(line(), 0..20),
    ) {
        let now = Instant::now();
        let alone = one(settings());
        alone.update(0, one_says.join("\n").as_bytes(), now);
        shown(&alone, now);
        let urls = ["http://a:1", "http://b:1"].map(str::to_owned);
        let both = Snapshots::new(settings(), taken(), urls);
        both.update(0, one_says.join("\n").as_bytes(), now);
        both.update(1, other_says.join("\n").as_bytes(), now);
        shown(&both, now);
    }

    #[test]
    fn a_number_is_shown_if_go_reads_it(
        value in "[+-]?(nan|inf|infinity|Infinity|NaN|0x1p4|1_0|0b1|[0-9]{0,3}\\.?[0-9]{0,3}([eE][+-]?[0-9_]{0,5})?|[-+0-9a-fA-FinItTyxXpP_.]{1,6})",
    ) {
        let text = through(&format!("# TYPE a gauge\na {value}\n"));
        let shown = text.lines().find_map(|line| line.strip_prefix("a "));
        let nan = value.trim_start_matches(['+', '-']).eq_ignore_ascii_case("nan");
        prop_assert_eq!(shown.is_some(), go_reads(&value) || nan && value.len() <= 4);
        prop_assert!(shown.is_none_or(go_reads));
    }

    #[test]
    fn whatever_bytes_upstream_sends_it_parses(bytes: Vec<u8>) {
        let now = Instant::now();
        let snapshots = one(settings());
        snapshots.update(0, &bytes, now);
        shown(&snapshots, now);
    }

    #[test]
    fn a_recorded_exposition_that_was_cut_and_patched_parses(at in 0_usize..60_000, patch: Vec<u8>) {
        let mut bytes = recorded().as_bytes().to_vec();
        let at = at.min(bytes.len());
        bytes.splice(at..(at + patch.len()).min(recorded().len()), patch);
        let now = Instant::now();
        let snapshots = one(settings());
        snapshots.update(0, &bytes, now);
        shown(&snapshots, now);
    }
}
