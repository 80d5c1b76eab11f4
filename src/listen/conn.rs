//! One client connection: HTTP/1.1 or h2c by its first bytes, served until it ends or the worker drains.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;

use super::streaming::Streaming;
use super::{Downstream, Handoff, Limits, Shared};
use crate::config::Server;
use crate::drain::{Drain, Stage};
use crate::proxy::Proxy;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a draining connection without a request is given: its client may have sent one just now.
const LINGER: Duration = Duration::from_secs(1);
/// Looks at it in that time.
const LOOKS: u32 = 4;

/// hyper's servers with our limits. One per worker.
#[derive(Clone, Debug)]
pub struct Http {
    http1: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
    limits: Limits,
    max_buf_size: usize,
}

/// How it went with hyper.
enum Turn {
    /// The connection is over.
    Ended(hyper::Result<()>),
    /// A stream is to be written, and hyper has nothing left to say before it.
    Taken,
}

/// Runs HTTP/2 streams on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl Http {
    /// Limits as configured.
    #[must_use]
    pub fn new(server: &Server) -> Self {
        let max_buf_size = server.max_header_bytes.max(8192);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // Also how long a kept-alive connection may idle.
            .header_read_timeout(server.header_read_timeout)
            .max_headers(server.max_headers)
            .max_buf_size(max_buf_size)
            // A client that is gone is noticed at once, also while upstream is silent. The price is a client that half-closes
            // after its request: it gets nothing, as from uvicorn.
            .half_close(false)
            // The date is upstream's.
            .auto_date_header(false);
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .max_header_list_size(u32::try_from(server.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .auto_date_header(false);
        Self {
            http1,
            http2,
            limits: Limits {
                first_request: server.header_read_timeout,
                send: server.send_timeout,
            },
            max_buf_size,
        }
    }

    /// How long a client may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, mut io: Box<Downstream>, proxy: Rc<Proxy>, mut drain: Drain) {
        // The connection first, here and below: a request that lies in the socket when the drain begins is served.
        let http2 = tokio::select! {
            biased;
            http2 = io.is_http2() => http2,
            // Nothing has been asked yet.
            () = silent(&mut drain) => return,
        };
        let ended = match http2 {
            Ok(true) => Box::pin(self.serve_http2(io, proxy, drain)).await,
            Ok(false) => self.serve_http1(io, &proxy, drain).await,
            Err(error) => {
                tracing::debug!(%error, "a client connection ended before it began");
                return;
            }
        };
        if let Err(error) = ended {
            // A client's doing, nearly always: gone, too slow, or not speaking HTTP.
            tracing::debug!(%error, "a client connection ended");
        }
    }

    async fn serve_http2(
        &self,
        io: Box<Downstream>,
        proxy: Rc<Proxy>,
        mut drain: Drain,
    ) -> Result<(), Failure> {
        let shared = io.shared();
        let state = Arc::clone(&shared);
        let service = service_fn(move |request| Rc::clone(&proxy).serve(&shared, None, request));
        let mut connection = pin!(self.http2.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            () = drain.started() => {}
        }
        // GOAWAY; what is running goes on.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection.as_mut() => Ok(ended?),
            () = unused(&state) => Ok(()),
        }
    }

    async fn serve_http1(
        &self,
        mut io: Box<Downstream>,
        proxy: &Rc<Proxy>,
        mut drain: Drain,
    ) -> Result<(), Failure> {
        let handoff = io.is_plain().then(|| Rc::new(Handoff::default()));
        loop {
            let shared = io.shared();
            let state = Arc::clone(&shared);
            let service = {
                let (proxy, handoff) = (Rc::clone(proxy), handoff.clone());
                service_fn(move |request| {
                    Rc::clone(&proxy).serve(&shared, handoff.as_ref(), request)
                })
            };
            // On its own: in this future, and in each that awaits it, it would be kept room for more than once.
            let connection = self.http1.serve_connection(TokioIo::new(io), service);
            let mut connection = Box::new(connection.with_upgrades());
            let turn = tokio::select! {
                biased;
                turn = poll_fn(|cx| turn(&mut connection, handoff.as_deref(), &state, cx)) => turn,
                () = drain.started() => {
                    let mut told = false;
                    let last = poll_fn(|cx| {
                        let turn = turn(&mut connection, handoff.as_deref(), &state, cx);
                        // `connection: close` comes with the next answer. Where the head of one is out already, or none is
                        // asked for, the client knows nothing, and is not left before it has asked again or had the time to.
                        if turn.is_pending() && !told && state.is_asked() {
                            told = true;
                            Pin::new(&mut *connection).graceful_shutdown();
                        }
                        turn
                    });
                    tokio::select! {
                        turn = last => turn,
                        () = unused(&state) => return Ok(()),
                    }
                }
            };
            if let Turn::Ended(ended) = turn {
                return Ok(ended?);
            }
            let (Some(taken), Some(parts)) = (
                handoff.as_deref().and_then(Handoff::take),
                connection.into_parts(),
            ) else {
                return Ok(());
            };
            io = parts.io.into_inner();
            io.resume(&parts.read_buf);
            drop(parts.read_buf);
            let close = taken.close || drain.stage() >= Stage::Draining;
            let mut streaming = Streaming::new(*taken, close, self.max_buf_size);
            poll_fn(|cx| streaming.poll(&mut io, cx)).await?;
            if close {
                return Ok(io.shutdown().await?);
            }
        }
    }
}

/// Goes on with hyper until the connection is over, or there is a stream to be taken from it.
fn turn<C>(
    connection: &mut C,
    handoff: Option<&Handoff>,
    state: &Shared,
    cx: &mut Context<'_>,
) -> Poll<Turn>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    if let Poll::Ready(ended) = Pin::new(connection).poll(cx) {
        return Poll::Ready(Turn::Ended(ended));
    }
    // What hyper still has for a slow client, of an answer before it, comes first.
    if handoff.is_some_and(Handoff::is_full) && state.is_drained() {
        return Poll::Ready(Turn::Taken);
    }
    Poll::Pending
}

/// Resolves when a draining connection has served no request for a while: half a head, or a client that does not say
/// good-bye, is not worth waiting for.
async fn unused(state: &Shared) {
    let mut looks = 0;
    while looks < LOOKS {
        tokio::time::sleep(LINGER / LOOKS).await;
        looks = if state.is_idle() { looks + 1 } else { 0 };
    }
}

/// The same of one that has said nothing at all.
async fn silent(drain: &mut Drain) {
    drain.started().await;
    tokio::time::sleep(LINGER).await;
}
