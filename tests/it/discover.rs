//! Upstreams that come and go, by DNS and by Kubernetes.

#[cfg(feature = "kubernetes")]
#[path = "discover/api.rs"]
mod api;
#[path = "discover/by_name.rs"]
mod by_name;
#[cfg(feature = "kubernetes")]
#[path = "discover/by_slices.rs"]
mod by_slices;
#[path = "discover/names.rs"]
mod names;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use tokenglass::discover::{Change, Discovery, Failure, Report, Settings, Target};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// For what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a gateway would see.
pub struct Seen {
    runtime: LocalRuntime,
    discovery: Discovery,
    told: Rc<Told>,
    upstreams: BTreeSet<String>,
    /// `+` and `-`, in order.
    pub changes: Vec<String>,
}

#[derive(Default)]
struct Told(RefCell<Vec<Result<usize, Failure>>>);

impl Report for Told {
    fn reached(&self, _: &Target, upstreams: usize) {
        self.0.borrow_mut().push(Ok(upstreams));
    }

    fn failed(&self, _: &Target, failure: Failure) {
        self.0.borrow_mut().push(Err(failure));
    }
}

impl Seen {
    pub fn start(targets: &[&str], settings: &Settings) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        let told = Rc::new(Told::default());
        let report: Rc<dyn Report> = told.clone();
        let targets: Vec<Target> = targets.iter().map(|text| text.parse().unwrap()).collect();
        let discovery = runtime.block_on(async { Discovery::start(&targets, settings, &report) });
        Self {
            runtime,
            discovery,
            told,
            upstreams: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    fn next(&mut self, patience: Duration) -> bool {
        let next = self.discovery.next();
        let next = async { tokio::time::timeout(patience, next).await };
        let Ok(change) = self.runtime.block_on(next) else {
            return false;
        };
        match change {
            Change::Insert(key, url) => {
                assert_eq!(key, url);
                self.changes.push(format!("+{url}"));
                assert!(self.upstreams.insert(url.to_string()), "{url} came twice");
            }
            Change::Remove(url) => {
                self.changes.push(format!("-{url}"));
                assert!(
                    self.upstreams.remove(&url.to_string()),
                    "{url} was not there"
                );
            }
        }
        true
    }

    /// Waits until these are the upstreams, `http://` before them.
    pub fn until(&mut self, wanted: &[&str]) {
        let wanted: BTreeSet<_> = wanted
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        while self.upstreams != wanted {
            assert!(
                self.next(PATIENCE),
                "{:?} instead of {wanted:?} after {:?}; {:?}",
                self.upstreams,
                self.changes,
                self.told.0.borrow(),
            );
        }
    }

    /// Nothing changes for so long.
    pub fn quiet(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while let Some(left) = until
            .checked_duration_since(tokio::time::Instant::now())
            .filter(|left| !left.is_zero())
        {
            assert!(!self.next(left), "{:?}", self.changes);
        }
    }

    /// Waits until the source was told to be so, and forgets what was told until then. Nothing changes meanwhile.
    pub fn told(&mut self, wanted: Result<usize, Failure>) {
        let until = std::time::Instant::now() + PATIENCE;
        while !self.told.0.borrow().contains(&wanted) {
            assert!(
                std::time::Instant::now() < until,
                "{wanted:?} is not in {:?}",
                self.told.0.borrow()
            );
            self.quiet(Duration::from_millis(10));
        }
        self.forget();
    }

    pub fn forget(&self) {
        self.told.0.borrow_mut().clear();
    }

    pub fn failures(&self) -> Vec<Failure> {
        self.told
            .0
            .borrow()
            .iter()
            .filter_map(|told| told.err())
            .collect()
    }
}
