//! Pollers that do not keep step with each other.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// `interval`, give or take a tenth: many proxies must not ask one vLLM in step.
pub(crate) fn jittered(interval: Duration) -> Duration {
    // A hasher is keyed at random: no generator is needed for this.
    let random = RandomState::new().hash_one(0_u8) % 2001;
    #[expect(clippy::cast_precision_loss, reason = "at most 2000")]
    let share = 0.9 + random as f64 / 10_000.0;
    interval.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_at_most() {
        for _ in 0..1000 {
            let interval = jittered(Duration::from_secs(10)).as_secs_f64();
            assert!((9.0..=11.001).contains(&interval), "{interval}");
        }
    }
}
