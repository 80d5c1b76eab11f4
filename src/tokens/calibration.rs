//! From tiktoken's counts to a model's, learned wherever usage passes by.
//!
//! One ratio for a model would trade one kind of text for another: a tokenizer that is made for Chinese needs as many
//! tokens as tiktoken for English and half as many for Chinese. So an estimate is a sum of features, each with a weight
//! of its own for each model and direction, and the weights are those of least squares over the samples so far, old
//! ones fading. A sample counts by its length: with one feature that would be Σ usage / Σ estimate, the ratio that makes
//! the sum of the estimates right, which is what a counter adds up.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter::Sum;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

/// Models that weights are kept for. Further ones go without.
const MODELS: usize = 256;

/// What a sample is still worth after the next: the last 500 count for two thirds. Texts differ more than models change.
const FADE: f64 = 0.998;

/// Tokens that speak for the weights that every model begins with, so that one odd short answer is not believed.
const PRIOR: f64 = 64.0;

/// One sample beyond this share of what is known is cut to it: tokens that a parser swallowed or a template added are
/// not the tokenizer's.
const ODD: f64 = 2.0;

/// Samples that are taken as they are before `ODD` applies.
const TRUSTING: u32 = 20;

/// No tokenizer is farther from another.
const RANGE: std::ops::RangeInclusive<f64> = 0.1..=10.0;

/// What of a text the estimate is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// tiktoken's tokens, without the following.
    pub(super) narrow: u64,
    /// Those of its characters beyond ASCII.
    pub(super) wide: u64,
    /// Digits: tiktoken has up to three in a token, others one.
    pub(super) digits: u64,
}

const FEATURES: usize = 3;

/// As they are before anything is learned: tiktoken's own count.
const PLAIN: [f64; FEATURES] = [1.0, 1.0, 0.0];

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

/// The weights. On the estimator's thread.
#[derive(Debug, Default)]
pub(super) struct Calibration(HashMap<Box<str>, [Fit; 2]>);

/// Least squares, as it goes: the weights `w` solve `squares × w = products`.
#[derive(Clone, Copy, Debug)]
struct Fit {
    squares: [[f64; FEATURES]; FEATURES],
    products: [f64; FEATURES],
    weights: [f64; FEATURES],
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

// === impl Features ===

impl Features {
    /// tiktoken's count.
    pub(super) fn count(self) -> u64 {
        self.narrow.saturating_add(self.wide)
    }

    /// Tokens of no text: a template's, or the one that ends an answer.
    pub(super) fn tokens(count: u64) -> Self {
        Self {
            narrow: count,
            ..Self::default()
        }
    }

    fn values(self) -> [f64; FEATURES] {
        [self.narrow as f64, self.wide as f64, self.digits as f64]
    }
}

impl Add for Features {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            narrow: self.narrow.saturating_add(other.narrow),
            wide: self.wide.saturating_add(other.wide),
            digits: self.digits.saturating_add(other.digits),
        }
    }
}

impl Sum for Features {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

// === impl Calibration ===

impl Calibration {
    /// The estimate, corrected.
    pub(super) fn apply(&self, model: &str, direction: Direction, text: Features) -> u64 {
        match self.0.get(model) {
            Some(fits) => fits[direction as usize].apply(text).round() as u64,
            None => text.count(),
        }
    }

    /// A text and its true count. Answers the error that the corrected estimate had, as a share of the truth.
    pub(super) fn learn(
        &mut self,
        model: &str,
        direction: Direction,
        text: Features,
        usage: u64,
    ) -> Option<f64> {
        if text.count() == 0 || usage == 0 {
            return None;
        }
        if !self.0.contains_key(model) {
            if self.0.len() >= MODELS {
                return None;
            }
            self.0.insert(model.into(), [Fit::default(); 2]);
        }
        let fit = &mut self.0.get_mut(model)?[direction as usize];
        let error = relative_error(fit.apply(text).round() as u64, usage);
        fit.learn(text, usage as f64);
        Some(error)
    }
}

/// |estimate − truth| / truth.
pub(super) fn relative_error(estimate: u64, truth: u64) -> f64 {
    estimate.abs_diff(truth) as f64 / truth.max(1) as f64
}

// === impl Fit ===

impl Default for Fit {
    fn default() -> Self {
        let mut fit = Self {
            squares: [[0.0; FEATURES]; FEATURES],
            products: [0.0; FEATURES],
            weights: PLAIN,
            samples: 0,
        };
        fit.add_prior(1.0);
        fit
    }
}

impl Fit {
    fn apply(&self, text: Features) -> f64 {
        let count = text.count() as f64;
        let sum: f64 = self
            .weights
            .iter()
            .zip(text.values())
            .map(|(weight, value)| weight * value)
            .sum();
        sum.clamp(count * RANGE.start(), count * RANGE.end())
    }

