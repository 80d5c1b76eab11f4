//! Signs of life of the engines, as the traffic gives them: what a verdict on a hung one needs.
//!
//! Of each upstream every worker has a slot, alone on its cache lines, and is the only one to write it; the pollers'
//! thread reads. What is read a moment late is judged a moment late.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

/// A client that got nothing and asks again within this is taken to wait on: many give up sooner than a verdict takes.
const RETRY: Duration = Duration::from_secs(15);

/// The slots of one upstream.
#[derive(Debug)]
pub struct Activity {
    base: Instant,
    /// That of worker 0 first.
    slots: Vec<Arc<Slot>>,
}

/// One worker's traffic to one upstream. 128: x86 fetches cache lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot {
    base: Instant,
    in_flight: AtomicU64,
    /// Streams among them that have given something.
    speaking: AtomicU64,
    /// When requests were last in flight again after none was, but for retries.
    since: AtomicU64,
    /// How long of the time since then none was: before retries.
    idle: AtomicU64,
    /// When the last one left.
    left: AtomicU64,
    /// It left with nothing.
    unanswered: AtomicBool,
    /// When the engine last gave something.
    progress: AtomicU64,
}

/// What the engine's own counters say, on the clock of [`Signs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counters {
    /// They are not asked for.
    Unasked,
    /// They could not be read last time. They last changed at `moved`.
    Unreadable {
        /// As far as is known.
        moved: Duration,
    },
    /// The last reading of them was asked for at `asked`, and they last changed at `moved`.
    Read {
        /// When the question was sent.
        asked: Duration,
        /// When the change was seen.
        moved: Duration,
    },
}

/// What the slots of one upstream say together. Times count from a common base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Requests that the engine has.
    pub in_flight: u64,
    /// Streams among them that have given something.
    pub speaking: u64,
    /// Since when there has been any.
    pub since: Duration,
    /// How long of that time there was none, between clients that gave up and came again.
    pub idle: Duration,
    /// When the engine last gave something.
    pub progress: Duration,
}

// === impl Activity ===

