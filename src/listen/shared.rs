//! What a client connection and its requests tell each other.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::Version;

/// Both live on one thread; it is `Sync` only because hyper wants an upgradable connection to be `Send`.
#[derive(Debug)]
pub struct Shared {
    /// Requests that are being served; HTTP/2 may have many. At none the next bytes of an HTTP/1.1 client are a head.
    running: AtomicU32,
    /// The connection speaks HTTP/2.
    http2: AtomicBool,
    /// A request has been served since the last head was watched.
    served: AtomicBool,
    content_length: AtomicBool,
    flush_wanted: AtomicBool,
    has_side: AtomicBool,
    /// What hyper writes next is the answer to a request that the proxy has been given.
    owed: AtomicBool,
    /// hyper's buffer was empty when it last flushed, and nothing has been written since.
    drained: AtomicBool,
    /// hyper has written something since the last request began.
    spoken: AtomicBool,
    slow: Mutex<Slow>,
}

/// A request is being served for as long as this lives.
#[derive(Debug)]
pub struct Serving {
    shared: Arc<Shared>,
    content_length: bool,
}

impl Serving {
    /// Whether the raw head had a `Content-Length` line, which hyper hides when there is a `Transfer-Encoding` too. (A head
    /// that was pipelined behind another is not watched; hyper's rule, to ignore the length and close the connection, then
    /// has to do.)
    #[must_use]
    pub fn has_content_length(&self) -> bool {
        self.content_length
    }
}

impl Deref for Serving {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.end_request();
        cut();
    }
}

thread_local! {
    /// Requests of this thread that were dropped since its end began.
    static CUT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What this thread still serves is about to be dropped.
pub(crate) fn begin_cut() {
    CUT.set(Some(0));
}

/// How many requests that has cut.
pub(crate) fn end_cut() -> u64 {
    CUT.take().unwrap_or(0)
}

/// A request is over: by being cut, if nothing else happens any more.
pub(crate) fn cut() {
    if let Some(count) = CUT.get() {
        CUT.set(Some(count + 1));
    }
}

/// What is needed so rarely that a lock does not matter.
#[derive(Debug, Default)]
struct Slow {
    flush_waker: Option<Waker>,
    /// 1xx heads to be written between hyper's own bytes.
    side: Vec<u8>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            running: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            served: AtomicBool::new(false),
            content_length: AtomicBool::new(false),
            flush_wanted: AtomicBool::new(false),
            has_side: AtomicBool::new(false),
            owed: AtomicBool::new(false),
            drained: AtomicBool::new(true),
            spoken: AtomicBool::new(false),
            slow: Mutex::default(),
        }
    }

    /// A request head has been read.
    pub fn begin_request(self: &Arc<Self>, version: Version) -> Serving {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.http2
            .store(version == Version::HTTP_2, Ordering::Relaxed);
        self.owed.store(true, Ordering::Relaxed);
        self.spoken.store(false, Ordering::Relaxed);
        Serving {
            content_length: self.content_length.swap(false, Ordering::Relaxed),
            shared: Arc::clone(self),
        }
    }

    fn end_request(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
    }

    /// Writes an interim response before what hyper writes next. One that would have to wait for a slow reader of an
    /// earlier, pipelined answer is left out: behind hyper's next head it would break the connection.
    pub fn send_informational(&self, head: Vec<u8>) {
        if !self.drained.load(Ordering::Relaxed) {
            return;
        }
        self.slow().side.extend(head);
        self.has_side.store(true, Ordering::Relaxed);
    }

    /// Whether no request is being served.
    pub fn is_idle(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }

    /// HTTP/1.1: whether a request is being served whose answer's head is not out yet.
    pub(super) fn is_asked(&self) -> bool {
        !self.is_idle() && !self.spoken.load(Ordering::Relaxed)
    }

    /// Whether the connection speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// HTTP/1.1: resolves once everything that hyper has been given is in the socket.
    pub fn poll_flushed(&self, cx: &mut Context<'_>, asked: &mut bool) -> Poll<()> {
        if *asked && !self.flush_wanted.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *asked = true;
        self.flush_wanted.store(true, Ordering::Relaxed);
        self.slow().flush_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A head that was not watched from its beginning tells nothing.
    pub(super) fn take_served(&self) -> bool {
        self.served.swap(false, Ordering::Relaxed)
    }

    /// Whether a request has begun on this connection, ever.
    pub(super) fn has_begun(&self) -> bool {
        !self.is_idle() || self.served.load(Ordering::Relaxed)
    }

    /// The raw head has a `Content-Length` line.
    pub(super) fn saw_content_length(&self) {
        self.content_length.store(true, Ordering::Relaxed);
    }

    /// Whether hyper is writing an answer that nobody gave it.
    pub(super) fn is_hypers_own(&self) -> bool {
        self.is_idle() && !self.owed.load(Ordering::Relaxed)
    }

    /// Interim heads to be written now.
    pub(super) fn take_side(&self) -> Option<Vec<u8>> {
        self.has_side
            .swap(false, Ordering::Relaxed)
            .then(|| std::mem::take(&mut self.slow().side))
    }

    /// Whether the socket has all that hyper has been given.
    pub(super) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// hyper hands bytes on.
    pub(super) fn writing(&self) {
        self.spoken.store(true, Ordering::Relaxed);
        self.drained.store(false, Ordering::Relaxed);
    }

    /// hyper's buffer and the socket's are empty.
    pub(super) fn flushed(&self) {
        self.drained.store(true, Ordering::Relaxed);
        if self.is_idle() {
            self.owed.store(false, Ordering::Relaxed);
        }
        if self.flush_wanted.swap(false, Ordering::Relaxed)
            && let Some(waker) = self.slow().flush_waker.take()
        {
            waker.wake();
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
