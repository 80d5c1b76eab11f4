//! One client connection: HTTP/1.1 or h2c by its first bytes, served until it ends or the worker drains.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;

use super::{Downstream, Limits, Shared};
use crate::config::Server;
use crate::drain::Drain;
use crate::proxy::Proxy;

/// What a draining connection without a request is given.
const LINGER: Duration = Duration::from_secs(1);

/// hyper's server with our limits. One per worker.
#[derive(Clone, Debug)]
pub struct Http {
    builder: Builder<LocalExecutor>,
    limits: Limits,
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
        let mut builder = Builder::new(LocalExecutor);
        builder
            .http1()
            .timer(TokioTimer::new())
            // Also how long a kept-alive connection may idle.
            .header_read_timeout(server.header_read_timeout)
            .max_headers(server.max_headers)
            .max_buf_size(server.max_header_bytes.max(8192))
            // A client that is gone is noticed at once, also while upstream is silent. The price is a client that half-closes
            // after its request: it gets nothing, as from uvicorn.
            .half_close(false)
            // The date is upstream's.
            .auto_date_header(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .max_header_list_size(u32::try_from(server.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .auto_date_header(false);
        Self {
            builder,
            limits: Limits {
                first_request: server.header_read_timeout,
                send: server.send_timeout,
            },
        }
    }

    /// How long a client may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Serves one connection to its end.
    pub async fn serve(&self, io: Downstream, proxy: Rc<Proxy>, mut drain: Drain) {
        let shared = io.shared();
        let state = Arc::clone(&shared);
        let service = service_fn(move |request| Rc::clone(&proxy).serve(&shared, request));
        // On its own: in this future, and in each that awaits it, it would be kept room for more than once.
        let mut connection = Box::pin(
            self.builder
                .serve_connection_with_upgrades(TokioIo::new(io), service),
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = drain.started() => {
                // HTTP/1.1 says `connection: close` with the next answer, HTTP/2 GOAWAY; what is running goes on.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = unused(&state) => return,
                }
            }
        };
        if let Err(error) = ended {
            // A client's doing, nearly always: gone, too slow, or not speaking HTTP.
            tracing::debug!(%error, "a client connection ended");
        }
    }
}

/// Resolves when a draining connection has served no request for a while: half a head, or a client that does not say
/// good-bye, is not worth waiting for.
async fn unused(state: &Shared) {
    loop {
        tokio::time::sleep(LINGER).await;
        if state.is_idle() {
            return;
        }
    }
}
