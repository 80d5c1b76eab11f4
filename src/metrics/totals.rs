//! A few figures over everything, for a line of text.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::{Child, Children, Metrics};

/// Sums over all labels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests that succeeded.
    pub success: u64,
    /// Requests that failed.
    pub error: u64,
    /// Requests whose client left.
    pub cancelled: u64,
    /// Requests that have not ended.
    pub in_flight: i64,
    /// Generated tokens, estimates included.
    pub output_tokens: f64,
    /// Mean time to first token.
    pub mean_ttft: Duration,
    /// Mean gap between frames.
    pub mean_itl: Duration,
}

impl Metrics {
    /// Sums over all labels, for a line of text.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and positive"
    )]
    pub fn totals(&self) -> Totals {
        let counter = |family: &Children<IntCounter>| sum(family, |m| m.get() as f64);
        let histogram = |family: &Children<Histogram>| {
            let total = sum(family, Histogram::get_sample_sum);
            (total, sum(family, |m| m.get_sample_count() as f64))
        };
        let mean = |family: &Children<Histogram>| {
            let (total, count) = histogram(family);
            Duration::try_from_secs_f64(total / count.max(1.0)).unwrap_or_default()
        };
        Totals {
            success: counter(&self.success) as u64,
            error: counter(&self.error) as u64,
            cancelled: counter(&self.cancelled) as u64,
            in_flight: sum(&self.in_flight, |m| m.get() as f64) as i64,
            output_tokens: histogram(&self.output_tokens).0,
            mean_ttft: mean(&self.ttft),
            mean_itl: mean(&self.itl),
        }
    }
}

/// The sum of one figure over all series of a family.
fn sum<M: Child>(family: &Children<M>, figure: impl Fn(&M) -> f64) -> f64 {
    family.all().iter().map(|(_, child)| figure(child)).sum()
}
