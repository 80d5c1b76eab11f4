//! What the poller publishes and `/metrics` reads. The lock is never held during a call to NVML, so that a scrape waits for
//! nothing; and a poller that hangs is found out here, by whoever looks first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::GpuMode;
use crate::gpu::lifecycle::{Fault, Reason};
use crate::gpu::read::Reading;
use crate::gpu::source::{Call, Identity};

/// More different XIDs of one GPU than this are counted as [`OTHER_XID`].
const MAX_XIDS: usize = 64;
/// The label is then `other`.
pub(super) const OTHER_XID: u64 = u64::MAX;
/// Without persistence mode the driver takes seconds for each GPU when it is first asked.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A wait for XIDs ends after a second, and another begins.
pub(super) const DEAF: Duration = Duration::from_secs(5);

/// What one poll has found of all GPUs.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) taken: Instant,
    pub(super) driver: String,
    /// Those that answered.
    pub(super) gpus: Vec<(Identity, Reading)>,
}

/// The XIDs of one GPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Xids {
    /// The last one, 0 if none.
    pub(super) last: u64,
    /// Code to count and time of the last, seconds since 1970.
    pub(super) seen: BTreeMap<u64, (u64, f64)>,
}

/// Everything that can be shown.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) reason: Reason,
    pub(super) generation: u64,
    pub(super) poll_seconds: Option<f64>,
    /// Seconds since 1970.
    pub(super) last_success: Option<f64>,
    pub(super) errors: BTreeMap<(Call, Fault), u64>,
    pub(super) stuck_total: u64,
    /// UUID to index of every GPU that has ever answered.
    pub(super) known: BTreeMap<String, u32>,
    pub(super) xids: BTreeMap<String, Xids>,
    /// UUIDs of GPUs whose XIDs are heard.
    pub(super) heard: BTreeSet<String>,
}

#[derive(Debug)]
struct Inner {
    view: View,
    /// Since when calls are under way, and how long they may take.
    busy: Option<(Instant, Duration)>,
    stuck: bool,
    /// When the listener was last not waiting; `None` without one.
    listening: Option<Instant>,
    deaf: bool,
}

