//! The resolved children of one (model, endpoint, stream, tenant): looking them up costs more than counting.

use std::cell::OnceCell;
use std::sync::Arc;

use prometheus::{Histogram, IntCounter, IntGauge};
use smallvec::SmallVec;

use super::expiry::Life;
use super::{Child, Children, Metrics};
use crate::classify::Endpoint;
use crate::outcome::{ErrorType, Phase, TokenSource};
use crate::record::{FinishReason, Record};
use crate::tenants::TenantValues;

/// Which series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// A label value, not any name.
    pub model: Box<str>,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Streams, or not.
    pub stream: bool,
    /// In the order of the tenant labels.
    pub tenants: TenantValues,
}

/// Label values in the order of the families.
pub type LabelValues<'a> = SmallVec<[&'a str; 6]>;

/// What a request of this kind touches on its way. It is one worker's own.
#[derive(Debug)]
pub struct Series {
    key: Key,
    /// Whether it is still on `/metrics`.
    pub(super) life: Arc<Life>,
    pub(super) success: IntCounter,
    pub(super) duration: Histogram,
    /// `vllm_requests_in_flight`
    pub in_flight: IntGauge,
    errors: Vec<IntCounter>,
    cancelled: Vec<IntCounter>,
    pub(super) ttft: Late<Histogram>,
    pub(super) first_answer: Late<Histogram>,
    pub(super) tpot: Late<Histogram>,
    pub(super) longest_stall: Late<Histogram>,
    pub(super) queue: Late<Histogram>,
    pub(super) frontend: Late<Histogram>,
    pub(super) cached_tokens: Late<IntCounter>,
    pub(super) reasoning_tokens: Late<IntCounter>,
    pub(super) finish: [Late<IntCounter>; FinishReason::ALL.len()],
    pub(super) input_tokens: [Late<Histogram>; TokenSource::ALL.len()],
    pub(super) output_tokens: [Late<Histogram>; TokenSource::ALL.len()],
    itl: Late<Histogram>,
    stalled: Late<IntGauge>,
}

/// A child that is born when it is first counted on, so that no series is shown of what has never been.
#[derive(Debug)]
pub(super) struct Late<M>(OnceCell<M>);

impl Key {
    /// The series of a finished request under the label `model`.
    #[must_use]
    pub fn of(record: &Record, model: &str) -> Self {
        Self {
            model: model.into(),
            endpoint: record.endpoint,
            stream: record.stream,
            tenants: record.tenants.clone(),
        }
    }

    /// The label values, and `more` behind them.
    #[must_use]
    pub fn values<'a>(&'a self, more: &[&'a str]) -> LabelValues<'a> {
        let stream = if self.stream { "true" } else { "false" };
        let mut values = LabelValues::from_slice(&[&self.model, self.endpoint.as_label(), stream]);
        values.extend(self.tenants.iter().map(|value| &**value));
        values.extend_from_slice(more);
        values
    }
}

impl Series {
    /// Resolves the children. Counters of failures are born at 0, so that `rate()` sees the first failure.
    #[must_use]
    pub fn new(metrics: &Metrics, key: &Key) -> Self {
        let life = metrics.lives.get(key);
        let plain = &key.values(&[])[..];
        Self {
            life,
            success: metrics.success.with_label_values(plain),
            duration: metrics.duration.with_label_values(plain),
            in_flight: metrics.in_flight.with_label_values(plain),
            errors: ErrorType::ALL
                .iter()
                .map(|kind| {
                    metrics
                        .error
                        .with_label_values(&key.values(&[kind.as_label()]))
                })
                .collect(),
            cancelled: Phase::ALL
                .iter()
                .map(|phase| {
                    metrics
                        .cancelled
                        .with_label_values(&key.values(&[phase.as_label()]))
                })
                .collect(),
            ttft: Late::new(),
            first_answer: Late::new(),
            tpot: Late::new(),
            longest_stall: Late::new(),
            queue: Late::new(),
            frontend: Late::new(),
            cached_tokens: Late::new(),
            reasoning_tokens: Late::new(),
            finish: [const { Late::new() }; _],
            input_tokens: [const { Late::new() }; _],
            output_tokens: [const { Late::new() }; _],
            itl: Late::new(),
            stalled: Late::new(),
            key: key.clone(),
        }
    }

    /// Whether it has left `/metrics`.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.life.is_dead()
    }

    /// Which series these are.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// `vllm_request_inter_token_latency_seconds`
    pub fn itl(&self, metrics: &Metrics) -> &Histogram {
        self.itl.get(&metrics.itl, &self.key, &[])
    }

    /// `vllm_streams_stalled`
    pub fn stalled(&self, metrics: &Metrics) -> &IntGauge {
        self.stalled.get(&metrics.stalled, &self.key, &[])
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

impl<M: Child> Late<M> {
    const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// The child of the key's values, and `more` behind them.
    #[inline]
    pub(super) fn get(&self, family: &Children<M>, key: &Key, more: &[&str]) -> &M {
        self.0
            .get_or_init(|| family.with_label_values(&key.values(more)))
    }
}
