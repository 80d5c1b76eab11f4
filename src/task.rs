//! One worker's tasks: spawned on its own thread, counted, so that a drain knows when the last has ended.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
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
        tokio::task::spawn_local(Counted {
            future,
            _running: Running::new(self),
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

pin_project! {
    /// A future that counts as running. Not an `async` block, which would keep room for `future` twice: once for what it
    /// takes, once for what it awaits.
    struct Counted<F> {
        #[pin]
        future: F,
        _running: Running,
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().future.poll(cx)
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
