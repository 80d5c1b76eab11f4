//! One upstream, as all workers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use tower::load::Load;

use super::breaker::{Breaker, Gate};
use super::queue::Queue;
use super::sessions;
use crate::config::UpstreamUrl;
use crate::metrics::polled;
use crate::metrics::upstreams::Meters;
use crate::upstream::Connector;

/// An upstream. What changes is atomic.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) connector: Connector,
    pub(super) upstream: Arc<polled::Upstream>,
    pub(super) meters: Meters,
    pub(super) breaker: Breaker,
    pub(super) queue: Arc<Queue>,
    /// Of its URL, so that all replicas agree.
    pub(super) hash: u64,
    /// Requests that it may have at a time.
    limit: usize,
    outstanding: AtomicUsize,
    /// By the poller. True until it says otherwise.
    healthy: AtomicBool,
    /// It has asked to be left alone until then; milliseconds on the registry's clock.
    rest: AtomicU64,
}

/// How much speaks against an upstream; nothing is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing(u8);

impl Standing {
    pub(super) const GOOD: Self = Self(0);
    const RESTS: u8 = 1;
    const EJECTED: u8 = 2;
    const UNHEALTHY: u8 = 4;

    /// It has asked for it, and is well.
    pub(super) fn only_rests(self) -> bool {
        self.0 == Self::RESTS
    }
}

impl Endpoint {
    pub(super) fn new(
        connector: Connector,
        upstream: Arc<polled::Upstream>,
        meters: Meters,
        breaker: Breaker,
        queue: Arc<Queue>,
        limit: Option<std::num::NonZeroUsize>,
    ) -> Self {
        Self {
            hash: sessions::hash(connector.url().to_string().as_bytes()),
            connector,
            upstream,
            meters,
            breaker,
            queue,
            limit: limit.map_or(usize::MAX, std::num::NonZeroUsize::get),
            outstanding: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            rest: AtomicU64::new(0),
        }
    }

    /// Its number, which no other has or had.
    #[must_use]
    pub fn id(&self) -> usize {
        self.upstream.id()
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &UpstreamUrl {
        self.connector.url()
    }

    /// Opens connections to it.
    #[must_use]
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// What the pollers know of it.
    #[must_use]
    pub fn upstream(&self) -> &Arc<polled::Upstream> {
        &self.upstream
    }

    /// Whether the poller says that it is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(SeqCst)
    }

    /// Returns whether that is new.
    pub(super) fn set_healthy(&self, healthy: bool) -> bool {
        self.healthy.swap(healthy, SeqCst) != healthy
    }

    /// It wants no requests until then.
    pub(super) fn rests(&self, until: u64) {
        self.rest.fetch_max(until, SeqCst);
    }

    pub(super) fn standing(&self, now: u64) -> Standing {
        let mut standing = 0;
        if !self.is_healthy() {
            standing |= Standing::UNHEALTHY;
        }
        if self.breaker.gate(now) == Gate::Shut {
            standing |= Standing::EJECTED;
        }
        if self.rest.load(SeqCst) > now {
            standing |= Standing::RESTS;
        }
        Standing(standing)
    }

    /// A place for one request, if there is one.
    pub(super) fn enter(self: &Arc<Self>, now: u64) -> Option<Seat> {
        self.outstanding
            .fetch_update(SeqCst, SeqCst, |n| (n < self.limit).then_some(n + 1))
            .ok()?;
        let mut seat = Seat {
            endpoint: Arc::clone(self),
            trial: false,
            taken: true,
        };
        if self.breaker.gate(now) == Gate::Ajar {
            seat.trial = self.breaker.try_it();
            if !seat.trial {
                // Another was quicker.
                seat.leave();
                return None;
            }
        }
        Some(seat)
    }

    /// Lets requests in that wait, as far as there are places.
    pub(super) fn let_in(self: &Arc<Self>, now: u64) {
        while self.queue.is_waited_for(self.id()) {
            let Some(seat) = self.enter(now) else {
                return;
            };
            if let Some(mut seat) = self.queue.pass(seat) {
                seat.leave();
            }
        }
    }

    fn is_limited(&self) -> bool {
        self.limit != usize::MAX
    }

    pub(super) fn show(&self, now: u64) {
        let outstanding = i64::try_from(self.load()).unwrap_or(i64::MAX);
        self.meters.in_flight.set(outstanding);
        // Ajar it is open to whoever comes: where nobody does, nobody can find out more.
        let shut = self.breaker.gate(now) == Gate::Shut;
        self.meters
            .healthy
            .set(i64::from(self.is_healthy() && !shut));
    }
}

impl Load for Endpoint {
    type Metric = usize;

    fn load(&self) -> usize {
        self.outstanding.load(SeqCst)
    }
}

/// A request's place at an upstream, until its answer has ended. Whoever waits for one gets it when this is dropped.
#[derive(Debug)]
pub struct Seat {
    endpoint: Arc<Endpoint>,
    /// It tries whether the upstream is back.
    pub(super) trial: bool,
    /// Not yet given up or passed on.
    taken: bool,
}

impl Seat {
    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Gives it up, to nobody.
    fn leave(&mut self) {
        if self.taken {
            self.taken = false;
            self.endpoint.outstanding.fetch_sub(1, SeqCst);
        }
        if std::mem::take(&mut self.trial) {
            self.endpoint.breaker.undecided();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.taken
            && self.endpoint.is_limited()
            && self.endpoint.queue.is_waited_for(self.endpoint.id())
        {
            // It is passed on, not freed, or one that has just come would take it before those who wait.
            self.taken = false;
            let next = Self {
                endpoint: Arc::clone(&self.endpoint),
                trial: false,
                taken: true,
            };
            if let Some(mut seat) = self.endpoint.queue.pass(next) {
                seat.leave();
            }
        }
        self.leave();
        if self.endpoint.is_limited() {
            // Somebody may have begun to wait in between.
            self.endpoint.let_in(0);
        }
    }
}
