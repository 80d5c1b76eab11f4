//! Requests that wait for a place at an upstream: first come, first served, among those that the upstream is for.
//!
//! A place is handed to the one who waits, not freed and fought for. Who leaves frees his place in the queue by dropping
//! what he waits on; a place that had been handed to him meanwhile goes to the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::endpoint::Seat;
use super::table::Table;

/// The queue of one gateway.
#[derive(Debug)]
pub struct Queue {
    most: usize,
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    model: Option<Box<str>>,
    /// Upstreams that will do, by their numbers.
    pool: Vec<usize>,
    hand: oneshot::Sender<Seat>,
}

/// A place in the queue.
#[derive(Debug)]
pub struct Waiting {
    queue: Arc<Queue>,
    number: u64,
    seat: oneshot::Receiver<Seat>,
}

impl Queue {
    /// At most so many wait.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
        })
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Joins at the end. `None`: it is full. Whoever has joined must look for a free place once more: one may have become
    /// free just before.
    pub(super) fn join(self: &Arc<Self>, model: Option<&str>, pool: Vec<usize>) -> Option<Waiting> {
        let (hand, seat) = oneshot::channel();
        let mut line = self.line();
        if line.waiters.len() >= self.most {
            return None;
        }
        let number = line.next;
        line.next += 1;
        line.waiters.push_back(Waiter {
            number,
            model: model.map(Box::from),
            pool,
            hand,
        });
        self.count(&line);
        Some(Waiting {
            queue: Arc::clone(self),
            number,
            seat,
        })
    }

    /// Whether anybody waits for this upstream.
    pub(super) fn is_waited_for(&self, endpoint: usize) -> bool {
        self.waiting() > 0
            && self
                .line()
                .waiters
                .iter()
                .any(|waiter| waiter.pool.contains(&endpoint))
    }

    /// Hands a place to the first who waits for it. Returns it if nobody does.
    pub(super) fn pass(&self, mut seat: Seat) -> Option<Seat> {
        let id = seat.endpoint().id();
        loop {
            let waiter = {
                let mut line = self.line();
                let mut waiters = line.waiters.iter();
                let first = waiters.position(|waiter| waiter.pool.contains(&id));
                let waiter = first.and_then(|first| line.waiters.remove(first));
                self.count(&line);
                waiter
            };
            // Not under the lock: a place that is dropped looks for the next.
            match waiter {
                None => return Some(seat),
                Some(waiter) => match waiter.hand.send(seat) {
                    Ok(()) => return None,
                    Err(back) => seat = back,
                },
            }
        }
    }

    /// Who serves what has changed.
    pub(super) fn sort_anew(&self, table: &Table) {
        if self.waiting() == 0 {
            return;
        }
        for waiter in &mut self.line().waiters {
            waiter.pool = table.ids(waiter.model.as_deref());
        }
    }

    fn count(&self, line: &Line) {
        self.waiting.store(line.waiters.len(), SeqCst);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Waits for a place, for so long.
    pub async fn seat(mut self, limit: Duration) -> Option<Seat> {
        match tokio::time::timeout(limit, &mut self.seat).await {
            Ok(seat) => seat.ok(),
            Err(_elapsed) => None,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        let found = line
            .waiters
            .iter()
            .position(|waiter| waiter.number == self.number);
        if let Some(found) = found {
            let gone = line.waiters.remove(found);
            self.queue.count(&line);
            drop(line);
            drop(gone);
        }
    }
}
