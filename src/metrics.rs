//! Everything on `/metrics` that is measured on the wire, and what the proxy says of itself.
//!
//! One struct, built from a registry that is passed in. The names are the contract of dashboards and alerts: they
//! change with a deprecation, not with a refactoring.

pub mod buckets;
mod children;
mod expiry;
mod family;
pub mod labels;
pub mod polled;
pub mod series;
mod totals;
pub mod upstreams;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

pub use children::{Child, Children};
pub use expiry::InUse;
pub use polled::Polled;
pub use series::{Key, LabelValues, Series};
pub use totals::Totals;

use crate::config::Config;
use crate::exposition::{Format, Kind, Writer};
use crate::outcome::Outcome;
use crate::record::Record;
use crate::tenants::Tenants;
use crate::tokens::Direction;
use crate::upstream::OpenConnections;
use expiry::Lives;
use family::{Families, Maker};
use labels::Values;
use upstreams::Upstreams;

/// All families.
#[derive(Debug)]
pub struct Metrics {
    shown: Families,
    /// Label values of `model`.
    pub models: Values,
    /// Tenant labels.
    pub tenants: Tenants,
    lives: Lives,
    /// `vllm_request_success_total`
    pub success: Children<IntCounter>,
    /// `vllm_request_error_total`, + `error_type`
    pub error: Children<IntCounter>,
    /// `vllm_request_cancelled_total`, + `phase`
    pub cancelled: Children<IntCounter>,
    /// `vllm_input_tokens_per_request`, + `source`
    pub input_tokens: Children<Histogram>,
    /// `vllm_output_tokens_per_request`, + `source`
    pub output_tokens: Children<Histogram>,
    /// `vllm_request_time_to_first_token_seconds`
    pub ttft: Children<Histogram>,
    /// `vllm_request_time_to_first_answer_seconds`
    pub first_answer: Children<Histogram>,
    /// `vllm_request_inter_token_latency_seconds`
    pub itl: Children<Histogram>,
    /// `vllm_request_time_per_output_token_seconds`
    pub tpot: Children<Histogram>,
    /// `vllm_request_longest_stall_seconds`
    pub longest_stall: Children<Histogram>,
    /// `vllm_request_duration_seconds`
    pub duration: Children<Histogram>,
    /// `vllm_request_finish_total`, + `finish_reason`
    pub finish: Children<IntCounter>,
    /// `vllm_requests_in_flight`
    pub in_flight: Children<IntGauge>,
    /// `vllm_streams_stalled`
    pub stalled: Children<IntGauge>,
    /// `vllm_cached_input_tokens_total`
    pub cached_tokens: Children<IntCounter>,
    /// `vllm_reasoning_tokens_total`
    pub reasoning_tokens: Children<IntCounter>,
    /// `vllm_request_queue_seconds`
    pub queue: Children<Histogram>,
    /// `tokenglass_estimate_error_ratio`, by `model` and `direction`
    pub estimate_error: HistogramVec,
    /// `vllm_request_frontend_seconds`
    pub frontend: Children<Histogram>,
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
    /// What the pollers learn.
    pub polled: Polled,
    /// What the traffic says of each of several upstreams.
    pub upstreams: Upstreams,
    /// `tokenglass_drain_cut_total`
    pub drain_cut: IntCounter,
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
    /// An injected usage event was beyond taking out, and the client got it.
    NotRestored,
}

