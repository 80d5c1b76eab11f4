//! What an estimate has to be multiplied by, learned wherever usage passes by.
//!
//! For each model and direction Σ usage / Σ estimate, with old samples fading: the ratio that makes the sum of
//! estimates right, which is what is added up in a counter.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// Models that ratios are kept for. Further ones go without.
const MODELS: usize = 256;

/// What a sample is still worth after the next: the last 500 count for two thirds. Texts differ more than models change.
const FADE: f64 = 0.998;

/// Tokens at a ratio of 1 that every model begins with, so that one odd short answer is not believed.
const PRIOR: f64 = 64.0;

/// One sample beyond this share of what is known is cut to it: an image in a prompt, or tokens that a parser swallowed,
/// are not the tokenizer's ratio.
const ODD: f64 = 2.0;

/// Samples that are taken as they are before `ODD` applies.
const TRUSTING: u32 = 20;

/// No tokenizer is farther from another.
const RANGE: std::ops::RangeInclusive<f64> = 0.1..=10.0;

/// Which side of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The prompt.
    Input,
    /// What was generated.
    Output,
}

crate::outcome::labels!(Direction {
    Input => "input",
    Output => "output",
});

/// The ratios. On the estimator's thread.
#[derive(Debug, Default)]
pub(super) struct Calibration(HashMap<Box<str>, [Ratio; 2]>);

#[derive(Clone, Copy, Debug)]
struct Ratio {
    usage: f64,
    estimate: f64,
    samples: u32,
}

/// Which requests to learn from: shared, and asked on the forwarding path.
///
/// A fixed table, so that names made up by clients cost nothing; models that share a slot share its samples.
#[derive(Debug)]
pub(super) struct Sampler([AtomicU64; SLOTS]);

const SLOTS: usize = 256;

/// Samples taken at once.
const FIRST: u64 = 50;

/// Then one within this time.
const EVERY_MS: u64 = 1000;

/// A slot has the samples so far in its upper bits, up to `FIRST`, and below the time of the last in milliseconds.
const TIME_BITS: u32 = 56;

// === impl Calibration ===

impl Calibration {
    /// The estimate, corrected.
    pub(super) fn apply(&self, model: &str, direction: Direction, estimate: u64) -> u64 {
        match self.0.get(model) {
            Some(ratios) => ratios[direction as usize].apply(estimate),
            None => estimate,
        }
    }

    /// An estimate and the truth. Answers the error that the corrected estimate had, as a share of the truth.
    pub(super) fn learn(
        &mut self,
        model: &str,
        direction: Direction,
        estimate: u64,
        usage: u64,
    ) -> Option<f64> {
        if estimate == 0 || usage == 0 {
            return None;
        }
        if !self.0.contains_key(model) {
            if self.0.len() >= MODELS {
                return None;
            }
            self.0.insert(model.into(), [Ratio::default(); 2]);
        }
        let ratio = &mut self.0.get_mut(model)?[direction as usize];
        let error = relative_error(ratio.apply(estimate), usage);
        ratio.learn(estimate as f64, usage as f64);
        Some(error)
    }
}

/// |estimate − truth| / truth.
pub(super) fn relative_error(estimate: u64, truth: u64) -> f64 {
    estimate.abs_diff(truth) as f64 / truth.max(1) as f64
}

// === impl Ratio ===

impl Default for Ratio {
    fn default() -> Self {
        Self {
            usage: PRIOR,
            estimate: PRIOR,
            samples: 0,
        }
    }
}

impl Ratio {
    fn factor(&self) -> f64 {
        (self.usage / self.estimate).clamp(*RANGE.start(), *RANGE.end())
    }

    fn apply(&self, estimate: u64) -> u64 {
        (estimate as f64 * self.factor()).round() as u64
    }

    fn learn(&mut self, estimate: f64, usage: f64) {
        let expected = estimate * self.factor();
        let usage = if self.samples < TRUSTING {
            usage.clamp(estimate * RANGE.start(), estimate * RANGE.end())
        } else {
            usage.clamp(expected / ODD, expected * ODD)
        };
        self.usage = self.usage * FADE + usage;
        self.estimate = self.estimate * FADE + estimate;
        self.samples = self.samples.saturating_add(1);
    }
}

// === impl Sampler ===

impl Default for Sampler {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; SLOTS])
    }
}

impl Sampler {
    /// Whether to learn from this request, `now` in milliseconds since the start. A yes is counted.
    pub(super) fn wants(&self, model: &str, now: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        model.hash(&mut hasher);
        let Some(slot) = self.0.get((hasher.finish() % SLOTS as u64) as usize) else {
            return false;
        };
        let old = slot.load(Ordering::Relaxed);
        let (samples, last) = (old >> TIME_BITS, old & ((1 << TIME_BITS) - 1));
        if samples >= FIRST && now.saturating_sub(last) < EVERY_MS {
            return false;
        }
        let new = ((samples + 1).min(FIRST) << TIME_BITS) | (now & ((1 << TIME_BITS) - 1));
        // Another worker was faster: it has the sample.
        slot.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_learned_for_each_direction() {
        let mut all = Calibration::default();
        assert_eq!(all.apply("m", Direction::Output, 100), 100);
        let first = all.learn("m", Direction::Output, 100, 150).unwrap();
        assert!((first - 1.0 / 3.0).abs() < 1e-9, "{first}");
        for _ in 0..200 {
            all.learn("m", Direction::Output, 100, 150);
        }
        assert_eq!(all.apply("m", Direction::Output, 100), 150);
        assert_eq!(all.apply("m", Direction::Input, 100), 100);
        assert_eq!(all.apply("other", Direction::Output, 100), 100);
        assert!(all.learn("m", Direction::Output, 100, 150).unwrap() < 0.01);
    }

    #[test]
    fn odd_samples_move_it_little() {
        let mut all = Calibration::default();
        for _ in 0..100 {
            all.learn("m", Direction::Input, 100, 100);
        }
        all.learn("m", Direction::Input, 10, 100_000);
        assert_eq!(all.apply("m", Direction::Input, 1000), 1001);
        assert_eq!(all.learn("m", Direction::Input, 0, 5), None);
        assert_eq!(all.learn("m", Direction::Input, 5, 0), None);
        // What has changed for good is followed all the same.
        for _ in 0..3000 {
            all.learn("m", Direction::Input, 100, 300);
        }
        assert!(all.apply("m", Direction::Input, 100) > 290);
        all.apply("m", Direction::Input, u64::MAX);
    }

    #[test]
    fn models_are_bounded() {
        let mut all = Calibration::default();
        for i in 0..2 * MODELS {
            all.learn(&i.to_string(), Direction::Input, 100, 200);
        }
        assert_eq!(all.0.len(), MODELS);
    }

    #[test]
    fn samples_are_rare_after_the_first() {
        let sampler = Sampler::default();
        let taken = (0..1000).filter(|_| sampler.wants("m", 5)).count();
        assert_eq!(taken as u64, FIRST);
        assert!(!sampler.wants("m", 1004));
        assert!(sampler.wants("m", 1005));
        assert!(!sampler.wants("m", 1006));
        assert!(sampler.wants("other", 1006));
        assert!(!sampler.wants("m", 0), "a clock that goes back");
    }
}
