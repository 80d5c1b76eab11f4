//! The client's socket, plain or TLS, and whether anybody is still at its other end.

use std::io::{self, IoSlice, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::gather::{Small, gather};

/// A socket.
#[derive(Debug)]
pub(super) enum Transport {
    Plain {
        io: TcpStream,
        /// tokio was told that there is nothing to read, which may not be true: the kernel is asked first.
        unread: bool,
    },
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Whether the client is gone. Otherwise this task is woken when it goes.
    ///
    /// hyper notices by itself while it reads. It does not read while it holds bytes that it cannot use yet, of a
    /// pipelined request or a stray line end, and would then never see the end behind them. tokio's readiness is put out
    /// for that, so that it can be waited for again; [`AsyncRead`] makes up for it. (Within TLS it cannot be put out, and
    /// with such bytes unread in the socket a client that leaves is noticed by the next write only.)
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let tcp = match self {
                Self::Plain { io, .. } => &*io,
                Self::Tls(io) => io.get_ref().0,
            };
            match tcp.poll_read_ready(cx) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) if has_hung_up(tcp) => return true,
                Poll::Ready(Ok(())) => {}
            }
            let Self::Plain { io, unread } = self else {
                return false;
            };
            *unread = true;
            let _would_block = io.try_io(Interest::READABLE, || {
                Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock))
            });
        }
    }
}

/// The peer has closed its side, whatever it sent before.
#[cfg(target_os = "linux")]
fn has_hung_up(tcp: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut sockets = [PollFd::new(tcp, PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut sockets, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Elsewhere hyper's own look has to do.
#[cfg(not(target_os = "linux"))]
fn has_hung_up(_: &TcpStream) -> bool {
    false
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { io, unread } => {
                if *unread {
                    match (&*SockRef::from(&*io)).read(buf.initialize_unfilled()) {
                        Ok(read) => {
                            buf.advance(read);
                            return Poll::Ready(Ok(()));
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => *unread = false,
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                Pin::new(io).poll_read(cx, buf)
            }
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
            Self::Plain { io, .. } => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { io, .. } => match gather(bufs, &mut Small::new()) {
                Some(whole) => Pin::new(io).poll_write(cx, whole),
                None => Pin::new(io).poll_write_vectored(cx, bufs),
            },
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { io, .. } => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { io, .. } => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
