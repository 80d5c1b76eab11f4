//! One byte stream over TCP or a Unix socket, with the non-blocking calls that let a writer notice a leaving peer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Listen {
    /// A TCP address; port 0 picks one.
    Tcp(std::net::SocketAddr),
    /// A Unix socket path, created on start and removed when the server goes.
    Unix(PathBuf),
}

/// A bound listener of either kind.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connections that wait to be accepted.
pub(crate) const BACKLOG: i32 = 8192;

// === impl Listener ===

impl Listener {
    /// Binds. Must be called inside a tokio runtime.
    pub(crate) fn bind(listen: &Listen, reuse_port: bool) -> io::Result<Self> {
        match listen {
            Listen::Tcp(addr) => {
                let domain = socket2::Domain::for_address(*addr);
                let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                if reuse_port {
                    socket.set_reuse_port(true)?;
                }
                socket.set_nonblocking(true)?;
                socket.bind(&(*addr).into())?;
                // The default backlog drops connections when a test opens thousands at once.
                socket.listen(BACKLOG)?;
                TcpListener::from_std(socket.into()).map(Self::Tcp)
            }
            Listen::Unix(path) => UnixListener::bind(path).map(Self::Unix),
        }
    }

    pub(crate) fn addr(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// How many connections may wait to be accepted from now on.
    pub(crate) fn limit_backlog(&self, most: i32) {
        if let Self::Tcp(listener) = self {
            let _ = socket2::SockRef::from(listener).listen(most);
        }
    }

    /// The next connection. An error such as "too many open files" is waited out, not passed on.
    pub(crate) async fn accept(&self) -> Socket {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(s, _)| Socket::tcp(s)),
                Self::Unix(listener) => listener.accept().await.map(|(s, _)| Socket::Unix(s)),
            };
            match accepted {
                Ok(socket) => return socket,
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

// === impl Socket ===

impl Socket {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Without it Nagle would merge frames and the timings would be the kernel's.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.readable().await,
            Self::Unix(s) => s.readable().await,
        }
    }

    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<tokio::io::Ready> {
        match self {
            Self::Tcp(s) => s.ready(interest).await,
            Self::Unix(s) => s.ready(interest).await,
        }
    }

    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_read(buf),
            Self::Unix(s) => s.try_read(buf),
        }
    }

    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_write(buf),
            Self::Unix(s) => s.try_write(buf),
        }
    }

    /// Closes with RST instead of FIN. A Unix socket has no RST: there it is a plain close.
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = self {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            drop(stream);
        }
    }
}
