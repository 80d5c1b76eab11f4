//! The admin port: metrics, health, what is configured. On its own listener and its own threads, so that a scrape never
//! holds up a stream, nor a look at `/readyz`.

mod patience;
mod scrape;
mod trust;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::drain::{Drain, Outlived, Pending, Stage, Trigger};
use crate::exposition::Exposition;
use crate::gateway::Registry;
use crate::housekeeping;
use crate::metrics::Metrics;
use crate::proxy::reply::Reply;
use patience::Patience;
use scrape::Scrape;
pub use trust::Trust;

const TEXT: &str = "text/plain; charset=utf-8";
/// A scraper sends its request at once.
const HEADER_READ: Duration = Duration::from_secs(30);
/// Each answer that nobody takes holds megabytes.
const WRITE: Duration = Duration::from_secs(30);
/// Connections at a time, far more than there are scrapers; others wait to be accepted.
const CONNECTIONS: usize = 128;
/// Scrapes are rendered on a thread of their own, one after the other: it sleeps more than it works, and many at a time would
/// be many megabytes.
const RENDERING: usize = 1;
/// It is kept from one scrape to the next.
const IDLE_RENDERING: Duration = Duration::from_secs(90);
/// What an answer gets before the process ends.
const MOMENT: Duration = Duration::from_millis(50);

/// What the admin port answers from.
#[derive(Debug)]
pub struct Admin {
    /// Where there are several upstreams: ready if one of them is.
    pub gateway: Option<Arc<Registry>>,
    /// Rendered on each scrape.
    pub exposition: Arc<Exposition>,
    /// Ready until the end begins.
    pub drain: Drain,
    /// Answers to `GET /drain?wait=1` that are still to be given.
    pub pending: Pending,
    /// Lets `POST /drain` begin it.
    pub leave: Trigger,
    /// The effective configuration as TOML, secrets hidden.
    pub config: String,
    /// Series that nobody has used for so long are dropped.
    pub expire_after: Option<Duration>,
    /// Who may read the configuration, and drain.
    pub trust: Trust,
}

impl Admin {
    /// Serves until the process is over. Blocks the thread.
    ///
    /// # Errors
    /// If the runtime cannot be had.
    pub fn run(self, listener: TcpListener) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(RENDERING)
            .thread_keep_alive(IDLE_RENDERING)
            .thread_name("scrape")
            .enable_all()
            .build()?;
        let mut over = self.drain.clone();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let housekeeping =
                housekeeping::run(Arc::clone(&self.exposition.metrics), self.expire_after);
            tokio::select! {
                () = housekeeping => {}
                () = accept(listener, Arc::new(self)) => {}
                () = over.reached(Stage::Over) => {}
            }
            Ok(())
        })
    }

    /// `GET /drain?wait=1`, all that a preStop hook can say: drains, and answers when no request is left.
    fn drained(&self, request: &Request<Incoming>, peer: SocketAddr) -> Option<Drained> {
        let wait = *request.method() == Method::GET
            && request.uri().path() == "/drain"
            && request.uri().query() == Some("wait=1")
            && self.trust.drain(request.headers(), peer);
        wait.then(|| {
            let outlived = self.pending.begin();
            self.leave.advance(Stage::Leaving);
            Drained {
                drain: self.drain.clone(),
                metrics: Arc::clone(&self.exposition.metrics),
                outlived,
            }
        })
    }

    fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Answer {
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        if read && request.uri().path() == "/metrics" {
            let exposition = Arc::clone(&self.exposition);
            return Answer::Scraped(Scrape::asked(request.headers()), exposition);
        }
        match self.drained(request, peer) {
            Some(drained) => Answer::Drained(drained),
            None => Answer::Given(self.given(request, peer)),
        }
    }

    fn given(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let trusted = self.trust.everything(request.headers(), peer);
        let may_drain = self.trust.drain(request.headers(), peer);
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/healthz" if read => plain(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" if read => match self.drain.stage() {
                Stage::Running if self.gateway.as_ref().is_some_and(|all| !all.is_ready()) => {
                    plain(
                        StatusCode::SERVICE_UNAVAILABLE,
                        TEXT,
                        "no upstream is healthy\n",
                    )
                }
                Stage::Running => plain(StatusCode::OK, TEXT, "ready\n"),
                Stage::Leaving | Stage::Draining | Stage::Cut | Stage::Gone | Stage::Over => {
                    plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n")
                }
            },
            "/version" if read => {
                let version =
                    serde_json::json!({"name": "tokenglass", "version": env!("CARGO_PKG_VERSION")});
                plain(StatusCode::OK, "application/json", version.to_string())
            }
            "/config" if read && trusted => {
                plain(StatusCode::OK, "application/toml", self.config.clone())
            }
            "/drain" if request.method() == Method::POST && may_drain => {
                self.leave.advance(Stage::Leaving);
                plain(StatusCode::ACCEPTED, TEXT, "draining\n")
            }
            "/config" if !trusted => problem(
                StatusCode::FORBIDDEN,
                "for loopback only (admin.allow_remote)",
            ),
            "/drain" if !may_drain => problem(
                StatusCode::FORBIDDEN,
                "for loopback only (admin.remote_drain)",
            ),
            "/metrics" | "/healthz" | "/readyz" | "/version" | "/config" | "/drain" => {
                problem(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
            }
            _ => problem(
                StatusCode::NOT_FOUND,
                "here are /metrics /healthz /readyz /version /config",
            ),
        }
    }
}

/// What a request gets, at once or later.
enum Answer {
    Given(Response<Full<Bytes>>),
    Scraped(Scrape, Arc<Exposition>),
    Drained(Drained),
}

/// The end, to be waited for.
struct Drained {
    drain: Drain,
    metrics: Arc<Metrics>,
    outlived: Outlived,
}

impl Drained {
    async fn answer(mut self) -> Response<Full<Bytes>> {
        self.drain.reached(Stage::Gone).await;
        let text = match self.metrics.drain_cut.get() {
            0 => "drained\n".to_owned(),
            cut => format!("drained, {cut} requests were cut\n"),
        };
        let outlived = self.outlived;
        tokio::spawn(async move {
            // For the answer to leave.
            tokio::time::sleep(MOMENT).await;
            drop(outlived);
        });
        plain(StatusCode::OK, TEXT, text)
    }
}

async fn accept(listener: tokio::net::TcpListener, admin: Arc<Admin>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return; // Nobody closes it.
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        let service = ServiceBuilder::new()
            .layer(CatchPanicLayer::new())
            .service_fn(move |request: Request<Incoming>| {
                let answer = admin.answer(&request, peer);
                async move {
                    Ok::<_, Infallible>(match answer {
                        Answer::Given(answer) => answer,
                        Answer::Scraped(scrape, exposition) => scrape.answer(exposition).await,
                        Answer::Drained(drained) => drained.answer().await,
                    })
                }
            });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ)
            .serve_connection(
                TokioIo::new(Patience::new(stream, WRITE)),
                TowerToHyperService::new(service),
            );
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended");
            }
        });
    }
}

fn plain(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn problem(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    Reply::new(status, message).response(None).map(Full::new)
}
