//! A bounded queue to a thread that looks into it by itself.
//!
//! To wake a thread is a system call, and the woken one competes for the core with the stream that it was woken by. So
//! it is not woken while there is traffic: it takes all there is, dozes for some milliseconds and looks again. Only when
//! nothing has come for a while does it sleep until it is woken: an idle program does not tick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{self, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::beside;

/// Between two looks. Counts come so much later, and are scraped every few seconds.
const DOZE: Duration = Duration::from_millis(10);

/// Looks at an empty queue before it sleeps: a fifth of a second.
const LOOKS: u32 = 20;

/// Where to put things in. When it is dropped, the thread takes what is left and ends.
#[derive(Debug)]
pub(super) struct Sender<T> {
    // In this order: what the waker wakes the thread for is that nothing comes any more.
    queue: SyncSender<T>,
    waker: Waker,
}

#[derive(Debug)]
struct Waker {
    asleep: Arc<AtomicBool>,
    thread: Thread,
}

/// Where the thread takes them out, first in, first out, until there will be no more.
#[derive(Debug)]
pub(super) struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    asleep: Arc<AtomicBool>,
    /// Looks in a row that found nothing.
    empty: u32,
}

/// Starts a thread behind a queue of that capacity.
pub(super) fn start<T: Send + 'static>(
    name: &str,
    capacity: usize,
    body: impl FnOnce(Receiver<T>) + Send + 'static,
) -> std::io::Result<Sender<T>> {
    let (sender, receiver) = sync_channel(capacity);
    let asleep = Arc::new(AtomicBool::new(false));
    let receiver = Receiver {
        queue: receiver,
        asleep: Arc::clone(&asleep),
        // Nothing has come so far.
        empty: LOOKS,
    };
    let thread = beside::spawn(name, move || body(receiver))?;
    Ok(Sender {
        queue: sender,
        waker: Waker {
            asleep,
            thread: thread.thread().clone(),
        },
    })
}

// === impl Sender ===

impl<T> Sender<T> {
    /// Puts one in, which the thread takes when it looks. It comes back if there is no room, or no thread.
    pub(super) fn send(&self, one: T) -> Result<(), T> {
        self.queue.try_send(one).map_err(|refused| match refused {
            TrySendError::Full(one) | TrySendError::Disconnected(one) => one,
        })
    }

    /// Has the thread look now if it is asleep.
    pub(super) fn wake(&self) {
        // What was put in, then a look at whether it sleeps: the thread looks the other way round, so one of the two sees
        // the other.
        fence(Ordering::SeqCst);
        let asleep = &self.waker.asleep;
        if asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::Relaxed) {
            self.waker.thread.unpark();
        }
    }

    /// Has it look now even if it only dozes.
    pub(super) fn hurry(&self) {
        self.waker.thread.unpark();
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

// === impl Receiver ===

impl<T> Iterator for Receiver<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            match self.queue.try_recv() {
                Ok(one) => {
                    self.empty = 0;
                    self.asleep.store(false, Ordering::Relaxed);
                    return Some(one);
                }
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            if self.empty < LOOKS {
                self.empty += 1;
                thread::park_timeout(DOZE);
            } else if !self.asleep.swap(true, Ordering::Relaxed) {
                // It says so, then looks once more.
                fence(Ordering::SeqCst);
            } else {
                thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_put_in_comes_out_awake_or_asleep() {
        let (out, taken) = channel();
        let sender = start("queue", 4, move |all| {
            all.for_each(|one: u32| out.send(one).unwrap());
        })
        .unwrap();
        for number in 0..50 {
            sender.send(number).unwrap();
            sender.wake();
            assert_eq!(taken.recv(), Ok(number));
            if number % 10 == 0 {
                thread::sleep(DOZE * (LOOKS + 10));
            }
        }
    }

    #[test]
    fn the_last_ones_are_taken_and_the_thread_ends() {
        let (out, taken) = channel();
        let sender = start("queue", 4, move |all| {
            all.for_each(|one: u32| out.send(one).unwrap());
        })
        .unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        // Nobody has woken it.
        drop(sender);
        assert_eq!(taken.iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn who_hurries_does_not_wait() {
        let (out, taken) = channel();
        let sender = start("queue", 4, move |all| {
            all.for_each(|one: u32| out.send(one).unwrap());
        })
        .unwrap();
        let started = Instant::now();
        for number in 0..100 {
            sender.send(number).unwrap();
            sender.hurry();
            assert_eq!(taken.recv(), Ok(number));
        }
        assert!(started.elapsed() < DOZE * 50);
    }
}
