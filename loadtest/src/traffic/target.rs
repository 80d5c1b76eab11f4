//! Where traffic goes.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::{TcpStream, UnixStream};

use crate::net::Socket;

/// A server to send to.
#[derive(Clone, Debug)]
pub enum Target {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a Unix socket.
    Unix(PathBuf),
}

/// A target that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not `http://host:port` or `unix:path`.
    #[error("`{0}` is neither http://host[:port] nor unix:path")]
    Syntax(String),
    /// The host has no address.
    #[error("`{0}` has no address")]
    Unresolved(String),
}

// === impl Target ===

impl Target {
    pub(crate) async fn connect(&self) -> std::io::Result<Socket> {
        match self {
            Self::Tcp(addr) => TcpStream::connect(addr).await.map(Socket::tcp),
            Self::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| TargetError::Syntax(text.to_owned()))?;
        let authority = rest.split('/').next().unwrap_or_default();
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        authority
            .to_socket_addrs()
            .ok()
            .and_then(|mut addrs| addrs.next())
            .map(Self::Tcp)
            .ok_or(TargetError::Unresolved(authority))
    }
}