crate::outcome::labels!(Fault {
    Unreadable => "unreadable",
    Panic => "panic",
    EstimateDropped => "estimate_dropped",
    NotRestored => "not_restored",
});

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Only if the registry already holds one of the names.
    pub fn new(
        registry: &Registry,
        open: OpenConnections,
        config: &Config,
        tenants: Tenants,
    ) -> Result<Self, prometheus::Error> {
        let make = Maker::new(registry, tenants.names());
        let overflowing = ["model"].into_iter().chain(tenants.names());
        let faults = Fault::ALL.iter().map(|fault| fault.as_label());
        let overflow = make.counters(
            "tokenglass_label_overflow_total",
            "Label values beyond the cap, shown as other.",
            "label",
            overflowing,
        )?;
        make.build_info()?;
        #[cfg(target_os = "linux")]
        make.process()?;
        Ok(Self {
            success: make.requests("vllm_request_success_total", "Requests answered with 2xx and, for a stream, a proper end.", &[])?,
            error: make.requests("vllm_request_error_total", "Failed requests by the exact kind of failure.", &["error_type"])?,
            cancelled: make.requests("vllm_request_cancelled_total", "Requests whose client left before it had everything, by how far they had come.", &["phase"])?,
            input_tokens: make.request_histograms("vllm_input_tokens_per_request", "Prompt tokens per request, by where the count comes from.", buckets::TOKENS, &["source"])?,
            output_tokens: make.request_histograms("vllm_output_tokens_per_request", "Generated tokens per request over all choices, by where the count comes from; partial counts of cancelled streams included.", buckets::TOKENS, &["source"])?,
            ttft: make.request_histograms("vllm_request_time_to_first_token_seconds", "Streams: request head received to first frame with generated output.", buckets::TTFT, &[])?,
            first_answer: make.request_histograms("vllm_request_time_to_first_answer_seconds", "Streams: request head received to first generated output that is not reasoning.", buckets::TTFT, &[])?,
            itl: make.request_histograms("vllm_request_inter_token_latency_seconds", "Streams: time between frames with generated output, per choice.", buckets::ITL, &[])?,
            tpot: make.request_histograms("vllm_request_time_per_output_token_seconds", "Streams: (last token - first token) / (output tokens - 1).", buckets::ITL, &[])?,
            longest_stall: make.request_histograms("vllm_request_longest_stall_seconds", "Streams: the largest gap between two frames with generated output.", buckets::ITL, &[])?,
            duration: make.request_histograms("vllm_request_duration_seconds", "Request head received to last body byte, every request whatever its end.", buckets::DURATION, &[])?,
            finish: make.requests("vllm_request_finish_total", "Finished choices by vLLM's reason.", &["finish_reason"])?,
            in_flight: make.request_gauges("vllm_requests_in_flight", "Requests that upstream has or is being sent, and that have not ended.")?,
            stalled: make.request_gauges("vllm_streams_stalled", "Open streams that have been silent for observe.stall_after.")?,
            cached_tokens: make.requests("vllm_cached_input_tokens_total", "Prompt tokens taken from the prefix cache, where usage says so.", &[])?,
            reasoning_tokens: make.requests("vllm_reasoning_tokens_total", "Output tokens spent on reasoning, where usage says so.", &[])?,
            queue: make.request_histograms("vllm_request_queue_seconds", "Time in vLLM's queue, where its per-request metrics object passes by.", buckets::TTFT, &[])?,
            estimate_error: make.histograms("tokenglass_estimate_error_ratio", "How far counts made without usage are off, as a share of usage, where both are there.", buckets::RATIO, &["model", "direction"])?,
            frontend: make.request_histograms("vllm_request_frontend_seconds", "Streams: time to first token on the wire less vLLM's own queue and prefill, where its per-request metrics object passes by: network and vLLM's frontend.", buckets::TTFT, &[])?,
            overhead: make.histogram("tokenglass_overhead_seconds", "Time added by the proxy: request head received to sent upstream, plus response head received to handed to the client.", buckets::OVERHEAD)?,
            faults: make.counters("tokenglass_observer_faults_total", "What the observer could not measure; the traffic went on.", "reason", faults)?,
            polled: Polled::new(&make, config, overflow.clone())?,
            upstreams: Upstreams::new(&make)?,
            drain_cut: make.counter("tokenglass_drain_cut_total", "Requests that were cut at the end of shutdown.drain_timeout.")?,
            overflow,
            downstream_connections: make.gauge("tokenglass_downstream_connections", "Open client connections.")?,
            reloads: make.counters("tokenglass_config_reloads_total", "Configuration reloads by result.", "result", ["success", "failure"].into_iter())?,
            upstream_connections: make.gauge("tokenglass_upstream_connections", "Open upstream connections, in use and idle.")?,
            open,
            models: Values::new(config.observe.max_models),
            lives: Lives::default(),
            shown: make.finish(),
            tenants,
        })
    }

    /// The text exposition, version 0.0.4, of these families alone.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut out = Writer::new(Format::Text, 0);
        self.write(&mut out);
        out.finish()
    }

    /// All families that have samples.
    pub fn write(&self, out: &mut Writer) {
        self.upstream_connections.set(self.open.get());
        self.upstreams.refresh();
        for family in self.shown.iter() {
            family.write(out);
        }
    }

    /// The names of all families, those without samples too.
    #[must_use]
    pub fn names(&self) -> Vec<(String, Kind)> {
        self.shown
            .iter()
            .flat_map(|family| family.names())
            .collect()
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
            Some(name) if self.models.admit_listed(name) => name,
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
        let key = series.key();
        for (child, family, value) in [
            (&series.ttft, &self.ttft, record.ttft),
            (
                &series.first_answer,
                &self.first_answer,
                record.first_answer,
            ),
            (&series.tpot, &self.tpot, record.tpot),
            (
                &series.longest_stall,
                &self.longest_stall,
                record.longest_stall,
            ),
            (&series.queue, &self.queue, record.queue),
            (&series.frontend, &self.frontend, record.frontend()),
        ] {
            if let Some(value) = value {
                child.get(family, key, &[]).observe(value.as_secs_f64());
            }
        }
        for reason in &record.finish_reasons {
            if let Some(child) = series.finish.get(*reason as usize) {
                child.get(&self.finish, key, &[reason.as_label()]).inc();
            }
        }
        if let Some(count) = record.cached_tokens {
            let child = &series.cached_tokens;
            child.get(&self.cached_tokens, key, &[]).inc_by(count);
        }
        if let Some(count) = record.reasoning_tokens {
            let child = &series.reasoning_tokens;
            child.get(&self.reasoning_tokens, key, &[]).inc_by(count);
        }
    }

    /// Counts a finished request's tokens.
    pub fn record_tokens(&self, record: &Record, series: &Series) {
        for (children, family, tokens) in [
            (
                &series.input_tokens,
                &self.input_tokens,
                record.input_tokens,
            ),
            (
                &series.output_tokens,
                &self.output_tokens,
                record.output_tokens,
            ),
        ] {
            if let Some((count, source)) = tokens
                && let Some(child) = children.get(source as usize)
            {
                let child = child.get(family, series.key(), &[source.as_label()]);
                child.observe(tokens_as_value(count));
            }
        }
    }

    /// A count was made beside usage, and was off by `share` of it, either way.
    pub fn record_estimate_error(&self, model: &str, direction: Direction, share: f64) {
        let model = if self.models.knows(model) {
            model
        } else {
            labels::OTHER
        };
        self.estimate_error
            .with_label_values(&[model, direction.as_label()])
            .observe(share.abs());
    }

    /// [`Metrics::record_tokens`] off the forwarding path, by the estimator, for a record that was finished a while ago:
    /// its series are on `/metrics`, or are again.
    pub fn record_late(&self, record: &Record) {
        let key = Key::of(record, self.model_label(record));
        let _life = self.lives.get(&key);
        for (family, tokens) in [
            (&self.input_tokens, record.input_tokens),
            (&self.output_tokens, record.output_tokens),
        ] {
            if let Some((count, source)) = tokens {
                let child = family.with_label_values(&key.values(&[source.as_label()]));
                child.observe(tokens_as_value(count));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no request has 2^52 tokens")]
fn tokens_as_value(count: u64) -> f64 {
    count as f64
}
