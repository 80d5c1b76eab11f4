//! What the pollers learn beside the traffic: whether vLLM answers, what it serves, whether its engine moves, and what
//! the engine did that nobody saw pass.
//!
//! With several upstreams each of these families has a label `upstream`, its URL. Nothing stale is shown: what is not
//! known any more has no series, and neither has an upstream that is gone.

mod families;
mod kinds;
mod shown;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use smallvec::SmallVec;

use super::family::Maker;
use crate::activity::{Activity, Counters, Slot};
use crate::config::Config;
use crate::ledger::{Ledger, Tokens};
use crate::poll::{EngineTotals, Model};
use crate::tokens::Direction;
use families::Families;

pub use kinds::{Endpoint, Listing, ProbeFailure};

/// The families, and what of the traffic they are judged by.
#[derive(Debug)]
pub struct Polled {
    families: Families,
    /// Of the next upstream.
    id: AtomicUsize,
    /// Whether there may be more than one, so that a label must tell them apart.
    labelled: bool,
    workers: usize,
    max_models: usize,
    overflow: IntCounterVec,
    /// Whether the traffic is counted: else all of the engine's work would be unaccounted.
    observed: bool,
    /// Whether anybody asks how vLLM is.
    probes: bool,
    /// Whether engines are asked for their counters.
    asks: bool,
}

/// What is known of one upstream.
#[derive(Debug)]
pub struct Upstream {
    id: usize,
    url: String,
    ledger: Arc<Ledger>,
    activity: Activity,
    state: Mutex<State>,
}

/// What is shown of an upstream now, so that it can be taken away.
#[derive(Debug, Default)]
struct State {
    models: Vec<Model>,
    version: Option<String>,
    fingerprint: Option<u64>,
    /// When the engine's counters were last seen to have changed, on the clock of [`Activity`].
    counters: Duration,
    /// When the last question for them was sent, likewise.
    asking: Duration,
    /// When that of the last answer was, if it could be read.
    asked: Option<Duration>,
}

type Values<'a> = SmallVec<[&'a str; 4]>;

impl Polled {
    pub(super) fn new(
        make: &Maker<'_>,
        config: &Config,
        overflow: IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        let labelled = config.is_gateway();
        Ok(Self {
            families: Families::new(make, labelled)?,
            id: AtomicUsize::new(0),
            labelled,
            workers: config.server.workers,
            max_models: config.observe.max_models,
            overflow,
            observed: config.observe.enabled,
            probes: config.health.enabled,
            asks: config.engine.metrics,
        })
    }

    /// There is this upstream.
    ///
    /// Counters are born at 0, so that `rate()` sees the first of anything; but only where somebody asks.
    #[must_use]
    pub fn add(&self, url: String) -> Arc<Upstream> {
        let upstream = Upstream {
            id: self.id.fetch_add(1, Ordering::Relaxed),
            url,
            ledger: Arc::default(),
            activity: Activity::new(self.workers),
            state: Mutex::default(),
        };
        let families = &self.families;
        if self.probes {
            let plain = self.values(&upstream, &[]);
            families.probe_success.with_label_values(&plain);
            for kind in ProbeFailure::ALL {
                let values = self.values(&upstream, &[kind.as_label()]);
                families.probe_error.with_label_values(&values);
            }
        }
        for endpoint in Endpoint::ALL {
            let asked = match endpoint {
                Endpoint::Health | Endpoint::Models => self.probes,
                Endpoint::Metrics => self.asks,
            };
            if asked {
                let values = self.values(&upstream, &[endpoint.as_label()]);
                families.scrape_errors.with_label_values(&values);
            }
        }
        Arc::new(upstream)
    }

    /// An endpoint was asked, with or without a use.
    pub fn scraped(&self, upstream: &Upstream, endpoint: Endpoint, took: Duration, ok: bool) {
        let values = self.values(upstream, &[endpoint.as_label()]);
        let families = &self.families;
        let duration = families.scrape_duration.with_label_values(&values);
        duration.set(took.as_secs_f64());
        let errors = families.scrape_errors.with_label_values(&values);
        if !ok {
            errors.inc();
        }
    }

