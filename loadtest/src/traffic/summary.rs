//! What a run gave.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use super::record::Record;

/// The result of a run.
#[derive(Debug)]
pub struct Summary {
    /// Requests by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// How long the run took.
    pub wall: Duration,
    /// Body bytes received.
    pub bytes: u64,
    /// Token frames received.
    pub token_frames: u64,
    /// Every request in the order of their ends, if the plan keeps them.
    pub records: Vec<Record>,
    ttft: Sample,
    itl: Sample,
    e2e: Sample,
    keep: bool,
}

/// Of some quantity, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Values seen.
    pub count: u64,
    /// Half are below.
    pub p50: f64,
    /// 90 of 100 are.
    pub p90: f64,
    /// 99 of 100 are.
    pub p99: f64,
    /// None is above (of those sampled).
    pub max: f64,
}

/// A uniform sample of bounded size: a run may last for days.
#[derive(Debug)]
struct Sample {
    values: Vec<f32>,
    seen: u64,
    rng: StdRng,
}

#[derive(Serialize)]
struct Report<'a> {
    requests: u64,
    errors: u64,
    wall_s: f64,
    requests_per_s: f64,
    token_frames_per_s: f64,
    bytes: u64,
    outcomes: &'a BTreeMap<String, u64>,
    ttft_ms: Percentiles,
    itl_ms: Percentiles,
    e2e_ms: Percentiles,
}

const SAMPLE: usize = 200_000;

// === impl Summary ===

impl Summary {
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            outcomes: BTreeMap::new(),
            wall: Duration::ZERO,
            bytes: 0,
            token_frames: 0,
            records: Vec::new(),
            ttft: Sample::new(),
            itl: Sample::new(),
            e2e: Sample::new(),
            keep,
        }
    }

    pub(crate) fn add(&mut self, record: Record) {
        *self.outcomes.entry(record.outcome.as_label()).or_default() += 1;
        self.bytes += record.bytes;
        self.token_frames += u64::from(record.token_frames);
        let ms = |duration: Duration| duration.as_secs_f32() * 1e3;
        if let Some(ttft) = record.ttft {
            self.ttft.add(ms(ttft));
        }
        self.e2e.add(ms(record.e2e));
        for itl in &record.itl_ms {
            self.itl.add(*itl);
        }
        if self.keep {
            self.records.push(record);
        }
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Requests with this outcome's label.
    #[must_use]
    pub fn count(&self, label: &str) -> u64 {
        self.outcomes.get(label).copied().unwrap_or(0)
    }

    /// Requests that did not go well; those that we left on purpose did.
    #[must_use]
    pub fn errors(&self) -> u64 {
        let bad = |label: &str| label != "ok" && !label.starts_with("cancelled_");
        let bad = self.outcomes.iter().filter(|(label, _)| bad(label));
        bad.map(|(_, count)| count).sum()
    }

    /// Time to first token.
    #[must_use]
    pub fn ttft(&self) -> Percentiles {
        self.ttft.percentiles()
    }

    /// Time between token frames.
    #[must_use]
    pub fn itl(&self) -> Percentiles {
        self.itl.percentiles()
    }

    /// Time to the end.
    #[must_use]
    pub fn e2e(&self) -> Percentiles {
        self.e2e.percentiles()
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.report()).unwrap_or_default()
    }

    fn report(&self) -> Report<'_> {
        let wall = self.wall.as_secs_f64().max(f64::MIN_POSITIVE);
        Report {
            requests: self.requests(),
            errors: self.errors(),
            wall_s: wall,
            requests_per_s: self.requests() as f64 / wall,
            token_frames_per_s: self.token_frames as f64 / wall,
            bytes: self.bytes,
            outcomes: &self.outcomes,
            ttft_ms: self.ttft(),
            itl_ms: self.itl(),
            e2e_ms: self.e2e(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report();
        writeln!(
            f,
            "{} requests in {:.2} s: {:.0} requests/s, {:.0} token frames/s, {} body bytes",
            report.requests,
            report.wall_s,
            report.requests_per_s,
            report.token_frames_per_s,
            report.bytes,
        )?;
        let share = 100.0 / report.requests.max(1) as f64;
        writeln!(
            f,
            "{} errors ({:.2} %)",
            report.errors,
            report.errors as f64 * share
        )?;
        for (outcome, count) in &self.outcomes {
            let percent = *count as f64 * share;
            writeln!(f, "  {outcome:<32} {count:>9}  {percent:>6.2} %")?;
        }
        let rows = [
            ("ttft", report.ttft_ms),
            ("itl", report.itl_ms),
            ("e2e", report.e2e_ms),
        ];
        for (name, p) in rows {
            writeln!(
                f,
                "  {name:<5} ms  p50 {:>9.3}  p90 {:>9.3}  p99 {:>9.3}  max {:>9.3}  of {}",
                p.p50, p.p90, p.p99, p.max, p.count,
            )?;
        }
        Ok(())
    }
}

// === impl Sample ===

impl Sample {
    fn new() -> Self {
        Self {
            values: Vec::new(),
            seen: 0,
            rng: StdRng::seed_from_u64(1),
        }
    }

    fn add(&mut self, value: f32) {
        self.seen += 1;
        if self.values.len() < SAMPLE {
            self.values.push(value);
        } else {
            let at = self.rng.random_range(0..self.seen);
            if let Some(slot) = usize::try_from(at)
                .ok()
                .and_then(|at| self.values.get_mut(at))
            {
                *slot = value;
            }
        }
    }

    fn percentiles(&self) -> Percentiles {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = |q: f64| {
            let rank = (q * sorted.len() as f64).ceil() as usize;
            f64::from(sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0))
        };
        Percentiles {
            count: self.seen,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut sample = Sample::new();
        for value in (1..=100).rev() {
            sample.add(value as f32);
        }
        let p = sample.percentiles();
        assert_eq!((p.p50, p.p90, p.p99, p.max), (50.0, 90.0, 99.0, 100.0));
        assert_eq!(Sample::new().percentiles(), Percentiles::default());
    }
}
