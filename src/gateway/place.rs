//! A request's place at one of several upstreams, and what it tells of that upstream.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, response};

use super::balance::Local;
use super::endpoint::Seat;
use super::registry::Registry;
use super::retry_after::retry_after;
use crate::metrics::polled::Books;
use crate::metrics::upstreams::Reason;
use crate::observe::is_engine_dead;
use crate::upstream::{Error, Upstream};

/// A request's place at an upstream. Dropped when the answer has ended.
#[derive(Debug)]
pub struct Place {
    seat: Seat,
    local: Rc<Local>,
    registry: Arc<Registry>,
    /// Its answer is a 500, whose body may say that the engine is dead.
    suspect: bool,
}

impl Place {
    pub(super) fn new(seat: Seat, local: Rc<Local>, registry: Arc<Registry>) -> Self {
        Self {
            seat,
            local,
            registry,
            suspect: false,
        }
    }

    /// This worker's connections to it.
    #[must_use]
    pub fn upstream(&self) -> &Rc<Upstream> {
        &self.local.upstream
    }

    /// Where its requests are booked.
    #[must_use]
    pub fn books(&self) -> Option<&Books> {
        self.local.books.as_ref()
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> usize {
        self.local.endpoint.id()
    }

    /// The request is about to be sent.
    pub fn sending(&self) {
        self.local.endpoint.meters.requests.inc();
    }

    /// The request goes to another upstream instead.
    pub fn retried(&self) {
        self.local.endpoint.meters.retries.inc();
    }

    /// A head has come, `waited` after the request's.
    pub fn answered(&mut self, head: &response::Parts, waited: Duration) {
        let endpoint = &self.local.endpoint;
        endpoint.meters.latency.observe(waited.as_secs_f64());
        let reason = match head.status {
            StatusCode::INTERNAL_SERVER_ERROR => {
                self.suspect = true;
                return;
            }
            StatusCode::SERVICE_UNAVAILABLE => Reason::Overloaded,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Reason::ServerError,
            status => {
                if status == StatusCode::TOO_MANY_REQUESTS {
                    self.rest(head);
                }
                if status.is_server_error() {
                    endpoint.meters.error(Reason::ServerError).inc();
                }
                self.well();
                return;
            }
        };
        if reason == Reason::Overloaded {
            self.rest(head);
        }
        self.failed(reason);
    }

    /// No head came, or not all of the body.
    pub fn broke(&mut self, error: &Error) {
        let reason = match error {
            Error::Connect { .. } | Error::ConnectTimeout { .. } | Error::Tls { .. } => {
                Reason::Connect
            }
            Error::HeadTimeout(_) => Reason::Timeout,
            Error::ClosedBeforeHead { .. }
            | Error::BrokenBeforeHead { .. }
            | Error::BadHead(_)
            | Error::ClosedInBody
            | Error::BrokenInBody(_)
            | Error::BadBody(_) => Reason::Reset,
            // Not its fault.
            Error::BadRequest(_) | Error::RequestBody(_) => return,
        };
        self.failed(reason);
    }

    /// The first of a body passes.
    pub fn data(&mut self, data: &[u8]) {
        if std::mem::take(&mut self.suspect) {
            if is_engine_dead(data) {
                self.failed(Reason::EngineDead);
            } else {
                // A request may be at fault for a plain 500.
                self.local
                    .endpoint
                    .meters
                    .error(Reason::InternalError)
                    .inc();
                self.well();
            }
        }
    }

    /// `Retry-After`, up to a bound.
    fn rest(&self, head: &response::Parts) {
        if let Some(wait) = retry_after(&head.headers) {
            let wait = wait.min(self.registry.settings().eject_max);
            let until = self.registry.millis(Instant::now() + wait);
            self.local.endpoint.rests(until);
        }
    }

    fn well(&mut self) {
        let trial = std::mem::take(&mut self.seat.trial);
        let breaker = &self.local.endpoint.breaker;
        if trial {
            tracing::info!(upstream = %self.local.endpoint.url(), "an upstream is back");
        }
        breaker.succeeded(trial, self.registry.millis(Instant::now()));
    }

    fn failed(&mut self, reason: Reason) {
        let endpoint = &self.local.endpoint;
        endpoint.meters.error(reason).inc();
        let trial = std::mem::take(&mut self.seat.trial);
        let now = self.registry.millis(Instant::now());
        if let Some(length) = endpoint.breaker.failed(trial, now) {
            endpoint.meters.ejections.inc();
            let length = Duration::from_millis(length);
            tracing::warn!(upstream = %endpoint.url(), reason = reason.as_label(), ?length, "an upstream is left alone");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A 500 without a body.
        self.data(b"");
    }
}