impl Inner {
    /// Nobody listens any more.
    fn silence(&mut self) {
        self.view.heard.clear();
        self.listening = None;
        self.deaf = false;
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// A snapshot older than this is not shown.
    limit: Duration,
    mode: GpuMode,
}

impl Shared {
    pub(super) fn new(interval: Duration, mode: GpuMode) -> Self {
        let view = View {
            snapshot: None,
            reason: Reason::Starting,
            generation: 0,
            poll_seconds: None,
            last_success: None,
            errors: BTreeMap::new(),
            stuck_total: 0,
            known: BTreeMap::new(),
            xids: BTreeMap::new(),
            heard: BTreeSet::new(),
        };
        Self {
            inner: Mutex::new(Inner {
                view,
                busy: None,
                stuck: false,
                listening: None,
                deaf: false,
            }),
            limit: interval.saturating_mul(3),
            mode,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before anything could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library is being loaded, and the GPUs found.
    pub(super) fn begin_start(&self) {
        self.lock().busy = Some((Instant::now(), self.limit.max(START_LIMIT)));
    }

    /// A poll begins.
    pub(super) fn begin_poll(&self) {
        self.lock().busy = Some((Instant::now(), self.limit));
    }

    /// A new generation: the library has been loaded.
    pub(super) fn started(&self) {
        let mut inner = self.lock();
        inner.view.generation += 1;
        inner.silence();
    }

    /// A poll has ended well.
    pub(super) fn publish(&self, snapshot: Snapshot, took: Duration) {
        let mut inner = self.lock();
        let came_back = std::mem::take(&mut inner.stuck);
        inner.busy = None;
        let view = &mut inner.view;
        for (identity, _) in &snapshot.gpus {
            view.known.insert(identity.uuid.clone(), identity.index);
        }
        let gpus = snapshot.gpus.len();
        let driver = snapshot.driver.clone();
        view.snapshot = Some(Arc::new(snapshot));
        view.poll_seconds = Some(took.as_secs_f64());
        view.last_success = Some(unix_time());
        let before = std::mem::replace(&mut view.reason, Reason::Ok);
        drop(inner);
        if before != Reason::Ok || came_back {
            tracing::info!(gpus, driver, "GPUs are read by NVML");
        }
    }

    /// There is nothing to show, and why. Said once, not at each attempt.
    pub(super) fn fail(&self, reason: Reason) {
        let mut inner = self.lock();
        inner.stuck = false;
        inner.busy = None;
        inner.view.snapshot = None;
        inner.silence();
        let before = std::mem::replace(&mut inner.view.reason, reason);
        drop(inner);
        if before == reason {
            return;
        }
        let (label, hint) = (reason.label(), reason.hint());
        if reason == Reason::LibraryNotFound && self.mode == GpuMode::Auto {
            tracing::info!(reason = label, "no GPU metrics: {hint}");
        } else {
            tracing::warn!(
                reason = label,
                "no GPU metrics: {hint}; trying again, at least each minute"
            );
        }
    }

    /// A call has failed.
    pub(super) fn error(&self, call: Call, fault: Fault) {
        *self.lock().view.errors.entry((call, fault)).or_default() += 1;
    }

    /// XIDs of these GPUs are heard from now on.
    pub(super) fn hears(&self, uuids: impl IntoIterator<Item = String>) {
        self.lock().view.heard.extend(uuids);
    }

    /// The listener is about to wait for XIDs, or to ask for them.
    pub(super) fn listens(&self, now: Instant) {
        let mut inner = self.lock();
        inner.listening = Some(now);
        let came_back = std::mem::take(&mut inner.deaf);
        drop(inner);
        if came_back {
            tracing::info!("XIDs are waited for again");
        }
    }

    /// The listener has ended, as it was told to.
    pub(super) fn listens_no_more(&self) {
        let mut inner = self.lock();
        inner.listening = None;
        inner.deaf = false;
    }

    /// A GPU has reported an XID.
    pub(super) fn xid(&self, uuid: &str, code: u64) {
        let mut inner = self.lock();
        let xids = inner.view.xids.entry(uuid.to_owned()).or_default();
        xids.last = code;
        let key = if xids.seen.len() < MAX_XIDS || xids.seen.contains_key(&code) {
            code
        } else {
            OTHER_XID
        };
        let (count, at) = xids.seen.entry(key).or_default();
        *count += 1;
        *at = unix_time();
    }

    /// Looks whether the poller or the listener hangs. The first to see it says so.
    pub(super) fn watch(&self, now: Instant) {
        let _view = self.view(now);
    }

    /// What to show now. Of a poller that hangs nothing is shown: neither its values nor that all is well.
    pub(super) fn view(&self, now: Instant) -> View {
        let mut inner = self.lock();
        let overdue = inner
            .busy
            .is_some_and(|(since, limit)| now.saturating_duration_since(since) > limit);
        let snapshot = inner.view.snapshot.as_ref();
        let stale = snapshot.is_some_and(|s| now.saturating_duration_since(s.taken) > self.limit);
        let stuck = overdue || stale;
        let newly = stuck && !inner.stuck;
        if newly {
            inner.stuck = true;
            inner.view.stuck_total += 1;
        }
        let deaf = inner
            .listening
            .is_some_and(|at| now.saturating_duration_since(at) > DEAF);
        let newly_deaf = deaf && !std::mem::replace(&mut inner.deaf, true);
        if newly_deaf {
            inner.view.stuck_total += 1;
        }
        let mut view = inner.view.clone();
        drop(inner);
        if newly_deaf {
            tracing::warn!(
                limit = ?DEAF,
                "a wait for XIDs does not come back from the driver; they are not shown until it does"
            );
        }
        if deaf {
            // 0 would mean that there was none.
            view.heard.clear();
        }
        if newly {
            tracing::warn!(
                reason = Reason::Stuck.label(),
                limit = ?self.limit,
                "no GPU metrics: {}; they come back when it does",
                Reason::Stuck.hint()
            );
        }
        if stuck {
            view.reason = Reason::Stuck;
        }
        if stuck || stale {
            view.snapshot = None;
        }
        view
    }
}

fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn snapshot() -> Snapshot {
        Snapshot {
            taken: Instant::now(),
            driver: String::new(),
            gpus: Vec::new(),
        }
    }

    #[test]
    fn a_hanging_poll_is_counted_once_and_forgiven() {
        let shared = Shared::new(INTERVAL, GpuMode::Auto);
        shared.publish(snapshot(), Duration::ZERO);
        shared.begin_poll();
        let now = Instant::now();
        assert_eq!(shared.view(now).reason, Reason::Ok);
        for _ in 0..3 {
            let view = shared.view(now + INTERVAL * 4);
            assert_eq!((view.reason, view.stuck_total), (Reason::Stuck, 1));
            assert!(view.snapshot.is_none());
        }
        shared.publish(snapshot(), Duration::ZERO);
        let view = shared.view(Instant::now());
        assert_eq!((view.reason, view.stuck_total), (Reason::Ok, 1));
        assert!(view.snapshot.is_some());
    }

    #[test]
    fn waiting_between_attempts_is_not_hanging() {
        let shared = Shared::new(INTERVAL, GpuMode::Auto);
        shared.begin_start();
        shared.fail(Reason::DriverNotLoaded);
        let view = shared.view(Instant::now() + INTERVAL * 100);
        assert_eq!(
            (view.reason, view.stuck_total),
            (Reason::DriverNotLoaded, 0)
        );
    }

    #[test]
    fn a_listener_that_hangs_is_counted_once_and_forgiven() {
        let shared = Shared::new(INTERVAL, GpuMode::Auto);
        shared.hears(["GPU-1".to_owned()]);
        let now = Instant::now();
        shared.listens(now);
        let at = |after| {
            let view = shared.view(now + after);
            (view.heard.len(), view.stuck_total)
        };
        assert_eq!(at(DEAF), (1, 0));
        for _ in 0..3 {
            assert_eq!(at(DEAF * 2), (0, 1));
        }
        shared.listens(now + DEAF * 2);
        assert_eq!(at(DEAF * 2), (1, 1));
        shared.listens_no_more();
        assert_eq!(at(DEAF * 9), (1, 1));
        shared.listens(now + DEAF * 2);
        // Without a generation nobody listens, which is no hanging.
        shared.fail(Reason::DriverNotLoaded);
        assert_eq!(at(DEAF * 9), (0, 1));
    }

    #[test]
    fn an_xid_storm_has_an_end() {
        let shared = Shared::new(INTERVAL, GpuMode::Auto);
        for code in 0..1000 {
            shared.xid("GPU-1", code);
        }
        let view = shared.view(Instant::now());
        let xids = &view.xids["GPU-1"];
        assert_eq!((xids.last, xids.seen.len()), (999, MAX_XIDS + 1));
        assert_eq!(xids.seen[&OTHER_XID].0, 1000 - MAX_XIDS as u64);
    }
}
