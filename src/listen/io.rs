//! The client's socket as hyper sees it, and what the proxy needs to know of it that hyper does not tell.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::head_watch::HeadWatch;
use super::shared::Shared;
use super::transport::Transport;
use crate::proxy::reply;

/// What a client that speaks HTTP/2 says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client connection.
#[derive(Debug)]
pub struct Downstream {
    io: Transport,
    shared: Arc<Shared>,
    watch: Option<HeadWatch>,
    /// What was read and is to be read again.
    early: Bytes,
    /// An answer of our own on its way out.
    out: Vec<u8>,
    /// Until the first request: hyper's own timer starts only once it knows the protocol.
    deadline: Option<Pin<Box<Sleep>>>,
    send_timeout: Option<Duration>,
    /// Since the client takes nothing.
    blocked: Option<Pin<Box<Sleep>>>,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From its connection to its first request.
    pub first_request: Duration,
    /// To take the next byte of an answer.
    pub send: Option<Duration>,
}

impl Downstream {
    /// A plain connection.
    #[must_use]
    pub fn plain(io: TcpStream, limits: Limits) -> Box<Self> {
        Self::new(Transport::Plain { io, unread: false }, limits)
    }

    /// A connection after its TLS handshake.
    #[must_use]
    pub fn tls(io: TlsStream<TcpStream>, limits: Limits) -> Box<Self> {
        Self::new(Transport::Tls(Box::new(io)), limits)
    }

    fn new(io: Transport, limits: Limits) -> Box<Self> {
        Box::new(Self {
            io,
            shared: Arc::new(Shared::new()),
            watch: None,
            early: Bytes::new(),
            out: Vec::new(),
            deadline: Some(Box::pin(tokio::time::sleep(limits.first_request))),
            send_timeout: limits.send,
            blocked: None,
        })
    }

    /// Whether it speaks HTTP/2, by its first bytes (RFC 9113 §3.4); which are read again.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        let mut first = [0; PREFACE.len()];
        let mut length = 0;
        while length < first.len() && PREFACE.starts_with(first.get(..length).unwrap_or_default()) {
            let read = std::future::poll_fn(|cx| {
                let mut buf = ReadBuf::new(first.get_mut(length..).unwrap_or_default());
                if Pin::new(&mut self.io).poll_read(cx, &mut buf)?.is_pending() {
                    return self.poll_deadline(cx).map_ok(|()| 0);
                }
                Poll::Ready(Ok(buf.filled().len()))
            });
            match read.await? {
                0 => break,
                read => length += read,
            }
        }
        let first = first.get(..length).unwrap_or_default();
        self.read_again(first);
        Ok(first == PREFACE)
    }

    /// Puts back what was read.
    fn read_again(&mut self, bytes: &[u8]) {
        // A copy, since hyper's read buffer hangs on even an empty piece of it.
        self.early = Bytes::from([bytes, &self.early].concat());
    }

    /// Takes it back from hyper, with what hyper has read and not used. A request has been served, so the limit of the
    /// first one is over, whether or not a read has noticed.
    pub(super) fn resume(&mut self, unused: &[u8]) {
        self.deadline = None;
        self.read_again(unused);
    }

    /// Whether it is a socket without TLS.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.io, Transport::Plain { .. })
    }

    /// Whether the client is gone. Otherwise this task is woken when it goes.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.io.poll_gone(cx)
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
        if self.shared.has_begun() {
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
        if let Some(side) = self.shared.take_side() {
            self.out.extend(side);
        }
    }

    /// What is ours to write before hyper's bytes.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.writing();
        // An interim response may have come together with the answer that hyper is about to write.
        self.take_side();
        self.poll_out(cx)
    }

    /// What a write came to; one that the client does not take for too long is an error, and ends the connection.
    fn limited<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let Some(limit) = self.send_timeout else {
            return Poll::Pending;
        };
        let blocked = self
            .blocked
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(blocked.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// hyper answers a head that it cannot parse by itself, with an empty body. This gives that answer the shape that
    /// clients can read. An answer of upstream that looks the same is left alone.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        let own = self.shared.is_hypers_own()
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
        if !this.early.is_empty() {
            let length = this.early.len().min(buf.remaining());
            buf.put_slice(this.early.get(..length).unwrap_or_default());
            this.early.advance(length);
            if this.early.is_empty() {
                this.early = Bytes::new();
            }
        } else if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
            return this.poll_deadline(cx);
        }
        if this.shared.is_idle() && !this.shared.is_http2() {
            if this.shared.take_served() {
                this.watch = None;
            }
            let watch = this.watch.get_or_insert_default();
            watch.feed(buf.filled().get(before..).unwrap_or_default());
            if watch.content_length() {
                this.shared.saw_content_length();
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
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.limited(cx, written)
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
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.limited(cx, written)
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
        this.shared.flushed();
        // hyper comes here whenever it has nothing more to do, also when it has stopped reading.
        if !this.shared.is_idle() && !this.shared.is_http2() && this.io.poll_gone(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
