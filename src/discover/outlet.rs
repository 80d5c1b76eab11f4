//! Where a source says what it has found and what went wrong.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::rc::Rc;

use tokio::sync::mpsc;

use super::{Failure, Found, Report, Target};
use crate::log_limit::LogLimit;

/// One source's way out.
pub(super) struct Outlet {
    place: usize,
    target: Target,
    sender: mpsc::UnboundedSender<(usize, Found)>,
    report: Rc<dyn Report>,
    log: LogLimit,
    last: RefCell<Last>,
}

#[derive(Default)]
struct Last {
    /// `None` until the source was reached for the first time.
    found: Option<Found>,
    failing: bool,
}

impl Outlet {
    pub(super) fn new(
        place: usize,
        target: Target,
        sender: mpsc::UnboundedSender<(usize, Found)>,
        report: Rc<dyn Report>,
    ) -> Self {
        Self {
            place,
            target,
            sender,
            report,
            log: LogLimit::default(),
            last: RefCell::new(Last::default()),
        }
    }

    /// The source was reached, and this is what is there.
    pub(super) fn found(&self, found: Found) {
        self.report.reached(&self.target, found.len());
        let mut last = self.last.borrow_mut();
        if std::mem::take(&mut last.failing) {
            tracing::info!(source = %self.target, "upstreams can be discovered again");
        }
        if last.found.as_ref() == Some(&found) {
            return;
        }
        tracing::info!(source = %self.target, upstreams = found.len(), "discovered");
        last.found = Some(found.clone());
        // Nobody listens any more only when the source is about to be ended.
        let _ = self.sender.send((self.place, found));
    }

    /// The source was not reached.
    pub(super) fn failed(&self, failure: Failure, error: &dyn Display) {
        self.report.failed(&self.target, failure);
        let mut last = self.last.borrow_mut();
        last.failing = true;
        let kept = last.found.as_ref().map_or(0, Found::len);
        if let Some(suppressed) = self.log.permit() {
            tracing::warn!(source = %self.target, %error, suppressed, kept, "upstreams cannot be discovered; those known stay");
        }
    }

    /// What a watch went on from is gone, as it happens now and then: nothing to be alarmed by.
    #[cfg(feature = "kubernetes")]
    pub(super) fn expired(&self) {
        self.report.failed(&self.target, Failure::Expired);
        tracing::debug!(source = %self.target, "the watch has expired; everything is listed again");
    }

    /// Something is odd, yet it was reached.
    pub(super) fn doubtful(&self, what: &str) {
        if let Some(suppressed) = self.log.permit() {
            tracing::warn!(source = %self.target, suppressed, "{what}");
        }
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