impl Activity {
    /// All quiet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let base = Instant::now();
        let slot = || {
            Arc::new(Slot {
                base,
                in_flight: AtomicU64::new(0),
                speaking: AtomicU64::new(0),
                since: AtomicU64::new(0),
                idle: AtomicU64::new(0),
                left: AtomicU64::new(0),
                unanswered: AtomicBool::new(false),
                progress: AtomicU64::new(0),
            })
        };
        Self {
            base,
            slots: std::iter::repeat_with(slot).take(workers).collect(),
        }
    }

    /// A worker's slot.
    #[must_use]
    pub fn of_worker(&self, worker: usize) -> Option<&Arc<Slot>> {
        self.slots.get(worker)
    }

    /// What is known of the upstream.
    #[must_use]
    pub fn signs(&self) -> Signs {
        let mut signs = Signs::default();
        // Of the slot whose requests have waited longest.
        let mut longest = None;
        let mut progress = 0;
        for slot in &self.slots {
            let in_flight = slot.in_flight.load(Acquire);
            if in_flight > 0 {
                let (since, idle) = (slot.since.load(Relaxed), slot.idle.load(Relaxed));
                let waiting = (since.saturating_add(idle), since, idle);
                longest = Some(longest.map_or(waiting, |other| waiting.min(other)));
            }
            let speaking = slot.speaking.load(Relaxed);
            signs.speaking = signs.speaking.saturating_add(speaking);
            progress = progress.max(slot.progress.load(Relaxed));
            signs.in_flight = signs.in_flight.saturating_add(in_flight);
        }
        if let Some((_, since, idle)) = longest {
            signs.since = Duration::from_millis(since);
            signs.idle = Duration::from_millis(idle);
        }
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
            self.resume(self.millis(Instant::now()));
        }
        // Who sees the request sees since when.
        self.in_flight.store(in_flight + 1, Release);
    }

    /// Requests are in flight again after none was.
    fn resume(&self, now: u64) {
        let gap = now.saturating_sub(self.left.load(Relaxed));
        if self.unanswered.load(Relaxed) && Duration::from_millis(gap) <= RETRY {
            let idle = self.idle.load(Relaxed);
            self.idle.store(idle.saturating_add(gap), Relaxed);
        } else {
            self.since.store(now, Relaxed);
            self.idle.store(0, Relaxed);
        }
    }

    /// A request has ended at `now`, either way. `unanswered`: its client has left with nothing, or we have.
    pub fn end(&self, unanswered: bool, now: Instant) {
        self.left.store(self.millis(now), Relaxed);
        self.unanswered.store(unanswered, Relaxed);
        let in_flight = self.in_flight.load(Relaxed);
        self.in_flight.store(in_flight.saturating_sub(1), Release);
    }

    /// A stream has given its first.
    pub fn speaks(&self) {
        let speaking = self.speaking.load(Relaxed);
        self.speaking.store(speaking + 1, Relaxed);
    }

    /// Such a stream has ended.
    pub fn hushes(&self) {
        let speaking = self.speaking.load(Relaxed);
        self.speaking.store(speaking.saturating_sub(1), Relaxed);
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
    /// moved.
    #[must_use]
    pub fn stalled(&self, now: Duration, counters: Counters, after: Duration) -> bool {
        let sign = self.since.max(self.progress);
        let silent_at = |at: Duration, sign: Duration| {
            at.saturating_sub(sign).saturating_sub(self.idle) >= after
        };
        self.in_flight > 0
            && match counters {
                Counters::Unasked => silent_at(now, sign),
                // Nobody knows whether it works for those that wait. One that spoke and fell silent tells.
                Counters::Unreadable { moved } => {
                    self.speaking > 0 && silent_at(now, sign.max(moved))
                }
                // A reading from before says nothing of the time since, in which the engine may have moved on.
                Counters::Read { asked, moved } => silent_at(asked, sign.max(moved)),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Asked at this moment, and changed last at that.
    fn read(asked: u64, moved: u64) -> Counters {
        Counters::Read {
            asked: s(asked),
            moved: s(moved),
        }
    }

    #[test]
    fn a_stall_needs_requests_and_the_silence_of_all_three() {
        let signs = Signs {
            in_flight: 2,
            since: s(100),
            progress: s(110),
            ..Signs::default()
        };
        assert!(!signs.stalled(s(139), read(139, 0), AFTER));
        assert!(signs.stalled(s(140), read(140, 0), AFTER));
        assert!(
            !signs.stalled(s(140), read(140, 111), AFTER),
            "its counters move"
        );
        assert!(signs.stalled(s(141), read(141, 111), AFTER));
        let idle = Signs {
            in_flight: 0,
            ..signs
        };
        assert!(!idle.stalled(s(500), read(500, 0), AFTER));
        // Progress of long ago, and a request that has just begun.
        let fresh = Signs {
            since: s(499),
            ..signs
        };
        assert!(!fresh.stalled(s(500), read(500, 0), AFTER));
    }

    #[test]
    fn a_reading_from_before_is_no_silence() {
        let signs = Signs {
            in_flight: 1,
            since: s(100),
            ..Signs::default()
        };
        for now in 100..200 {
            // Read each 5 s, with a change each time.
            let last = now - now % 5;
            assert!(!signs.stalled(s(now), read(last, last), s(1)), "{now}");
        }
        assert!(signs.stalled(s(200), read(200, 195), s(1)));
    }

    #[test]
    fn without_a_reading_only_a_stream_that_spoke_tells() {
        let waits = Signs {
            in_flight: 1,
            since: s(100),
            ..Signs::default()
        };
        let unreadable = Counters::Unreadable { moved: s(110) };
        assert!(!waits.stalled(s(900), unreadable, AFTER));
        assert!(waits.stalled(s(130), Counters::Unasked, AFTER));
        let spoke = Signs {
            speaking: 1,
            progress: s(105),
            ..waits
        };
        assert!(!spoke.stalled(s(139), unreadable, AFTER));
        assert!(spoke.stalled(s(140), unreadable, AFTER));
    }

    #[test]
    fn who_gives_up_and_asks_again_waits_on() {
        let activity = Activity::new(1);
        let slot = activity.of_worker(0).unwrap();
        slot.begin();
        slot.since.store(1, Relaxed);
        slot.end(true, Instant::now());
        slot.left.store(10_000, Relaxed);
        slot.resume(14_000);
        assert_eq!(slot.since.load(Relaxed), 1);
        assert_eq!(slot.idle.load(Relaxed), 4000);
        let signs = Signs {
            in_flight: 1,
            since: s(0),
            idle: s(4),
            ..Signs::default()
        };
        assert!(!signs.stalled(s(33), read(33, 0), AFTER));
        assert!(signs.stalled(s(34), read(34, 0), AFTER));
        // Too late for a retry, and one that had its answer.
        slot.left.store(20_000, Relaxed);
        slot.resume(40_000);
        assert_eq!(slot.since.load(Relaxed), 40_000);
        assert_eq!(slot.idle.load(Relaxed), 0);
        slot.end(false, Instant::now());
        slot.left.store(50_000, Relaxed);
        slot.resume(51_000);
        assert_eq!(slot.since.load(Relaxed), 51_000);
    }

    #[test]
    fn slots_are_summed_over_workers() {
        let activity = Activity::new(2);
        let slot = |worker| activity.of_worker(worker).unwrap();
        let (first, second) = (slot(0), slot(1));
        assert!(activity.of_worker(2).is_none());
        first.begin();
        second.begin();
        second.begin();
        second.begin();
        second.end(false, Instant::now());
        first.speaks();
        second.speaks();
        second.hushes();
        let later = activity.base + s(9);
        second.progress(later);
        let signs = activity.signs();
        assert_eq!((signs.in_flight, signs.progress), (3, s(9)));
        assert_eq!(signs.speaking, 1);
        assert!(signs.since < s(9));
        assert_eq!(activity.time(later), s(9));
    }
}
