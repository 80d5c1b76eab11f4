//! Series of a model or tenant that nobody uses any more are dropped, so that memory stays bounded for ever.
//!
//! A worker holds resolved children and counts on them without a lock, so a series may be dropped only while nobody
//! counts on it. Both sides say what they are about to do before they look at what the other does: the worker counts
//! itself in and then looks whether the series is dead; the sweep declares it dead and then looks whether anybody is in.
//! At least one of them sees the other, and no count is lost on a series that has left `/metrics`.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Metrics;
use super::series::{Key, Series};
use crate::outcome::{ErrorType, Phase, TokenSource};
use crate::record::FinishReason;
use crate::tokens::Direction;

/// One series' life.
#[derive(Debug, Default)]
pub(super) struct Life {
    users: AtomicU32,
    dead: AtomicBool,
    /// Milliseconds since the registry began.
    last: AtomicU64,
}

/// All that are on `/metrics`.
#[derive(Debug)]
pub(super) struct Lives {
    all: Mutex<HashMap<Key, Arc<Life>>>,
    began: Instant,
    /// Counts sweeps that dropped something: workers then clear their caches.
    epoch: AtomicU64,
}

impl Life {
    /// Counts a user in: false if the series is dead, and must be resolved anew.
    pub(super) fn enter(&self) -> bool {
        self.users.fetch_add(1, Ordering::SeqCst);
        if self.dead.load(Ordering::SeqCst) {
            self.users.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// The user is done, at `now`.
    pub(super) fn leave(&self, now: u64) {
        self.last.fetch_max(now, Ordering::Relaxed);
        self.users.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Declares it dead, unless somebody is using it or has since `before`.
    fn end(&self, before: u64) -> bool {
        if self.last.load(Ordering::Relaxed) > before {
            return false;
        }
        self.dead.store(true, Ordering::SeqCst);
        if self.users.load(Ordering::SeqCst) == 0 && self.last.load(Ordering::Relaxed) <= before {
            return true;
        }
        self.dead.store(false, Ordering::SeqCst);
        false
    }
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            began: Instant::now(),
            epoch: AtomicU64::new(0),
        }
    }
}

impl Lives {
    /// The life of a series, begun now if it is new.
    pub(super) fn get(&self, key: &Key) -> Arc<Life> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let life = all.entry(key.clone()).or_default();
        life.last.fetch_max(self.now(), Ordering::Relaxed);
        Arc::clone(life)
    }

    fn now(&self) -> u64 {
        millis(self.began)
    }
}

/// A series that cannot expire while this is held.
#[derive(Debug)]
pub struct InUse {
    series: Rc<Series>,
    began: Instant,
}

impl std::ops::Deref for InUse {
    type Target = Series;

    fn deref(&self) -> &Series {
        &self.series
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.series.life.leave(millis(self.began));
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Metrics {
    /// Takes a series into use: `None` if it has expired and must be resolved anew.
    #[must_use]
    pub fn enter(&self, series: &Rc<Series>) -> Option<InUse> {
        series.life.enter().then(|| InUse {
            series: Rc::clone(series),
            began: self.lives.began,
        })
    }

    /// Counts the sweeps that dropped something: a cache of series has dead ones in it when this has changed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lives.epoch.load(Ordering::Relaxed)
    }

    /// Drops the series that nobody has used for `idle`. Returns the keys that are gone.
    pub fn expire(&self, idle: Duration) -> Vec<Key> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let Some(before) = self.lives.now().checked_sub(idle) else {
            return Vec::new();
        };
        let mut all = self
            .lives
            .all
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Key> = all
            .extract_if(|_, life| life.end(before))
            .map(|(key, _)| key)
            .inspect(|key| self.remove(key))
            .collect();
        if !gone.is_empty() {
            self.lives.epoch.fetch_add(1, Ordering::Relaxed);
        }
        for key in &gone {
            if !all.keys().any(|left| left.model == key.model) {
                self.models.forget(&key.model);
                for direction in Direction::ALL {
                    let values = [&*key.model, direction.as_label()];
                    // Most children were never born.
                    let _absent = self.estimate_error.remove_label_values(&values);
                }
            }
            for (index, value) in key.tenants.iter().enumerate() {
                if !all
                    .keys()
                    .any(|left| left.tenants.get(index) == Some(value))
                {
                    self.tenants.forget(index, value);
                }
            }
        }
        gone
    }

    fn remove(&self, key: &Key) {
        let plain = key.values(&[]);
        for family in [&self.success, &self.cached_tokens, &self.reasoning_tokens] {
            family.remove_label_values(&plain);
        }
        for family in [
            &self.ttft,
            &self.first_answer,
            &self.itl,
            &self.tpot,
            &self.longest_stall,
            &self.duration,
            &self.queue,
            &self.frontend,
        ] {
            family.remove_label_values(&plain);
        }
        for family in [&self.in_flight, &self.stalled] {
            family.remove_label_values(&plain);
        }
        for kind in ErrorType::ALL {
            self.error
                .remove_label_values(&key.values(&[kind.as_label()]));
        }
        for phase in Phase::ALL {
            self.cancelled
                .remove_label_values(&key.values(&[phase.as_label()]));
        }
        for reason in FinishReason::ALL {
            self.finish
                .remove_label_values(&key.values(&[reason.as_label()]));
        }
        for source in TokenSource::ALL {
            let values = key.values(&[source.as_label()]);
            self.input_tokens.remove_label_values(&values);
            self.output_tokens.remove_label_values(&values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_series_does_not_die_and_a_dead_one_is_not_used() {
        let life = Life::default();
        assert!(life.enter());
        assert!(!life.end(10), "in use");
        life.leave(5);
        assert!(!life.end(4), "used since");
        assert!(life.end(5));
        assert!(life.is_dead() && !life.enter());
    }
}
