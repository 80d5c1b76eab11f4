//! What `/metrics` must say, worked out from what the simulator did and what the client did, and from nothing of the
//! proxy's: its own small reading of the contract, to be held against the observer's.

use std::collections::BTreeMap;

use loadtest::sim::{Entry, Fault, TruthEnd};
use loadtest::traffic::{Cancel, Outcome, Record};

use crate::support::Metrics;

/// A series as the exposition writes it (labels in the order of the alphabet) and its value.
pub type Series = BTreeMap<String, f64>;

/// Families that are compared whole: a series that is there and not expected fails as well as a missing one.
const COMPARED: &[&str] = &[
    "vllm_request_success_total",
    "vllm_request_error_total",
    "vllm_request_cancelled_total",
    "vllm_request_finish_total",
    "vllm_request_duration_seconds_count",
    "vllm_request_time_to_first_token_seconds_count",
    "vllm_request_time_to_first_answer_seconds_count",
    "vllm_request_inter_token_latency_seconds_count",
    "vllm_request_time_per_output_token_seconds_count",
    "vllm_request_longest_stall_seconds_count",
    "vllm_input_tokens_per_request_count",
    "vllm_input_tokens_per_request_sum",
    "vllm_output_tokens_per_request_count",
    "vllm_output_tokens_per_request_sum",
    "vllm_reasoning_tokens_total",
    "vllm_requests_in_flight",
    "vllm_streams_stalled",
    "tokenglass_observer_faults_total",
];

/// How a request must be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Error(&'static str),
    Cancelled(&'static str),
}

/// What the plan asked for and a client's record does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Those that asked for usage asked for it on every chunk.
    pub continuous: bool,
    /// Tokens arrive so far apart that no read brings two rounds: what depends on reads is known then.
    pub apart: bool,
}

/// The series after all of these requests.
pub fn series(requests: &[(Record, Option<Entry>)], asked: Asked) -> Series {
    let mut all = Series::new();
    for (record, entry) in requests {
        add(&mut all, record, entry.as_ref(), asked);
    }
    all
}

