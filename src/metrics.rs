//! Everything on `/metrics` that is measured on the wire, and what the proxy says of itself.
//!
//! One struct, built from a registry that is passed in. The names are the contract of dashboards and alerts: they
//! change with a deprecation, not with a refactoring.

pub mod buckets;
pub mod labels;
pub mod series;
mod totals;

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use labels::ModelNames;
pub use series::Series;
pub use totals::Totals;

use crate::outcome::Outcome;
use crate::record::Record;
use crate::upstream::OpenConnections;

/// Labels of every request family, in this order.
const REQUEST: &[&str] = &["model", "endpoint", "stream"];

/// All families.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Label values of `model`.
    pub models: ModelNames,
    /// `vllm_request_success_total`
    pub success: IntCounterVec,
    /// `vllm_request_error_total`, + `error_type`
    pub error: IntCounterVec,
    /// `vllm_request_cancelled_total`, + `phase`
    pub cancelled: IntCounterVec,
    /// `vllm_input_tokens_per_request`, + `source`
    pub input_tokens: HistogramVec,
    /// `vllm_output_tokens_per_request`, + `source`
    pub output_tokens: HistogramVec,
    /// `vllm_request_time_to_first_token_seconds`
    pub ttft: HistogramVec,
    /// `vllm_request_time_to_first_answer_seconds`
    pub first_answer: HistogramVec,
    /// `vllm_request_inter_token_latency_seconds`
    pub itl: HistogramVec,
    /// `vllm_request_time_per_output_token_seconds`
    pub tpot: HistogramVec,
    /// `vllm_request_longest_stall_seconds`
    pub longest_stall: HistogramVec,
    /// `vllm_request_duration_seconds`
    pub duration: HistogramVec,
    /// `vllm_request_finish_total`, + `finish_reason`
    pub finish: IntCounterVec,
    /// `vllm_requests_in_flight`
    pub in_flight: IntGaugeVec,
    /// `vllm_streams_stalled`
    pub stalled: IntGaugeVec,
    /// `vllm_cached_input_tokens_total`
    pub cached_tokens: IntCounterVec,
    /// `vllm_reasoning_tokens_total`
    pub reasoning_tokens: IntCounterVec,
    /// `vllm_request_queue_seconds`
    pub queue: HistogramVec,
    /// `tokenglass_overhead_seconds`
    pub overhead: Histogram,
    /// `tokenglass_observer_faults_total`, by `reason`
    pub faults: IntCounterVec,
    /// `tokenglass_label_overflow_total`, by `label`
    pub overflow: IntCounterVec,
    /// `tokenglass_downstream_connections`
    pub downstream_connections: IntGauge,
    /// `tokenglass_config_reloads_total`, by `result`
    pub reloads: IntCounterVec,
    upstream_connections: IntGauge,
    open: OpenConnections,
}

/// The `reason` label of `tokenglass_observer_faults_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something in a body that the observer could not read.
    Unreadable,
    /// A bug of ours, contained.
    Panic,
    /// The estimator was too far behind; this request has no token count.
    EstimateDropped,
}

