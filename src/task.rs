//! One worker's tasks: spawned on its own thread, counted, so that a drain knows when the last has ended.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use tokio::sync::Notify;

/// Counts what is running. The only user of `spawn_local`.
#[derive(Debug, Default)]
pub struct Tasks {
    running: Cell<usize>,
    ended: Notify,
}

impl Tasks {
    /// Runs `future` on this thread, as part of what a drain waits for.
    pub fn spawn(self: &Rc<Self>, future: impl Future<Output = ()> + 'static) {
        let running = Running::new(self);
        tokio::task::spawn_local(async move {
            future.await;
            drop(running);
        });
    }

    /// How many are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// Resolves when none is running.
    pub async fn idle(&self) {
        while self.running.get() > 0 {
            self.ended.notified().await;
        }
    }
}

/// Counts one task, also when it is dropped with its runtime.
struct Running(Rc<Tasks>);

impl Running {
    fn new(tasks: &Rc<Tasks>) -> Self {
        tasks.running.set(tasks.running.get() + 1);
        Self(Rc::clone(tasks))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.ended.notify_one();
    }
}
