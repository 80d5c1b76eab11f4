//! The webhook's two ports: TLS for the API server, plain for metrics and health.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use super::counters::Counters;
use super::{certificate, review};
use crate::config::TlsFiles;
use crate::kubernetes::injector::Settings;
use crate::listen::tls;
use crate::signals::Signals;

/// The API server takes objects of up to 3 MiB, and a review has little around one.
const LARGEST: usize = 4 << 20;
/// For a request's body. The API server itself gives up after the webhook's `timeoutSeconds`.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one request to the next on a connection.
const HEADER_READ: Duration = Duration::from_secs(120);
/// Whether an HTTP/2 peer is still there.
const PING: Duration = Duration::from_secs(60);
/// As many pods at a time as Go's client asks for on one connection.
const STREAMS: u32 = 250;
/// Connections at a time; the API server has a few, and each pod that is created waits for one.
const CONNECTIONS: usize = 1024;
/// How long it goes on serving after SIGTERM, until nobody is sent here any more.
const LINGER: Duration = Duration::from_secs(5);

/// How a webhook runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the API server.
    pub listen: SocketAddr,
    /// For metrics and health.
    pub admin: SocketAddr,
    /// The certificate.
    pub tls: TlsFiles,
    /// How sidecars are made, where pods say nothing else.
    pub settings: Settings,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A port that cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No runtime or signals.
    #[error("cannot start")]
    Start(#[from] io::Error),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// A name given twice; never.
    #[error("cannot count")]
    Counters(#[from] prometheus::Error),
}

/// A webhook that has its ports.
#[expect(missing_debug_implementations, reason = "rustls' acceptor has none")]
pub struct Server {
    listener: TcpListener,
    admin: TcpListener,
    acceptor: TlsAcceptor,
    options: Options,
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    counters: Counters,
    leaving: AtomicBool,
}

/// Which port a request came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Reviews,
    Admin,
}

/// Runs the webhook until SIGTERM or SIGINT; a second one ends it at once.
///
/// # Errors
/// If it cannot start.
pub fn run(options: Options) -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let server = Server::bind(options).await?;
        let (webhook, admin) = (server.address()?, server.admin_address()?);
        tracing::info!(%webhook, %admin, "listening");
        let shared = Arc::clone(&server.shared);
        tokio::select! {
            () = server.serve() => {}
            () = async {
                signals.end().await;
                shared.leaving.store(true, Ordering::Relaxed);
                tokio::select! {
                    () = signals.end() => {}
                    () = tokio::time::sleep(LINGER) => {}
                }
            } => {}
        }
        Ok(())
    })
}

impl Server {
    /// Takes the ports and reads the certificate.
    ///
    /// # Errors
    /// If either cannot be had.
    pub async fn bind(options: Options) -> Result<Self, Problem> {
        let acceptor = tls::acceptor(&options.tls)?;
        let shared = Arc::new(Shared {
            settings: options.settings.clone(),
            counters: Counters::new()?,
            leaving: AtomicBool::new(false),
        });
        let (listener, admin) = (bind(options.listen).await?, bind(options.admin).await?);
        Ok(Self {
            listener,
            admin,
            acceptor,
            options,
            shared,
        })
    }

    /// Where reviews go.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where metrics are.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves for as long as it is polled.
    pub async fn serve(self) {
        let (sender, acceptor) = watch::channel(self.acceptor);
        let (shared, tls_files) = (self.shared, self.options.tls);
        tokio::join!(
            certificate::watch(&tls_files, sender, &shared.counters),
            accept(self.admin, None, Arc::clone(&shared)),
            accept(self.listener, Some(acceptor), Arc::clone(&shared)),
        );
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Problem> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Problem::Listen { address, source })
}

async fn accept(
    listener: TcpListener,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    shared: Arc<Shared>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return; // Nobody closes it.
        };
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let acceptor = tls.as_ref().map(|tls| tls.borrow().clone());
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _slot = slot;
            connection(stream, acceptor, shared).await;
        });
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let _refused = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return http(stream, false, Port::Admin, shared).await;
    };
    match tokio::time::timeout(tls::HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            http(stream, h2, Port::Reviews, shared).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
        Err(_) => tracing::debug!("no TLS in time"),
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    h2: bool,
    port: Port,
    shared: Arc<Shared>,
) {
    let service = ServiceBuilder::new()
        .layer(CatchPanicLayer::new())
        .service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(shared.respond(request, port).await) }
        });
    let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(service));
    let served = if h2 {
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .max_concurrent_streams(STREAMS)
            .serve_connection(io, service)
            .await
    } else {
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ)
            .serve_connection(io, service)
            .await
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

impl Shared {
    async fn respond(&self, request: Request<Incoming>, port: Port) -> Response<Full<Bytes>> {
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match (port, request.uri().path()) {
            (Port::Reviews, "/mutate") if request.method() == Method::POST => {
                self.mutate(request).await
            }
            (_, "/healthz") if read => plain(StatusCode::OK, "ok\n"),
            (_, "/readyz") if read => {
                if self.leaving.load(Ordering::Relaxed) {
                    plain(StatusCode::SERVICE_UNAVAILABLE, "leaving\n")
                } else {
                    plain(StatusCode::OK, "ready\n")
                }
            }
            (Port::Admin, "/metrics") if read => {
                let mut response = plain(StatusCode::OK, self.counters.render());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            (Port::Reviews, "/mutate") => {
                let mut response =
                    plain(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview\n");
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static("POST"));
                response
            }
            _ => plain(
                StatusCode::NOT_FOUND,
                "here are POST /mutate, /healthz, /readyz; on the admin port /metrics\n",
            ),
        }
    }

    async fn mutate(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let too_large = || {
            self.counters.review("malformed");
            plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "larger than any AdmissionReview\n",
            )
        };
        let body = request.into_body();
        // What says that it is too large is not read first.
        if body.size_hint().lower() > LARGEST as u64 {
            return too_large();
        }
        let body = match tokio::time::timeout(PATIENCE, Limited::new(body, LARGEST).collect()).await
        {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
            Ok(Err(_)) => {
                self.counters.review("malformed");
                return plain(StatusCode::BAD_REQUEST, "the body broke off\n");
            }
            Err(_) => {
                self.counters.review("malformed");
                return plain(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not come in time\n",
                );
            }
        };
        match review::answer(&body, &self.settings, &self.counters) {
            Ok(answer) => {
                let mut response = plain(StatusCode::OK, answer.to_string());
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(malformed) => {
                self.counters.review("malformed");
                tracing::warn!(reason = %malformed, "a request that is no review");
                plain(StatusCode::BAD_REQUEST, format!("{malformed}\n"))
            }
        }
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
