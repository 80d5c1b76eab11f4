//! The upstreams that there are, what each serves and how it is. Changed by the pollers' thread, read by all.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::breaker::{Breaker, Limits};
use super::endpoint::Endpoint;
use super::queue::Queue;
use super::sessions::Sessions;
use super::table::{Listing, Models, Table};
use crate::config::{self, Config, Secret};
use crate::metrics::upstreams::Rejected;
use crate::metrics::{Metrics, polled};
use crate::poll::Model;
use crate::upstream::Connector;

/// All upstreams.
#[derive(Debug)]
pub struct Registry {
    base: Instant,
    settings: config::Gateway,
    metrics: Arc<Metrics>,
    /// What the lists of models were read with.
    key: Option<Secret>,
    queue: Arc<Queue>,
    sessions: Sessions,
    /// Of the table; workers look whether theirs is of this one.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<(Arc<Endpoint>, Listing)>,
    table: Arc<Table>,
}

/// One upstream, to whoever says how it is.
#[derive(Clone, Debug)]
pub struct Member {
    registry: Arc<Registry>,
    endpoint: Arc<Endpoint>,
}

impl Registry {
    /// No upstream yet.
    #[must_use]
    pub fn new(config: &Config, metrics: &Arc<Metrics>) -> Arc<Self> {
        let registry = Arc::new(Self {
            metrics: Arc::clone(metrics),
            base: Instant::now(),
            settings: config.gateway.clone(),
            key: config.health.api_key.clone(),
            queue: Queue::new(config.gateway.queue),
            sessions: Sessions::default(),
            version: AtomicU64::new(0),
            state: Mutex::default(),
        });
        metrics.upstreams.of(&registry);
        registry
    }

    /// There is this upstream.
    pub fn insert(
        self: &Arc<Self>,
        connector: Connector,
        upstream: Arc<polled::Upstream>,
    ) -> Member {
        let millis =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let limits = Limits {
            after: self.settings.eject_after,
            first: millis(self.settings.eject_for),
            most: millis(self.settings.eject_max),
        };
        let meters = self.metrics.upstreams.add(connector.url());
        let endpoint = Arc::new(Endpoint::new(
            connector,
            upstream,
            meters,
            Breaker::new(limits),
            Arc::clone(&self.queue),
            self.settings.max_in_flight,
        ));
        self.change(|members| {
            members.push((Arc::clone(&endpoint), Listing::Unknown));
            true
        });
        Member {
            registry: Arc::clone(self),
            endpoint,
        }
    }

    /// The present table.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.state().table)
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(SeqCst)
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(super) fn rejected(&self, why: Rejected) {
        self.metrics.upstreams.reject(why);
    }

    /// What was configured.
    #[must_use]
    pub fn settings(&self) -> &config::Gateway {
        &self.settings
    }

    /// The key that the lists of models were asked for with.
    #[must_use]
    pub fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// Whether any upstream is healthy.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.table()
            .endpoints
            .iter()
            .any(|endpoint| endpoint.is_healthy())
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.base);
        since.as_secs() * 1000 + u64::from(since.subsec_millis())
    }

    /// Sets the gauges to what is now. Returns how many requests wait.
    pub(crate) fn show(&self) -> usize {
        let now = self.millis(Instant::now());
        for endpoint in &self.table().endpoints {
            endpoint.show(now);
        }
        self.queue.waiting()
    }

    /// Makes a new table if `change` says so.
    fn change(&self, change: impl FnOnce(&mut Vec<(Arc<Endpoint>, Listing)>) -> bool) {
        let table = {
            let mut state = self.state();
            if !change(&mut state.members) {
                return;
            }
            let table = Arc::new(Table::new(state.members.clone()));
            state.table = Arc::clone(&table);
            self.version.fetch_add(1, SeqCst);
            table
        };
        self.queue.sort_anew(&table);
        let now = self.millis(Instant::now());
        for endpoint in &table.endpoints {
            endpoint.let_in(now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// The upstream itself.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// It is healthy, or not.
    pub fn healthy(&self, healthy: bool) {
        if self.endpoint.set_healthy(healthy) {
            // The union is that of the healthy ones.
            self.registry.change(|_| true);
        }
    }

    /// It serves these, and lists them so.
    pub fn lists(&self, models: &[Model], body: &Bytes) {
        self.say(|listing| match listing {
            Listing::Models(known) if known.body == *body => None,
            _ => {
                let names = models.iter().map(|model| Box::from(&*model.id));
                Some(Listing::Models(Arc::new(Models::read(names, body))))
            }
        });
    }

    /// It does not say what it serves, without a key.
    pub fn withholds(&self) {
        self.say(|listing| (!matches!(listing, Listing::Withheld)).then_some(Listing::Withheld));
    }

    /// It is no upstream any more, and nothing is shown of it. What it is doing it may finish.
    pub fn remove(&self) {
        let metrics = &self.registry.metrics;
        metrics.upstreams.remove(self.endpoint.url());
        metrics.polled.remove(&self.endpoint.upstream);
        metrics.models.unlist(self.endpoint.id());
        self.registry.change(|members| {
            let before = members.len();
            members.retain(|(endpoint, _)| endpoint.id() != self.endpoint.id());
            members.len() != before
        });
    }

    fn say(&self, new: impl FnOnce(&Listing) -> Option<Listing>) {
        self.registry.change(|members| {
            let mut members = members.iter_mut();
            let ours = members.find(|(endpoint, _)| endpoint.id() == self.endpoint.id());
            let Some((_, listing)) = ours else {
                return false;
            };
            let new = new(listing);
            let changed = new.is_some();
            if let Some(new) = new {
                *listing = new;
            }
            changed
        });
    }
}
