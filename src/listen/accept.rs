//! The accept loop of one worker.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::conn::Http;
use super::{Downstream, tls};
use crate::drain::Drain;
use crate::log_limit::LogLimit;
use crate::proxy::Proxy;
use crate::task::Tasks;

/// Pause when the process has no descriptor left: accepting again at once would only spin.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// What the accept loop needs.
#[expect(missing_debug_implementations, reason = "rustls' acceptor has none")]
pub struct Acceptor {
    /// This worker's handle of the one listening socket.
    pub listener: TcpListener,
    /// TLS, if configured.
    pub tls: Option<TlsAcceptor>,
    /// Open connections of all workers; without a permit a connection waits in the backlog.
    pub permits: Arc<Semaphore>,
    /// `tokenglass_downstream_connections`
    pub open: IntGauge,
    /// The HTTP server.
    pub http: Rc<Http>,
    /// What serves requests.
    pub proxy: Rc<Proxy>,
    /// Where connections run.
    pub tasks: Rc<Tasks>,
}

impl Acceptor {
    /// Accepts until the drain begins.
    pub async fn run(self, mut drain: Drain) {
        let errors = LogLimit::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = drain.started() => return,
            };
            match accepted {
                Ok((stream, permit)) => self.serve(stream, permit, drain.clone()),
                Err(error) => {
                    if let Some(suppressed) = errors.permit() {
                        tracing::warn!(%error, suppressed, "cannot accept a connection");
                    }
                    // EMFILE and ENFILE pass; a connection that its client has taken back (ECONNABORTED) is no reason to wait.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tokio::time::sleep(EXHAUSTED).await;
                    }
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, Permit)> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, _peer) = self.listener.accept().await?;
        // Without it a small frame may wait 40 ms for the client's delayed ACK.
        stream.set_nodelay(true)?;
        Ok((stream, Permit::new(permit, &self.open)))
    }

    fn serve(&self, stream: TcpStream, permit: Permit, drain: Drain) {
        let http = Rc::clone(&self.http);
        let proxy = Rc::clone(&self.proxy);
        let tls = self.tls.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            let io = match tls {
                None => Downstream::plain(stream, http.limits()),
                Some(acceptor) => {
                    // Boxed, or every connection would keep room for a handshake.
                    let handshake = Box::pin(acceptor.accept(stream));
                    match tokio::time::timeout(tls::HANDSHAKE, handshake).await {
                        Ok(Ok(stream)) => Downstream::tls(stream, http.limits()),
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "a TLS handshake failed");
                            return;
                        }
                        Err(_elapsed) => return,
                    }
                }
            };
            http.serve(io, proxy, drain).await;
        });
    }
}

/// Holds a connection's place and counts it.
#[derive(Debug)]
struct Permit {
    _permit: tokio::sync::OwnedSemaphorePermit,
    open: IntGauge,
}

impl Permit {
    fn new(permit: tokio::sync::OwnedSemaphorePermit, open: &IntGauge) -> Self {
        open.inc();
        Self {
            _permit: permit,
            open: open.clone(),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// A listening socket, shared by all workers: whichever is idle takes the next connection.
///
/// # Errors
/// The system's, e.g. address in use.
pub fn bind(address: std::net::SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Not SO_REUSEPORT: a second process on the same port must fail, not quietly take half of the traffic.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
