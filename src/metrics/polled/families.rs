//! The families themselves.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::super::buckets;
use super::super::children::Children;
use super::super::family::Maker;

#[derive(Debug)]
pub(super) struct Families {
    pub(super) up: IntGaugeVec,
    pub(super) loaded: IntGaugeVec,
    pub(super) available: IntGaugeVec,
    pub(super) available_total: IntGaugeVec,
    pub(super) info: Children<IntGauge>,
    pub(super) length: Children<IntGauge>,
    pub(super) version: Children<IntGauge>,
    pub(super) load: GaugeVec,
    pub(super) stalled: IntGaugeVec,
    pub(super) latency: HistogramVec,
    pub(super) probe_success: IntCounterVec,
    pub(super) probe_error: IntCounterVec,
    pub(super) scrape_duration: GaugeVec,
    pub(super) scrape_errors: IntCounterVec,
    pub(super) unaccounted: IntCounterVec,
    pub(super) reopened: IntCounterVec,
}

impl Families {
    pub(super) fn new(make: &Maker<'_>, labelled: bool) -> Result<Self, prometheus::Error> {
        let labels = |more: &[&'static str]| -> Vec<&str> {
            let upstream = labelled.then_some("upstream");
            upstream.into_iter().chain(more.iter().copied()).collect()
        };
        Ok(Self {
            up: make.gauges("vllm_service_up", "Whether vLLM can be reached: 1 with any HTTP answer to /health, 0 with none in time.", &labels(&[]))?,
            loaded: make.gauges("vllm_model_loaded", "Whether /health says 2xx and /v1/models lists a model; /health alone where the list is refused (401, 403).", &labels(&[]))?,
            available: make.gauges("vllm_available_models", "Models that /v1/models lists, LoRA adapters included.", &labels(&[]))?,
            available_total: make.gauges("vllm_available_models_total", "The same as vllm_available_models. A gauge, in spite of its name.", &labels(&[]))?,
            info: make.free_gauges("vllm_model_info", "1 for each model that /v1/models lists, up to observe.max_models.", &labels(&["id", "owned_by", "root"]))?,
            length: make.free_gauges("vllm_max_model_len", "Longest context of a listed model, in tokens.", &labels(&["id"]))?,
            version: make.free_gauges("vllm_version_info", "1, with vLLM's version in the label.", &labels(&["version"]))?,
            load: make.floats("vllm_server_load", "Requests that vLLM says it is serving, by /load. Stays 0 without --enable-server-load-tracking.", &labels(&[]))?,
            stalled: make.gauges("vllm_engine_stalled", "1 if requests are in flight and for health.stalled_after no token came and the engine's own counters stood still.", &labels(&[]))?,
            latency: make.histograms("vllm_health_check_latency_seconds", "Time that /health took to answer, whatever it answered.", buckets::PROBE, &labels(&[]))?,
            probe_success: make.counter_vec("vllm_probe_request_success_total", "Requests to /health and /v1/models that were answered with 2xx.", &labels(&[]))?,
            probe_error: make.counter_vec("vllm_probe_request_error_total", "Requests to /health and /v1/models that were not, by how they failed.", &labels(&["error_type"]))?,
            scrape_duration: make.floats("vllm_exporter_scrape_duration_seconds", "How long the last request to this endpoint of vLLM took, successful or not.", &labels(&["endpoint"]))?,
            scrape_errors: make.counter_vec("vllm_exporter_scrape_errors_total", "Requests to this endpoint of vLLM that brought nothing of use.", &labels(&["endpoint"]))?,
            unaccounted: make.counter_vec("vllm_unaccounted_tokens_total", "Tokens that vLLM's own counters have and that did not pass the proxy: traffic that bypasses it. Readings with requests of unknown count are left out.", &labels(&["direction"]))?,
            reopened: make.counter_vec("tokenglass_unaccounted_reopened_total", "Readings that are left out of vllm_unaccounted_tokens_total, since a request had ended whose tokens nobody knows.", &labels(&[]))?,
        })
    }
}
