//! One worker's resolved series, without a lock and nearly always without a search.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::classify::Endpoint;
use crate::metrics::{InUse, Key, Metrics, Series};
use crate::tenants::TenantValues;

/// Places for what was used last. What shares one is searched for when it takes turns.
const RECENT: usize = 64;

/// The series, and in front of them those that were used last.
#[derive(Debug)]
pub(super) struct Cache {
    all: RefCell<HashMap<Key, Rc<Series>>>,
    recent: RefCell<[Option<Rc<Series>>; RECENT]>,
    /// The sweep that it was last cleared after.
    epoch: Cell<u64>,
}

/// A [`Key`] that is not one's own.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// A label value.
    pub(super) model: &'a str,
    pub(super) endpoint: Endpoint,
    pub(super) stream: bool,
    pub(super) tenants: &'a TenantValues,
}

// === impl Cache ===

impl Default for Cache {
    fn default() -> Self {
        Self {
            all: RefCell::default(),
            recent: RefCell::new([const { None }; _]),
            epoch: Cell::new(0),
        }
    }
}

impl Cache {
    /// The series, in use until the result is dropped.
    pub(super) fn get(&self, metrics: &Metrics, wanted: Wanted<'_>) -> InUse {
        if let Some(used) = self.recent(metrics, wanted) {
            return used;
        }
        let key = wanted.key();
        let mut all = self.all.borrow_mut();
        if let Some(series) = all.get(&key)
            && let Some(used) = metrics.enter(series)
        {
            self.remember(wanted, series);
            return used;
        }
        loop {
            // Dead, or new to this worker. A sweep that is under way may take it once more.
            let series = Rc::new(Series::new(metrics, &key));
            if let Some(used) = metrics.enter(&series) {
                self.remember(wanted, &series);
                all.insert(key, series);
                return used;
            }
        }
    }

    /// The same, if it was in use lately and is alive. Then its model has a place among the label values too.
    pub(super) fn recent(&self, metrics: &Metrics, wanted: Wanted<'_>) -> Option<InUse> {
        self.clear(metrics);
        let recent = self.recent.borrow();
        let series = recent.get(wanted.place())?.as_ref()?;
        if !wanted.is(series.key()) {
            return None;
        }
        metrics.enter(series)
    }

    fn remember(&self, wanted: Wanted<'_>, series: &Rc<Series>) {
        if let Some(place) = self.recent.borrow_mut().get_mut(wanted.place()) {
            *place = Some(Rc::clone(series));
        }
    }

    /// Lets go of the dead, if any have died.
    fn clear(&self, metrics: &Metrics) {
        let epoch = metrics.epoch();
        if self.epoch.replace(epoch) == epoch {
            return;
        }
        self.all.borrow_mut().retain(|_, series| !series.is_dead());
        for place in self.recent.borrow_mut().iter_mut() {
            *place = place.take().filter(|series| !series.is_dead());
        }
    }
}

// === impl Wanted ===

impl Wanted<'_> {
    /// Whether this is the key.
    pub(super) fn is(self, key: &Key) -> bool {
        *self.model == *key.model
            && self.endpoint == key.endpoint
            && self.stream == key.stream
            && *self.tenants == key.tenants
    }

    fn key(self) -> Key {
        Key {
            model: self.model.into(),
            endpoint: self.endpoint,
            stream: self.stream,
            tenants: self.tenants.clone(),
        }
    }

    /// Names differ in their ends most, and in their lengths.
    fn place(self) -> usize {
        let names = std::iter::once(self.model).chain(self.tenants.iter().map(|value| &**value));
        let kind = self.endpoint as u64 * 2 + u64::from(self.stream);
        let mixed = names.fold(kind, |mixed, name| {
            let bytes = name.as_bytes();
            let end = bytes.last_chunk::<8>().map_or_else(
                || {
                    bytes
                        .iter()
                        .fold(0, |all, byte| all << 8 | u64::from(*byte))
                },
                |end| u64::from_le_bytes(*end),
            );
            let length = bytes.len() as u64;
            (mixed.rotate_left(21) ^ end ^ length).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        (mixed >> 58) as usize % RECENT
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Tenants as TenantConfig};
    use crate::tenants::Tenants;
    use crate::upstream::OpenConnections;

    fn metrics() -> Metrics {
        let tenants = Tenants::new(&TenantConfig::default()).unwrap();
        let registry = prometheus::Registry::new();
        let config = Config::default();
        Metrics::new(&registry, OpenConnections::default(), &config, tenants).unwrap()
    }

    #[test]
    fn what_has_expired_is_resolved_anew_and_what_is_in_use_does_not_expire() {
        let (metrics, cache) = (metrics(), Cache::default());
        let none = TenantValues::new();
        let wanted = Wanted {
            model: "m",
            endpoint: Endpoint::ChatCompletions,
            stream: false,
            tenants: &none,
        };
        let used = cache.get(&metrics, wanted);
        used.in_flight.inc();
        assert!(metrics.expire(Duration::ZERO).is_empty(), "in use");
        let again = cache.recent(&metrics, wanted).unwrap();
        assert_eq!(again.in_flight.get(), 1, "the same");
        drop((used, again));
        assert_eq!(metrics.expire(Duration::ZERO).len(), 1);
        assert!(cache.recent(&metrics, wanted).is_none());
        assert_eq!(cache.get(&metrics, wanted).in_flight.get(), 0, "born anew");
        assert_eq!(cache.all.borrow().len(), 1);
    }

    #[test]
    fn those_that_share_a_place_are_told_apart() {
        let (metrics, cache) = (metrics(), Cache::default());
        for _ in 0..2 {
            for number in 0..500 {
                let team: Arc<str> = Arc::from(format!("team-{number}"));
                let tenants = TenantValues::from_iter([team]);
                let wanted = Wanted {
                    model: "m",
                    endpoint: Endpoint::Completions,
                    stream: number % 2 == 0,
                    tenants: &tenants,
                };
                assert!(wanted.is(cache.get(&metrics, wanted).key()));
                assert!(wanted.is(cache.recent(&metrics, wanted).unwrap().key()));
            }
        }
        assert_eq!(cache.all.borrow().len(), 500);
    }
}
