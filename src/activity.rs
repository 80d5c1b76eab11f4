//! Signs of life of the engines, as the traffic gives them: what a verdict on a hung one needs.
//!
//! Each worker has a slot for each upstream, alone on its cache lines, and is the only one to write it; the pollers'
//! thread reads. Nothing is ordered by it: what is read a moment late is judged a moment late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// All slots.
#[derive(Debug)]
pub struct Activity {
    base: Instant,
    upstreams: usize,
    /// Those of worker 0 first.
    slots: Vec<Arc<Slot>>,
}

/// One worker's traffic to one upstream. 128: x86 fetches cache lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot {
    base: Instant,
    in_flight: AtomicU64,
    /// When requests were last in flight again after none was.
    since: AtomicU64,
    /// When the engine last gave something.
    progress: AtomicU64,
}

/// What the slots of one upstream say together. Times count from a common base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Requests that the engine has.
    pub in_flight: u64,
    /// Since when there has been any.
    pub since: Duration,
    /// When the engine last gave something.
    pub progress: Duration,
}

// === impl Activity ===

impl Activity {
    /// All quiet.
    #[must_use]
    pub fn new(workers: usize, upstreams: usize) -> Self {
        let base = Instant::now();
        let slot = || {
            Arc::new(Slot {
                base,
                in_flight: AtomicU64::new(0),
                since: AtomicU64::new(0),
                progress: AtomicU64::new(0),
            })
        };
        Self {
            base,
            upstreams,
            slots: std::iter::repeat_with(slot)
                .take(workers.saturating_mul(upstreams))
                .collect(),
        }
    }

    /// A worker's slots, one for each upstream.
    #[must_use]
    pub fn of_worker(&self, worker: usize) -> Vec<Arc<Slot>> {
        let before = worker.saturating_mul(self.upstreams);
        let slots = self.slots.iter().skip(before).take(self.upstreams);
        slots.cloned().collect()
    }

    /// What is known of an upstream.
    #[must_use]
    pub fn signs(&self, upstream: usize) -> Signs {
        let mut signs = Signs::default();
        let mut since = u64::MAX;
        let mut progress = 0;
        for slot in self
            .slots
            .iter()
            .skip(upstream)
            .step_by(self.upstreams.max(1))
        {
            let in_flight = slot.in_flight.load(Relaxed);
            if in_flight > 0 {
                since = since.min(slot.since.load(Relaxed));
            }
            progress = progress.max(slot.progress.load(Relaxed));
            signs.in_flight = signs.in_flight.saturating_add(in_flight);
        }
        signs.since = Duration::from_millis(since);
        signs.progress = Duration::from_millis(progress);
        signs
    }

    /// `now` on the clock of [`Signs`].
    #[must_use]
    pub fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.base)
    }
}

// === impl Slot ===

impl Slot {
    /// The engine has a request more.
    pub fn begin(&self) {
        // One writer: no need for an atomic addition.
        let in_flight = self.in_flight.load(Relaxed);
        if in_flight == 0 {
            self.since.store(self.millis(Instant::now()), Relaxed);
        }
        self.in_flight.store(in_flight + 1, Relaxed);
    }

    /// A request has ended, either way.
    pub fn end(&self) {
        let in_flight = self.in_flight.load(Relaxed);
        self.in_flight.store(in_flight.saturating_sub(1), Relaxed);
    }

    /// The engine has given something.
    pub fn progress(&self, now: Instant) {
        self.progress.store(self.millis(now), Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.base);
        since.as_secs() * 1000 + u64::from(since.subsec_millis())
    }
}

// === impl Signs ===

impl Signs {
    /// Whether the engine is stuck at `now`: it has requests, and for `after` neither they nor its own counters have
    /// moved. The counters last changed at `counters`.
    #[must_use]
    pub fn stalled(&self, now: Duration, counters: Duration, after: Duration) -> bool {
        let sign = self.since.max(self.progress).max(counters);
        self.in_flight > 0 && now.saturating_sub(sign) >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_stall_needs_requests_and_the_silence_of_all_three() {
        let signs = Signs {
            in_flight: 2,
            since: s(100),
            progress: s(110),
        };
        assert!(!signs.stalled(s(139), s(0), AFTER));
        assert!(signs.stalled(s(140), s(0), AFTER));
        assert!(!signs.stalled(s(140), s(111), AFTER), "its counters move");
        assert!(signs.stalled(s(141), s(111), AFTER));
        let idle = Signs {
            in_flight: 0,
            ..signs
        };
        assert!(!idle.stalled(s(500), s(0), AFTER));
        // Progress of long ago, and a request that has just begun.
        let fresh = Signs {
            since: s(499),
            ..signs
        };
        assert!(!fresh.stalled(s(500), s(0), AFTER));
    }

    #[test]
    fn slots_are_told_apart_by_upstream_and_summed_over_workers() {
        let activity = Activity::new(2, 3);
        let (first, second) = (activity.of_worker(0), activity.of_worker(1));
        assert_eq!((first.len(), second.len()), (3, 3));
        first[1].begin();
        second[1].begin();
        second[1].begin();
        second[2].begin();
        second[2].end();
        let later = activity.base + s(9);
        second[1].progress(later);
        assert_eq!(activity.signs(0).in_flight, 0);
        assert_eq!(activity.signs(2).in_flight, 0);
        let signs = activity.signs(1);
        assert_eq!((signs.in_flight, signs.progress), (3, s(9)));
        assert!(signs.since < s(9));
        assert_eq!(activity.time(later), s(9));
    }
}
