//! The one signal that everything ends by: running → leaving → draining → cut → gone → over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Serving.
    Running,
    /// `/readyz` says 503; everything is still served.
    Leaving,
    /// No new connections; what runs may finish.
    Draining,
    /// The deadline, or nothing runs any more: whatever still does is dropped.
    Cut,
    /// No request is left.
    Gone,
    /// The process ends.
    Over,
}

/// Moves the process towards its end.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Stage>);

/// Follows it.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Stage>);

/// Answers that tell of the end, and that the process is to outlive.
#[derive(Clone, Debug, Default)]
pub struct Pending(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Outlived(Pending);

impl Pending {
    /// One more.
    #[must_use]
    pub fn begin(&self) -> Outlived {
        self.0.fetch_add(1, Ordering::SeqCst);
        Outlived(self.clone())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Outlived {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running process.
#[must_use]
pub fn channel() -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Trigger(sender), Drain(receiver))
}

impl Trigger {
    /// Goes on to `stage`; never back.
    pub fn advance(&self, stage: Stage) {
        self.0.send_if_modified(|now| {
            let later = *now < stage;
            if later {
                *now = stage;
            }
            later
        });
    }
}

impl Drain {
    /// Where it is now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Resolves once draining has begun.
    pub async fn started(&mut self) {
        self.reached(Stage::Draining).await;
    }

    /// Resolves once `stage` is reached, or nobody is left who could say so.
    pub async fn reached(&mut self, stage: Stage) {
        let _gone = self.0.wait_for(|now| *now >= stage).await;
    }
}
