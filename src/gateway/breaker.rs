//! When an upstream that fails is left alone, and when one request tries whether it is back.
//!
//! `eject_after` failures in a row open it. After `eject_for` one request is let through (half-open): its success
//! closes it, its failure opens it for twice as long, up to `eject_max`. Who fails again before it has been well for as long
//! as it was last left alone begins where it was, not anew.
//!
//! Shared by all workers. Times are milliseconds on the registry's clock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// How long, and after how much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Failures in a row.
    pub after: u32,
    /// The first time, in milliseconds.
    pub first: u64,
    /// At most, likewise.
    pub most: u64,
}

/// One upstream's.
#[derive(Debug)]
pub struct Breaker {
    limits: Limits,
    failures: AtomicU32,
    /// When it may be tried again. 0: it is not left alone.
    until: AtomicU64,
    /// Somebody tries.
    trial: AtomicBool,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    /// How long it was left alone last.
    length: u64,
    /// Until when.
    closed: u64,
}

/// Whether requests may go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Any.
    Open,
    /// One, to try; see [`Breaker::try_it`].
    Ajar,
    /// None.
    Shut,
}

impl Breaker {
    /// Nothing has failed yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            failures: AtomicU32::new(0),
            until: AtomicU64::new(0),
            trial: AtomicBool::new(false),
            past: Mutex::default(),
        }
    }

    /// Whether requests may go there at `now`.
    #[must_use]
    pub fn gate(&self, now: u64) -> Gate {
        match self.until.load(SeqCst) {
            0 => Gate::Open,
            until if now < until || self.trial.load(SeqCst) => Gate::Shut,
            _ => Gate::Ajar,
        }
    }

    /// Where the gate is ajar: whether this one is the request that tries. It must end in [`Breaker::succeeded`],
    /// [`Breaker::failed`] or [`Breaker::undecided`].
    pub fn try_it(&self) -> bool {
        !self.trial.swap(true, SeqCst)
    }

    /// A request went well; `trial`: the one that tried.
    pub fn succeeded(&self, trial: bool, now: u64) {
        if trial {
            let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
            past.closed = now;
            self.until.store(0, SeqCst);
            self.trial.store(false, SeqCst);
        }
        // No write into a line that all workers read, if there is nothing to say.
        if self.failures.load(SeqCst) != 0 {
            self.failures.store(0, SeqCst);
        }
    }

    /// A request failed. Returns for how long the upstream is left alone because of it, if it is.
    pub fn failed(&self, trial: bool, now: u64) -> Option<u64> {
        if trial {
            let length = self.shut(now);
            self.trial.store(false, SeqCst);
            return Some(length);
        }
        let failures = self.failures.fetch_add(1, SeqCst) + 1;
        // Of those that were sent before it was shut nothing is to be learnt.
        (failures >= self.limits.after && self.until.load(SeqCst) == 0).then(|| self.shut(now))
    }

    /// The request that tried has ended, and says nothing.
    pub fn undecided(&self) {
        self.trial.store(false, SeqCst);
    }

    fn shut(&self, now: u64) -> u64 {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let again = self.until.load(SeqCst) != 0 || now.saturating_sub(past.closed) < past.length;
        past.length = if again && past.length > 0 {
            past.length.saturating_mul(2).min(self.limits.most)
        } else {
            self.limits.first
        };
        self.failures.store(0, SeqCst);
        self.until
            .store(now.saturating_add(past.length).max(1), SeqCst);
        past.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Limits {
            after: 3,
            first: 100,
            most: 350,
        })
    }

    #[test]
    fn so_many_in_a_row_shut_it() {
        let breaker = breaker();
        assert_eq!(breaker.failed(false, 1), None);
        assert_eq!(breaker.failed(false, 2), None);
        breaker.succeeded(false, 3);
        assert_eq!(breaker.failed(false, 4), None);
        assert_eq!(breaker.failed(false, 5), None);
        assert_eq!(breaker.gate(5), Gate::Open);
        assert_eq!(breaker.failed(false, 6), Some(100));
        assert_eq!(breaker.gate(105), Gate::Shut);
        // Others that were under way.
        for now in 7..20 {
            assert_eq!(breaker.failed(false, now), None);
        }
        breaker.succeeded(false, 20);
        assert_eq!(breaker.gate(105), Gate::Shut);
        assert_eq!(breaker.gate(106), Gate::Ajar);
    }

    #[test]
    fn one_request_tries_and_each_failure_doubles() {
        let breaker = breaker();
        let mut now = 0;
        for _ in 0..3 {
            breaker.failed(false, now);
        }
        for length in [100, 200, 350, 350] {
            now += length;
            assert_eq!(breaker.gate(now - 1), Gate::Shut);
            assert_eq!(breaker.gate(now), Gate::Ajar);
            assert!(breaker.try_it() && !breaker.try_it());
            assert_eq!(breaker.gate(now), Gate::Shut, "one is enough");
            breaker.undecided();
            assert!(breaker.try_it(), "it said nothing");
            let next = if length == 100 { 200 } else { 350 };
            assert_eq!(breaker.failed(true, now), Some(next));
        }
        now += 350;
        assert!(breaker.try_it());
        breaker.succeeded(true, now);
        assert_eq!(breaker.gate(now), Gate::Open);
        // Soon again it is as bad as before, and later it is not.
        let fail = |now| (0..3).find_map(|_| breaker.failed(false, now));
        assert_eq!(fail(now + 349), Some(350));
        assert!(breaker.try_it());
        breaker.succeeded(true, now + 700);
        assert_eq!(fail(now + 1050), Some(100));
    }
}