    fn learn(&mut self, text: Features, usage: f64) {
        let (count, expected) = (text.count() as f64, self.apply(text));
        let usage = if self.samples < TRUSTING {
            usage.clamp(count * RANGE.start(), count * RANGE.end())
        } else {
            usage.clamp(expected / ODD, expected * ODD)
        };
        let values = text.values();
        for (row, value) in values.iter().enumerate() {
            for (cell, other) in self.squares[row].iter_mut().zip(values) {
                *cell = *cell * FADE + value * other / count;
            }
            self.products[row] = self.products[row] * FADE + value * usage / count;
        }
        // The prior does not fade: of a feature that is seldom seen it is all there is.
        self.add_prior(1.0 - FADE);
        self.samples = self.samples.saturating_add(1);
        if let Some(weights) = solve(self.squares, self.products) {
            self.weights = weights;
        }
    }

    fn add_prior(&mut self, share: f64) {
        for (row, weight) in PLAIN.iter().enumerate() {
            self.squares[row][row] += PRIOR * share;
            self.products[row] += PRIOR * share * weight;
        }
    }
}

/// Gauss's elimination. The matrix has the prior on its diagonal and so can always be solved, but for rounding.
fn solve(
    mut squares: [[f64; FEATURES]; FEATURES],
    mut products: [f64; FEATURES],
) -> Option<[f64; FEATURES]> {
    for pivot in 0..FEATURES {
        let row = squares[pivot];
        for below in pivot + 1..FEATURES {
            let share = squares[below][pivot] / row[pivot];
            for (cell, above) in squares[below].iter_mut().zip(row) {
                *cell -= share * above;
            }
            products[below] -= share * products[pivot];
        }
    }
    let mut weights = [0.0; FEATURES];
    for row in (0..FEATURES).rev() {
        let known: f64 = (row + 1..FEATURES)
            .map(|column| squares[row][column] * weights[column])
            .sum();
        weights[row] = (products[row] - known) / squares[row][row];
    }
    weights
        .iter()
        .all(|weight| weight.is_finite())
        .then_some(weights)
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

    fn text(narrow: u64, wide: u64) -> Features {
        Features {
            narrow,
            wide,
            digits: 0,
        }
    }

    #[test]
    fn weights_are_learned_for_each_direction() {
        let mut all = Calibration::default();
        assert_eq!(all.apply("m", Direction::Output, text(100, 0)), 100);
        let first = all
            .learn("m", Direction::Output, text(100, 0), 150)
            .unwrap();
        assert!((first - 1.0 / 3.0).abs() < 1e-9, "{first}");
        for _ in 0..200 {
            all.learn("m", Direction::Output, text(100, 0), 150);
        }
        assert_eq!(all.apply("m", Direction::Output, text(100, 0)), 150);
        assert_eq!(all.apply("m", Direction::Input, text(100, 0)), 100);
        assert_eq!(all.apply("other", Direction::Output, text(100, 0)), 100);
        let error = all.learn("m", Direction::Output, text(100, 0), 150);
        assert!(error.unwrap() < 0.01);
    }

    #[test]
    fn kinds_of_text_are_told_apart() {
        let mut all = Calibration::default();
        for _ in 0..200 {
            all.learn("m", Direction::Output, text(1000, 0), 1000);
            all.learn("m", Direction::Output, text(100, 900), 550);
            let digits = Features {
                digits: 300,
                ..text(200, 0)
            };
            all.learn("m", Direction::Output, digits, 400);
        }
        let apply = |text| all.apply("m", Direction::Output, text);
        assert!(apply(text(1000, 0)).abs_diff(1000) <= 2);
        assert!(apply(text(0, 1000)).abs_diff(500) <= 2);
        assert!(
            apply(Features {
                digits: 300,
                ..text(200, 0)
            })
            .abs_diff(400)
                <= 2
        );
    }

    #[test]
    fn odd_samples_move_it_little() {
        let mut all = Calibration::default();
        for _ in 0..100 {
            all.learn("m", Direction::Input, text(100, 0), 100);
        }
        all.learn("m", Direction::Input, text(10, 0), 100_000);
        assert_eq!(all.apply("m", Direction::Input, text(1000, 0)), 1001);
        assert_eq!(all.learn("m", Direction::Input, text(0, 0), 5), None);
        assert_eq!(all.learn("m", Direction::Input, text(5, 0), 0), None);
        // What has changed for good is followed all the same.
        for _ in 0..3000 {
            all.learn("m", Direction::Input, text(100, 0), 300);
        }
        assert!(all.apply("m", Direction::Input, text(100, 0)) > 290);
        let huge = Features {
            digits: u64::MAX,
            ..text(u64::MAX, u64::MAX)
        };
        all.learn("m", Direction::Input, huge, u64::MAX);
        all.apply("m", Direction::Input, huge);
    }

    #[test]
    fn models_are_bounded() {
        let mut all = Calibration::default();
        for i in 0..2 * MODELS {
            all.learn(&i.to_string(), Direction::Input, text(100, 0), 200);
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
