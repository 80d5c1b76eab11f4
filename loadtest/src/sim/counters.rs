//! The simulator's own `/metrics`: a small but real-looking part of what vLLM exports.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::control::Control;
use super::truth::{Entry, TruthEnd};

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    prompt: AtomicU64,
    generation: AtomicU64,
    running: AtomicI64,
    success: [AtomicU64; REASONS.len()],
}

/// Counts a request as running while it lives.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a AtomicI64);

const REASONS: [&str; 5] = ["stop", "length", "abort", "error", "repetition"];

// === impl Counters ===

impl Counters {
    pub(crate) fn running(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(&self.running)
    }

    pub(crate) fn count(&self, entry: &Entry) {
        if entry.end == TruthEnd::HttpError {
            return;
        }
        let add = |counter: &AtomicU64, value: u32| {
            counter.fetch_add(u64::from(value), Ordering::Relaxed);
        };
        // A request for n choices is n requests to vLLM's engine, and each has the prompt.
        add(
            &self.prompt,
            entry.prompt_tokens.saturating_mul(entry.n.max(1)),
        );
        add(&self.generation, entry.output_tokens);
        for reason in &entry.finish_reasons {
            let reason = if reason == "tool_calls" {
                "stop"
            } else {
                reason
            };
            if let Some(at) = REASONS.iter().position(|r| *r == reason) {
                add(&self.success[at], 1);
            }
        }
    }

    /// Requests that are running.
    pub(crate) fn load(&self) -> i64 {
        self.running.load(Ordering::Relaxed)
    }

    /// The exposition, all of it under the first model. What is not counted here is as `control` has it.
    pub(crate) fn render(&self, model: &str, control: &Control) -> String {
        let mut out = String::new();
        let labels = format!(r#"engine="0",model_name="{model}""#);
        let mut family = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in values {
                let _ = writeln!(out, "{name}{{{labels}}} {value:?}");
            }
        };
        let one = |value: f64| [(labels.clone(), value)];
        family(
            "vllm:num_requests_running",
            "gauge",
            "Number of requests in model execution batches.",
            &one(self.running.load(Ordering::Relaxed) as f64),
        );
        family(
            "vllm:num_requests_waiting",
            "gauge",
            "Number of requests waiting to be processed.",
            &one(control.value("vllm:num_requests_waiting")),
        );
        family(
            "vllm:kv_cache_usage_perc",
            "gauge",
            "KV-cache usage. 1 means 100 percent usage.",
            &one(control.value("vllm:kv_cache_usage_perc")),
        );
        family(
            "vllm:num_preemptions_total",
            "counter",
            "Cumulative number of preemption from the engine.",
            &one(control.value("vllm:num_preemptions_total")),
        );
        family(
            "vllm:prompt_tokens_total",
            "counter",
            "Number of prefill tokens processed.",
            &one(load(&self.prompt)),
        );
        family(
            "vllm:generation_tokens_total",
            "counter",
            "Number of generation tokens processed.",
            &one(load(&self.generation)),
        );
        let success: Vec<_> = REASONS
            .iter()
            .zip(&self.success)
            .map(|(reason, value)| {
                let labels =
                    format!(r#"engine="0",finished_reason="{reason}",model_name="{model}""#);
                (labels, load(value))
            })
            .collect();
        family(
            "vllm:request_success_total",
            "counter",
            "Count of successfully processed requests.",
            &success,
        );
        out
    }
}

// === impl Running ===

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn load(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}