crate::outcome::labels!(Fault {
    Unreadable => "unreadable",
    Panic => "panic",
    EstimateDropped => "estimate_dropped",
});

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Only if the registry already holds one of the names.
    pub fn new(
        registry: &Registry,
        open: OpenConnections,
        max_models: usize,
    ) -> Result<Self, prometheus::Error> {
        let r = registry;
        let metrics = Self {
            models: ModelNames::new(max_models),
            success: counters(r, "vllm_request_success_total", "Requests answered with 2xx and, for a stream, a proper end.", &[])?,
            error: counters(r, "vllm_request_error_total", "Failed requests by the exact kind of failure.", &["error_type"])?,
            cancelled: counters(r, "vllm_request_cancelled_total", "Requests whose client left before it had everything, by how far they had come.", &["phase"])?,
            input_tokens: histograms(r, "vllm_input_tokens_per_request", "Prompt tokens per request, by where the count comes from.", buckets::TOKENS, &["source"])?,
            output_tokens: histograms(r, "vllm_output_tokens_per_request", "Generated tokens per request over all choices, by where the count comes from; partial counts of cancelled streams included.", buckets::TOKENS, &["source"])?,
            ttft: histograms(r, "vllm_request_time_to_first_token_seconds", "Streams: request head received to first frame with generated output.", buckets::TTFT, &[])?,
            first_answer: histograms(r, "vllm_request_time_to_first_answer_seconds", "Streams: request head received to first generated output that is not reasoning.", buckets::TTFT, &[])?,
            itl: histograms(r, "vllm_request_inter_token_latency_seconds", "Streams: time between frames with generated output, per choice.", buckets::ITL, &[])?,
            tpot: histograms(r, "vllm_request_time_per_output_token_seconds", "Streams: (last token - first token) / (output tokens - 1).", buckets::ITL, &[])?,
            longest_stall: histograms(r, "vllm_request_longest_stall_seconds", "Streams: the largest gap between two frames with generated output.", buckets::ITL, &[])?,
            duration: histograms(r, "vllm_request_duration_seconds", "Request head received to last body byte, every request whatever its end.", buckets::DURATION, &[])?,
            finish: counters(r, "vllm_request_finish_total", "Finished choices by vLLM's reason.", &["finish_reason"])?,
            in_flight: gauges(r, "vllm_requests_in_flight", "Requests that upstream has or is being sent, and that have not ended.")?,
            stalled: gauges(r, "vllm_streams_stalled", "Open streams that have been silent for observe.stall_after.")?,
            cached_tokens: counters(r, "vllm_cached_input_tokens_total", "Prompt tokens taken from the prefix cache, where usage says so.", &[])?,
            reasoning_tokens: counters(r, "vllm_reasoning_tokens_total", "Output tokens spent on reasoning, where usage says so.", &[])?,
            queue: histograms(r, "vllm_request_queue_seconds", "Time in vLLM's queue, where its per-request metrics object passes by.", buckets::TTFT, &[])?,
            overhead: register(r, Histogram::with_opts(HistogramOpts::new("tokenglass_overhead_seconds", "Time added by the proxy: request head received to sent upstream, plus response head received to handed to the client.").buckets(buckets::OVERHEAD.to_vec()))?)?,
            faults: register(r, IntCounterVec::new(Opts::new("tokenglass_observer_faults_total", "What the observer could not measure; the traffic went on."), &["reason"])?)?,
            overflow: register(r, IntCounterVec::new(Opts::new("tokenglass_label_overflow_total", "Label values beyond the cap, shown as other."), &["label"])?)?,
            downstream_connections: register(r, IntGauge::new("tokenglass_downstream_connections", "Open client connections.")?)?,
            reloads: register(r, IntCounterVec::new(Opts::new("tokenglass_config_reloads_total", "Configuration reloads by result."), &["result"])?)?,
            upstream_connections: register(r, IntGauge::new("tokenglass_upstream_connections", "Open upstream connections, in use and idle.")?)?,
            open,
            registry: registry.clone(),
        };
        for fault in Fault::ALL {
            metrics.faults.with_label_values(&[fault.as_label()]);
        }
        metrics.overflow.with_label_values(&["model"]);
        for result in ["success", "failure"] {
            metrics.reloads.with_label_values(&[result]);
        }
        build_info(registry)?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// The text exposition, version 0.0.4.
    ///
    /// # Errors
    /// Only if a family is inconsistent in itself.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        self.upstream_connections.set(self.open.get());
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The label for a request's model: what upstream has served or listed, or else `other`.
    pub fn model_label<'a>(&self, record: &'a Record) -> &'a str {
        if let Some(served) = record.served_model.as_deref() {
            return if self.models.admit(served) {
                served
            } else {
                labels::OTHER
            };
        }
        match record.requested_model.as_deref() {
            Some(name) if self.models.knows(name) => name,
            _ => labels::OTHER,
        }
    }

    /// Counts one finished request, but not its tokens.
    pub fn record(&self, record: &Record, series: &Series) {
        match record.outcome {
            Outcome::Success => series.success.inc(),
            Outcome::Error(kind) => series.error(kind).inc(),
            Outcome::Cancelled(phase) => series.cancelled(phase).inc(),
        }
        series.duration.observe(record.duration.as_secs_f64());
        let labels = series.labels();
        let observe = |family: &HistogramVec, value: Option<Duration>| {
            if let Some(value) = value {
                family
                    .with_label_values(&labels)
                    .observe(value.as_secs_f64());
            }
        };
        observe(&self.ttft, record.ttft);
        observe(&self.first_answer, record.first_answer);
        observe(&self.tpot, record.tpot);
        observe(&self.longest_stall, record.longest_stall);
        observe(&self.queue, record.queue);
        let [model, endpoint, stream] = labels;
        for reason in &record.finish_reasons {
            self.finish
                .with_label_values(&[model, endpoint, stream, reason.as_label()])
                .inc();
        }
        for (family, tokens) in [
            (&self.cached_tokens, record.cached_tokens),
            (&self.reasoning_tokens, record.reasoning_tokens),
        ] {
            if let Some(count) = tokens {
                family.with_label_values(&labels).inc_by(count);
            }
        }
    }

    /// Counts a finished request's tokens. Also called off the forwarding path, by the estimator.
    pub fn record_tokens(&self, record: &Record, model: &str) {
        for (family, tokens) in [
            (&self.input_tokens, record.input_tokens),
            (&self.output_tokens, record.output_tokens),
        ] {
            if let Some((count, source)) = tokens {
                let labels = [
                    model,
                    record.endpoint.as_label(),
                    series::stream_label(record.stream),
                    source.as_label(),
                ];
                #[expect(clippy::cast_precision_loss, reason = "no request has 2^52 tokens")]
                family.with_label_values(&labels).observe(count as f64);
            }
        }
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [REQUEST, more].concat()
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    more: &[&'static str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(
        registry,
        IntCounterVec::new(Opts::new(name, help), &with(more))?,
    )
}

fn gauges(registry: &Registry, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    register(registry, IntGaugeVec::new(Opts::new(name, help), REQUEST)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    edges: &[f64],
    more: &[&'static str],
) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(name, help).buckets(edges.to_vec());
    register(registry, HistogramVec::new(opts, &with(more))?)
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let labels = HashMap::from([
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (
            "rustc".to_owned(),
            env!("CARGO_PKG_RUST_VERSION").to_owned(),
        ),
    ]);
    let opts =
        Opts::new("tokenglass_build_info", "1, with the build in the labels.").const_labels(labels);
    register(registry, Gauge::with_opts(opts)?)?.set(1.0);
    Ok(())
}
