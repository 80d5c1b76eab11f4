//! What can go wrong on the upstream leg, by stage: the caller makes the answer and the label from it.

use std::io;
use std::time::Duration;

/// How far the exchange had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No connection yet.
    Connect,
    /// The request is being sent or the response head awaited.
    Head,
    /// Inside the response body.
    Body,
}

/// A failed exchange.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Refused, unreachable, no such host or socket.
    #[error("cannot connect to {to}: {source}")]
    Connect {
        /// The upstream's URL.
        to: String,
        /// The system's reason.
        source: io::Error,
    },
    /// TCP or TLS took longer than `connect_timeout`.
    #[error("cannot connect to {to} within {limit:?}")]
    ConnectTimeout {
        /// The upstream's URL.
        to: String,
        /// The limit.
        limit: Duration,
    },
    /// The TLS handshake failed.
    #[error("TLS with {to} failed: {source}")]
    Tls {
        /// The upstream's URL.
        to: String,
        /// rustls' reason.
        source: io::Error,
    },
    /// No response head within `head_timeout`.
    #[error("no response head within {0:?}")]
    HeadTimeout(Duration),
    /// The connection ended before a complete response head.
    #[error("upstream closed the connection before its response head")]
    ClosedBeforeHead {
        /// Whether a byte of the request had been written.
        sent: bool,
    },
    /// The connection broke before a complete response head.
    #[error("the connection broke before the response head: {source}")]
    BrokenBeforeHead {
        /// Whether a byte of the request had been written.
        sent: bool,
        /// The system's reason.
        source: io::Error,
    },
    /// The response head is not HTTP/1.x, too long, or frames its body in a way that cannot be trusted.
    #[error("upstream sent a malformed response head: {0}")]
    BadHead(&'static str),
    /// The request cannot be expressed in HTTP/1.1.
    #[error("the request cannot be sent: {0}")]
    BadRequest(&'static str),
    /// The client's body broke off; upstream was abandoned.
    #[error("the request body broke off: {0}")]
    RequestBody(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection ended inside the response body.
    #[error("upstream closed the connection inside the response body")]
    ClosedInBody,
    /// The connection broke inside the response body.
    #[error("the connection broke inside the response body: {0}")]
    BrokenInBody(#[source] io::Error),
    /// The response body's chunks are malformed.
    #[error("upstream sent a malformed body: {0}")]
    BadBody(&'static str),
}

impl Error {
    /// How far the exchange had come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } | Self::Tls { .. } => Stage::Connect,
            Self::HeadTimeout(_)
            | Self::ClosedBeforeHead { .. }
            | Self::BrokenBeforeHead { .. }
            | Self::BadHead(_)
            | Self::BadRequest(_)
            | Self::RequestBody(_) => Stage::Head,
            Self::ClosedInBody | Self::BrokenInBody(_) | Self::BadBody(_) => Stage::Body,
        }
    }

    /// Upstream cannot have seen any of the request.
    pub(super) fn nothing_was_sent(&self) -> bool {
        matches!(
            self,
            Self::ClosedBeforeHead { sent: false } | Self::BrokenBeforeHead { sent: false, .. }
        )
    }
}
