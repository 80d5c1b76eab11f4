//! The client's socket as hyper sees it, and what the proxy needs to know of it that hyper does not tell.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::head_watch::HeadWatch;
use crate::proxy::reply;

/// A client connection.
#[derive(Debug)]
pub struct Downstream {
    io: Transport,
    shared: Arc<Shared>,
    watch: Option<HeadWatch>,
    /// An answer of our own on its way out.
    out: Vec<u8>,
    /// Until the first request: hyper's own timer starts only once it knows the protocol.
    deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a connection and its requests tell each other. Both live on one thread; it is `Sync` only because hyper wants
/// an upgradable connection to be `Send`.
#[derive(Debug)]
pub struct Shared {
    /// No request is being served: the next bytes are a head.
    idle: AtomicBool,
    /// A request has been served since the last head was watched.
    served: AtomicBool,
    content_length: AtomicBool,
    flush_wanted: AtomicBool,
    has_side: AtomicBool,
    /// What hyper writes next is the answer to a request that the proxy has been given.
    owed: AtomicBool,
    /// hyper's buffer was empty when it last flushed, and nothing has been written since.
    drained: AtomicBool,
    slow: Mutex<Slow>,
}

/// What is needed so rarely that a lock does not matter.
#[derive(Debug, Default)]
struct Slow {
    flush_waker: Option<Waker>,
    /// 1xx heads to be written between hyper's own bytes.
    side: Vec<u8>,
}

impl Shared {
    fn new() -> Self {
        Self {
            idle: AtomicBool::new(true),
            served: AtomicBool::new(false),
            content_length: AtomicBool::new(false),
            flush_wanted: AtomicBool::new(false),
            has_side: AtomicBool::new(false),
            owed: AtomicBool::new(false),
            drained: AtomicBool::new(true),
            slow: Mutex::default(),
        }
    }

    /// A request head has been read. Returns whether it had a `Content-Length` line, which hyper hides when there is a
    /// `Transfer-Encoding` too. (A head that was pipelined behind another is not watched; hyper's rule, to ignore the
    /// length and close the connection, then has to do.)
    pub fn begin_request(&self) -> bool {
        self.idle.store(false, Ordering::Relaxed);
        self.owed.store(true, Ordering::Relaxed);
        self.content_length.swap(false, Ordering::Relaxed)
    }

    /// The response is complete.
    pub fn end_request(&self) {
        self.idle.store(true, Ordering::Relaxed);
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

    /// Resolves once everything that hyper has been given is in the socket.
    ///
    /// An error from a response body makes hyper drop what it has buffered. A client is to see all that upstream sent
    /// before the cut, so the cut waits for this.
    pub fn poll_flushed(&self, cx: &mut Context<'_>, asked: &mut bool) -> Poll<()> {
        if *asked && !self.flush_wanted.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *asked = true;
        self.flush_wanted.store(true, Ordering::Relaxed);
        self.slow().flush_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flushed(&self) {
        if self.flush_wanted.swap(false, Ordering::Relaxed)
            && let Some(waker) = self.slow().flush_waker.take()
        {
            waker.wake();
        }
    }
}

impl Downstream {
    /// A plain connection.
    #[must_use]
    pub fn plain(io: TcpStream, first_request: Duration) -> Self {
        Self::new(Transport::Plain(io), first_request)
    }

    /// A connection after its TLS handshake.
    #[must_use]
    pub fn tls(io: TlsStream<TcpStream>, first_request: Duration) -> Self {
        Self::new(Transport::Tls(Box::new(io)), first_request)
    }

    fn new(io: Transport, first_request: Duration) -> Self {
        Self {
            io,
            shared: Arc::new(Shared::new()),
            watch: None,
            out: Vec::new(),
            deadline: Some(Box::pin(tokio::time::sleep(first_request))),
        }
    }

    /// The part that its requests share with it.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(deadline) = &mut self.deadline else {
            return Poll::Pending;
        };
        if !self.shared.idle.load(Ordering::Relaxed) || self.shared.served.load(Ordering::Relaxed) {
            self.deadline = None;
            return Poll::Pending;
        }
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the interim responses that are to be written now.
    fn take_side(&mut self) {
        if self.shared.has_side.swap(false, Ordering::Relaxed) {
            let side = std::mem::take(&mut self.shared.slow().side);
            self.out.extend(side);
        }
    }

    /// What is ours to write before hyper's bytes.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An interim response may have come together with the answer that hyper is about to write.
        self.take_side();
        ready!(self.poll_out(cx))?;
        self.shared.drained.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// hyper answers a head that it cannot parse by itself, with an empty body. This gives that answer the shape that
    /// clients can read. An answer of upstream that looks the same is left alone.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        let own = self.shared.idle.load(Ordering::Relaxed)
            && !self.shared.owed.load(Ordering::Relaxed)
            && self.watch.as_ref().is_some_and(HeadWatch::has_started)
            && bytes.starts_with(b"HTTP/1.1 4")
            && bytes.ends_with(b"\r\n\r\n");
        if own && let Some(answer) = reply::instead_of_hypers(bytes) {
            self.out = answer;
            return true;
        }
        false
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
            return this.poll_deadline(cx);
        }
        if this.shared.idle.load(Ordering::Relaxed) {
            if this.shared.served.swap(false, Ordering::Relaxed) {
                this.watch = None;
            }
            let watch = this.watch.get_or_insert_default();
            watch.feed(buf.filled().get(before..).unwrap_or_default());
            if watch.content_length() {
                this.shared.content_length.store(true, Ordering::Relaxed);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_before(cx))?;
        if this.replaces(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_before(cx))?;
        if let [only] = bufs
            && this.replaces(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this only when its own buffer is empty: the place for what must not fall between its bytes.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.take_side();
        ready!(this.poll_out(cx))?;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.shared.drained.store(true, Ordering::Relaxed);
        if this.shared.idle.load(Ordering::Relaxed) {
            this.shared.owed.store(false, Ordering::Relaxed);
        }
        this.shared.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
