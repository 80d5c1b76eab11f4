//! When the frames of paced streams are due: each stream at a phase of its own, whatever proxy is between.
//!
//! Streams that restart when their proxy lets them would drift together, behind each proxy otherwise, and the delay of a
//! frame would be that of the clump which it stands in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The times at which frames may leave, for all streams of an origin.
#[derive(Debug)]
pub(crate) struct Grid {
    epoch: Instant,
    gap: Duration,
    phases: u64,
    started: AtomicU64,
}

// === impl Grid ===

impl Grid {
    /// For so many streams at a time, each with a frame every `gap`.
    pub(crate) fn new(gap: Duration, streams: usize) -> Self {
        Self {
            epoch: Instant::now(),
            gap: gap.max(Duration::from_nanos(1)),
            phases: streams.max(1) as u64,
            started: AtomicU64::new(0),
        }
    }

    /// When the first frame of one more stream is due: at its phase, and not before `earliest`.
    pub(crate) fn first(&self, earliest: Instant) -> Instant {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let since = earliest.saturating_duration_since(self.epoch);
        self.epoch + due(number % self.phases, self.phases, self.gap, since)
    }
}

/// The first of the times `phase / phases × gap + n × gap` that is not before `earliest`.
fn due(phase: u64, phases: u64, gap: Duration, earliest: Duration) -> Duration {
    let (gap, earliest) = (gap.as_nanos(), earliest.as_nanos());
    let offset = gap * u128::from(phase) / u128::from(phases);
    let turns = earliest.saturating_sub(offset).div_ceil(gap);
    Duration::from_nanos(u64::try_from(offset + turns * gap).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_millis(20);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_frame_is_at_its_phase_and_not_before_the_earliest_time() {
        for (phase, earliest, expected) in [
            (0, 0, 0),
            (0, 1, 20),
            (0, 20, 20),
            (0, 21, 40),
            (1, 0, 5),
            (1, 5, 5),
            (1, 6, 25),
            (3, 14, 15),
            (3, 1000, 1015),
        ] {
            let at = due(phase, 4, GAP, ms(earliest));
            assert_eq!(at, ms(expected), "phase {phase} at {earliest} ms");
        }
    }

    #[test]
    fn streams_that_start_together_are_spread_evenly_over_the_gap() {
        let grid = Grid::new(GAP, 200);
        let earliest = grid.epoch + ms(333);
        // One that came before, as a proxy's first answer does, moves them all and leaves them even.
        grid.first(earliest);
        let mut firsts: Vec<Duration> = (0..200)
            .map(|_| grid.first(earliest) - grid.epoch)
            .collect();
        firsts.sort_unstable();
        assert!(firsts[0] >= ms(333) && firsts[199] < ms(353), "{firsts:?}");
        let step = GAP / 200;
        assert!(firsts.windows(2).all(|two| two[1] - two[0] == step));
    }

    #[test]
    fn streams_that_restart_one_by_one_stay_even() {
        let grid = Grid::new(GAP, 8);
        let mut firsts: Vec<Instant> = (0..8).map(|_| grid.first(grid.epoch)).collect();
        // Each has 5 frames, and its client takes a time of its own to come back.
        for turn in 0..50 {
            let next = firsts
                .iter()
                .enumerate()
                .map(|(at, first)| *first + GAP * 5 + ms((turn * 7 + at as u64 * 11) % 13));
            firsts = next.map(|earliest| grid.first(earliest)).collect();
            let phase = |first: &Instant| (*first - grid.epoch).as_nanos() % GAP.as_nanos();
            let mut phases: Vec<u128> = firsts.iter().map(phase).collect();
            phases.sort_unstable();
            let even: Vec<u128> = (0..8).map(|k| k * GAP.as_nanos() / 8).collect();
            assert_eq!(phases, even);
        }
    }

    #[test]
    fn nothing_divides_by_zero() {
        let grid = Grid::new(Duration::ZERO, 0);
        let now = Instant::now();
        assert!(grid.first(now) >= now);
    }
}
