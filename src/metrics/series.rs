//! The resolved children of one (model, endpoint, stream): looking them up costs more than counting.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::Metrics;
use crate::classify::Endpoint;
use crate::outcome::{ErrorType, Phase};

/// What a request of this kind touches on its way.
#[derive(Debug)]
pub struct Series {
    model: Box<str>,
    endpoint: Endpoint,
    stream: bool,
    pub(super) success: IntCounter,
    pub(super) duration: Histogram,
    /// `vllm_requests_in_flight`
    pub in_flight: IntGauge,
    errors: Vec<IntCounter>,
    cancelled: Vec<IntCounter>,
}

impl Series {
    /// Resolves the children. Counters of failures are born at 0, so that `rate()` sees the first failure.
    #[must_use]
    pub fn new(metrics: &Metrics, model: &str, endpoint: Endpoint, stream: bool) -> Self {
        let labels = [model, endpoint.as_label(), stream_label(stream)];
        let [model_label, endpoint_label, stream_value] = labels;
        let more = |value| [model_label, endpoint_label, stream_value, value];
        Self {
            model: model.into(),
            endpoint,
            stream,
            success: metrics.success.with_label_values(&labels),
            duration: metrics.duration.with_label_values(&labels),
            in_flight: metrics.in_flight.with_label_values(&labels),
            errors: ErrorType::ALL
                .iter()
                .map(|kind| metrics.error.with_label_values(&more(kind.as_label())))
                .collect(),
            cancelled: Phase::ALL
                .iter()
                .map(|phase| metrics.cancelled.with_label_values(&more(phase.as_label())))
                .collect(),
        }
    }

    /// Label values in the order of the families.
    #[must_use]
    pub fn labels(&self) -> [&str; 3] {
        [
            &self.model,
            self.endpoint.as_label(),
            stream_label(self.stream),
        ]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "one child for each variant, in the order of the enum"
    )]
    pub(super) fn error(&self, kind: ErrorType) -> &IntCounter {
        &self.errors[kind as usize]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "one child for each variant, in the order of the enum"
    )]
    pub(super) fn cancelled(&self, phase: Phase) -> &IntCounter {
        &self.cancelled[phase as usize]
    }
}

pub(super) fn stream_label(stream: bool) -> &'static str {
    if stream { "true" } else { "false" }
}