    /// The engine is about to be asked for its counters. To be called before each request: it says which of the traffic
    /// the answer contains.
    pub fn asking(&self, upstream: &Upstream) {
        upstream.lock().asking = upstream.activity.time(Instant::now());
        upstream.ledger.asking();
    }

    /// What the engine's counters say, as read at `at`; none if they cannot be read.
    pub fn engine(&self, upstream: &Upstream, totals: Option<EngineTotals>, at: Instant) {
        let Some(totals) = totals else {
            upstream.lock().asked = None;
            return;
        };
        {
            let mut state = upstream.lock();
            state.asked = Some(state.asking);
            if state.fingerprint.replace(totals.fingerprint) != Some(totals.fingerprint) {
                state.counters = upstream.activity.time(at);
            }
        }
        if !self.observed {
            return;
        }
        let tokens = Tokens {
            input: whole(totals.prompt),
            output: whole(totals.generation),
        };
        let more = upstream.ledger.read(tokens, totals.started);
        let values = self.values(upstream, &[]);
        let reopened = self.families.reopened.with_label_values(&values);
        reopened.inc_by(upstream.ledger.reopened());
        for (direction, more) in [
            (Direction::Input, more.input),
            (Direction::Output, more.output),
        ] {
            let values = self.values(upstream, &[direction.as_label()]);
            let unaccounted = self.families.unaccounted.with_label_values(&values);
            unaccounted.inc_by(more);
        }
    }

    /// A probe was answered with 2xx, or failed.
    pub(crate) fn probed(&self, upstream: &Upstream, result: Result<(), ProbeFailure>) {
        match result {
            Ok(()) => {
                let values = self.values(upstream, &[]);
                self.families.probe_success.with_label_values(&values).inc();
            }
            Err(kind) => {
                let values = self.values(upstream, &[kind.as_label()]);
                self.families.probe_error.with_label_values(&values).inc();
            }
        }
    }

    /// `/health` was answered, whatever it said.
    pub(crate) fn answered(&self, upstream: &Upstream, took: Duration) {
        let values = self.values(upstream, &[]);
        let latency = self.families.latency.with_label_values(&values);
        latency.observe(took.as_secs_f64());
    }

    /// Judges whether its engine is stuck, and shows it.
    pub(crate) fn judge(&self, upstream: &Upstream, now: Instant, after: Duration) -> bool {
        if !self.observed {
            // Of requests nothing is known, and so nothing of stalls.
            return false;
        }
        let counters = self.counters(&upstream.lock());
        let activity = &upstream.activity;
        let stalled = activity
            .signs()
            .stalled(activity.time(now), counters, after);
        let values = self.values(upstream, &[]);
        let family = &self.families.stalled;
        family.with_label_values(&values).set(i64::from(stalled));
        stalled
    }

    fn counters(&self, state: &State) -> Counters {
        let moved = state.counters;
        match state.asked {
            _ if !self.asks => Counters::Unasked,
            Some(asked) => Counters::Read { asked, moved },
            None => Counters::Unreadable { moved },
        }
    }

    /// `more` behind the label of the upstream, if it has one.
    fn values<'a>(&self, upstream: &'a Upstream, more: &[&'a str]) -> Values<'a> {
        let url = self.labelled.then_some(&*upstream.url);
        url.into_iter().chain(more.iter().copied()).collect()
    }
}

impl Upstream {
    /// Its number, which no other has or had.
    #[must_use]
    pub fn id(&self) -> usize {
        self.id
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where a worker books its requests. `None` for a worker that there is not.
    #[must_use]
    pub fn books(&self, worker: usize) -> Option<Books> {
        Some(Books {
            ledger: Arc::clone(&self.ledger),
            slot: Arc::clone(self.activity.of_worker(worker)?),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the requests of one worker to one upstream are booked.
#[derive(Clone, Debug)]
pub struct Books {
    /// What they cost.
    pub ledger: Arc<Ledger>,
    /// Signs of life.
    pub slot: Arc<Slot>,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a counter is whole and positive; `as` saturates"
)]
fn whole(total: f64) -> u64 {
    total.round() as u64
}
