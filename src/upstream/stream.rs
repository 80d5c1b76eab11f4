//! One connection to upstream, of whichever kind.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::ConnectionGuard;
use crate::gather::{Small, gather};

/// Idle for so short a time a connection counts as just used.
const FRESH: Duration = Duration::from_millis(1);

/// An open connection.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    reused: bool,
    _open: ConnectionGuard,
}

/// The transports. TLS is boxed: its state is two orders larger than a socket's.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(super) fn new(io: Io, open: ConnectionGuard) -> Self {
        Self {
            io,
            reused: false,
            _open: open,
        }
    }

    pub(super) fn mark_reused(&mut self) {
        self.reused = true;
    }

    /// Whether it comes from the pool.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// An idle connection is alive if it has nothing to say: data out of turn is as bad as an end.
    ///
    /// After `idle` the kernel is asked: what tokio knows is as old as this worker's last look at all sockets. A connection
    /// that has idled for less than [`FRESH`] is no older than a look or two, and is believed what tokio knows (by way of
    /// `try_io`: a poll in a task that has used up its budget would say "nothing" whatever there is). That spares a busy
    /// proxy one system call of five a request.
    pub(super) fn is_quiet(&self, idle: Duration) -> bool {
        let socket = match &self.io {
            Io::Tcp(io) => SockRef::from(io),
            Io::Unix(io) => SockRef::from(io),
            Io::Tls(io) => SockRef::from(io.get_ref().0),
        };
        let peek = || socket.peek(&mut [MaybeUninit::uninit()]);
        let peeked = if idle >= FRESH {
            peek()
        } else {
            match &self.io {
                Io::Tcp(io) => io.try_io(Interest::READABLE, peek),
                Io::Unix(io) => io.try_io(Interest::READABLE, peek),
                Io::Tls(io) => io.get_ref().0.try_io(Interest::READABLE, peek),
            }
        };
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

macro_rules! each {
    ($stream:expr, $io:ident => $call:expr) => {
        match &mut $stream.io {
            Io::Tcp($io) => $call,
            Io::Unix($io) => $call,
            Io::Tls($io) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Io::Tcp(io) = &mut this.io
            && let Some(whole) = gather(bufs, &mut Small::new())
        {
            return Pin::new(io).poll_write(cx, whole);
        }
        each!(this, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}

/// A connection after a 101, with the bytes that came behind its head.
#[derive(Debug)]
pub struct Tunnel {
    pub(super) stream: Stream,
    pub(super) early: bytes::Bytes,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let now = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
