//! What a test changes in a running simulator beside the traffic: what its own endpoints say, and how late.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The controls of a [`Server`](super::Server).
#[derive(Debug, Default)]
pub struct Control {
    unhealthy: AtomicBool,
    unloaded: AtomicBool,
    values: Mutex<BTreeMap<&'static str, f64>>,
    delays: Mutex<BTreeMap<&'static str, Duration>>,
    crowd_ms: AtomicU64,
}

// === impl Control ===

impl Control {
    /// Makes `/health` answer 200 or 503.
    pub fn set_healthy(&self, healthy: bool) {
        self.unhealthy.store(!healthy, Ordering::Relaxed);
    }

    /// Whether `/v1/models` lists the models, or none.
    pub fn set_loaded(&self, loaded: bool) {
        self.unloaded.store(!loaded, Ordering::Relaxed);
    }

    /// What `/metrics` says of a family that the simulator does not count itself, such as `vllm:num_requests_waiting`.
    pub fn set_value(&self, family: &'static str, value: f64) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(family, value);
    }

    /// Lets every answer of `path`, `/metrics` or `/health`, come so much later; zero ends it for the requests to come.
    pub fn set_delay(&self, path: &'static str, delay: Duration) {
        let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.insert(path, delay);
    }

    /// From the next connection on, accepts one in so many milliseconds and lets none wait, as a server whose backlog is
    /// full: the client's kernel tries again after a second. 0 ends it.
    pub fn set_crowded(&self, ms: u64) {
        self.crowd_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn crowded(&self) -> Option<Duration> {
        let ms = self.crowd_ms.load(Ordering::Relaxed);
        (ms > 0).then_some(Duration::from_millis(ms))
    }

    pub(crate) fn healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    pub(crate) fn loaded(&self) -> bool {
        !self.unloaded.load(Ordering::Relaxed)
    }

    pub(crate) fn value(&self, family: &str) -> f64 {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(family).copied().unwrap_or(0.0)
    }

    pub(crate) fn delay(&self, path: &str) -> Option<Duration> {
        let delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        delays.get(path).copied().filter(|delay| !delay.is_zero())
    }
}