fn add(all: &mut Series, record: &Record, entry: Option<&Entry>, asked: Asked) {
    let endpoint = match record.endpoint {
        "/v1/completions" => "completions",
        _ => "chat_completions",
    };
    let stream = record.stream;
    // Alphabetical: endpoint, error_type | finish_reason, model, phase | source, stream.
    let mut count = |family: &str, early: &str, late: &str, value: f64| {
        let key = format!(
            r#"{family}{{endpoint="{endpoint}"{early},model="tiny"{late},stream="{stream}"}}"#
        );
        *all.entry(key).or_default() += value;
    };
    let verdict = verdict(record, entry);
    match &verdict {
        Verdict::Success => count("vllm_request_success_total", "", "", 1.0),
        Verdict::Error(kind) => {
            let label = format!(r#",error_type="{kind}""#);
            count("vllm_request_error_total", &label, "", 1.0);
        }
        Verdict::Cancelled(phase) => {
            let label = format!(r#",phase="{phase}""#);
            count("vllm_request_cancelled_total", "", &label, 1.0);
        }
    }
    count("vllm_request_duration_seconds_count", "", "", 1.0);
    let Some(entry) = entry else { return };
    for reason in &entry.finish_reasons {
        let label = format!(r#",finish_reason="{reason}""#);
        count("vllm_request_finish_total", &label, "", 1.0);
    }
    let (frames, n) = (u64::from(entry.token_frames), u64::from(entry.n));
    let counted = usage(record, entry, asked);
    if stream && frames > 0 {
        let rounds = frames.div_ceil(n);
        let choices = frames.min(n);
        count(
            "vllm_request_time_to_first_token_seconds_count",
            "",
            "",
            1.0,
        );
        if entry.output_tokens > entry.reasoning_tokens {
            count(
                "vllm_request_time_to_first_answer_seconds_count",
                "",
                "",
                1.0,
            );
        }
        let gaps = (frames - choices) as f64;
        count(
            "vllm_request_inter_token_latency_seconds_count",
            "",
            "",
            gaps,
        );
        if asked.apart && rounds > 1 {
            count("vllm_request_longest_stall_seconds_count", "", "", 1.0);
            if counted.is_some() && u64::from(entry.output_tokens) > choices {
                count(
                    "vllm_request_time_per_output_token_seconds_count",
                    "",
                    "",
                    1.0,
                );
            }
        }
    }
    if let Some(source) = counted {
        let label = format!(r#",source="{source}""#);
        for (family, tokens) in [
            ("vllm_input_tokens_per_request", entry.prompt_tokens),
            ("vllm_output_tokens_per_request", entry.output_tokens),
        ] {
            count(&format!("{family}_count"), "", &label, 1.0);
            count(&format!("{family}_sum"), "", &label, f64::from(tokens));
        }
        let reasoning = f64::from(entry.reasoning_tokens);
        count("vllm_reasoning_tokens_total", "", "", reasoning);
    } else if stream && frames > 0 {
        let label = r#",source="estimate""#;
        count("vllm_output_tokens_per_request_count", "", label, 1.0);
        // A prompt is counted only where no usage was promised.
        if !record.usage {
            count("vllm_input_tokens_per_request_count", "", label, 1.0);
        }
    }
}

/// The source of this request's counts, if upstream said any.
fn usage(record: &Record, entry: &Entry, asked: Asked) -> Option<&'static str> {
    if entry.usage_sent {
        return Some("usage");
    }
    // Each chunk with a choice carried a count; an error event and its `[DONE]` do not.
    let said = match entry.end {
        TruthEnd::ErrorFrame => entry.frames - 2,
        _ => entry.frames,
    };
    (asked.continuous && record.usage && said > 0).then_some("partial")
}

/// How the request ended, by the contract.
pub fn verdict(record: &Record, entry: Option<&Entry>) -> Verdict {
    match record.outcome {
        Outcome::Cancelled(Cancel::BeforeHead) => return Verdict::Cancelled("before_head"),
        Outcome::Cancelled(Cancel::BeforeFirstToken) => {
            return Verdict::Cancelled("before_first_token");
        }
        Outcome::Cancelled(Cancel::MidStream) => return Verdict::Cancelled("streaming"),
        Outcome::Cancelled(Cancel::AfterDone) => return Verdict::Success,
        _ => {}
    }
    let Some(entry) = entry else {
        // Upstream closed the connection as the request came: it never was one there.
        assert_eq!(record.outcome, Outcome::HttpError(502), "{}", record.id);
        return Verdict::Error("upstream_reset");
    };
    let stream = record.stream;
    match &entry.fault {
        None
        | Some(
            Fault::None
            | Fault::SlowHead { .. }
            | Fault::IdleCloseRace
            | Fault::Stall { ms: Some(_), .. },
        ) => Verdict::Success,
        Some(Fault::Http {
            status, message, ..
        }) => Verdict::Error(http(*status, message.as_deref())),
        Some(Fault::ErrorFrame { code, message, .. }) => {
            let dead = message.as_deref().is_some_and(|m| m.contains("EngineCore"));
            Verdict::Error(match (code, stream) {
                _ if dead => "engine_dead",
                (Some(503), _) => "overloaded",
                (_, true) => "stream_error",
                (_, false) => "internal_error",
            })
        }
        Some(Fault::Stall { ms: None, .. }) if stream => Verdict::Error("stream_stalled"),
        Some(Fault::Stall { ms: None, .. }) => Verdict::Error("upstream_timeout"),
        Some(Fault::CloseBeforeHead | Fault::Reset { after: None }) => {
            Verdict::Error("upstream_reset")
        }
        // All events came, `[DONE]` among them: only HTTP's framing is short.
        Some(Fault::ShortBody) if stream => Verdict::Success,
        Some(_) if stream => Verdict::Error("stream_truncated"),
        Some(_) => Verdict::Error("upstream_reset"),
    }
}

fn http(status: u16, message: Option<&str>) -> &'static str {
    let says = |phrase| message.is_some_and(|m| m.contains(phrase));
    match status {
        400 if says("maximum context length") => "context_length_exceeded",
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 if says("The model") => "model_not_found",
        404 => "not_found",
        413 => "payload_too_large",
        422 => "unprocessable",
        429 => "rate_limited",
        500 if says("EngineCore") => "engine_dead",
        500 => "internal_error",
        501 => "not_implemented",
        503 => "overloaded",
        _ if status < 500 => "client_error",
        _ => "server_error",
    }
}

/// The differences between what is there and what is expected, one a line. `but` names families to leave out.
pub fn differences(metrics: &Metrics, expected: &Series, but: &[&str]) -> Vec<String> {
    let compared = |series: &str| {
        let family = series.split('{').next().unwrap_or(series);
        // The sum of estimates is the tokenizer's business.
        let guess = family.ends_with("_sum") && series.contains(r#"source="estimate""#);
        COMPARED.contains(&family) && !but.contains(&family) && !guess
    };
    let mut found = Series::new();
    for line in metrics.0.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        if compared(series) {
            found.insert(series.to_owned(), value.parse().expect("a number"));
        }
    }
    let mut names: Vec<_> = found.keys().chain(expected.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| compared(name))
        .filter_map(|name| {
            let value = |of: &Series| of.get(name).copied().unwrap_or(0.0);
            let (is, should) = (value(&found), value(expected));
            (is != should).then(|| format!("{name}: {is}, not {should}"))
        })
        .collect()
}
