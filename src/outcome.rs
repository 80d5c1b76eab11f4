//! How a request ended: the closed sets behind the `error_type`, `phase` and `source` labels.
//!
//! Labels come from these enums and from nowhere else, so a new failure cannot invent a series.

/// What became of one request. Every request has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 2xx, and for a stream a proper end.
    Success,
    /// Anything that is the fault of upstream, of the request, or of ourselves.
    Error(ErrorType),
    /// The client left before it had everything.
    Cancelled(Phase),
}

/// How far a request had come when its client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Upstream had not answered yet.
    BeforeHead,
    /// The head had come, but no token.
    BeforeFirstToken,
    /// At least one token, or for a body that is not a stream at least its first byte.
    Streaming,
}

/// Where a token count comes from, most exact first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// vLLM's own `usage`, final.
    Usage,
    /// The last continuous `usage` of a stream that was cut.
    Partial,
    /// The model's own tokenizer.
    Tokenizer,
    /// tiktoken, which is not the model's tokenizer.
    Estimate,
}

macro_rules! labels {
    ($name:ident { $($variant:ident => $label:literal),+ $(,)? }) => {
        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The label value on `/metrics`.
            #[must_use]
            pub const fn as_label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}
pub(crate) use labels;

labels!(Phase {
    BeforeHead => "before_head",
    BeforeFirstToken => "before_first_token",
    Streaming => "streaming",
});

labels!(TokenSource {
    Usage => "usage",
    Partial => "partial",
    Tokenizer => "tokenizer",
    Estimate => "estimate",
});

/// The `error_type` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// 400 that is none of the more exact kinds.
    BadRequest,
    /// The prompt, or prompt plus `max_tokens`, is longer than the model's context.
    ContextLengthExceeded,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404 about the model.
    ModelNotFound,
    /// 404 about anything else.
    NotFound,
    /// 413.
    PayloadTooLarge,
    /// 422.
    Unprocessable,
    /// 429.
    RateLimited,
    /// Any other 4xx.
    ClientError,
    /// 500.
    InternalError,
    /// 501.
    NotImplemented,
    /// 503, or an error frame that says so.
    Overloaded,
    /// vLLM's engine has died.
    EngineDead,
    /// Any other 5xx.
    ServerError,
    /// No connection to upstream.
    UpstreamConnect,
    /// Upstream sent no head in time.
    UpstreamTimeout,
    /// Upstream closed or reset the connection before a complete head, or inside a body that is not a stream.
    UpstreamReset,
    /// An error frame inside a 200.
    StreamError,
    /// The stream ended without its terminal frame.
    StreamTruncated,
    /// No byte came within the idle limit.
    StreamStalled,
    /// We refused the request (a limit, smuggling).
    ProxyRejected,
    /// Our own fault.
    ProxyError,
}

labels!(ErrorType {
    BadRequest => "bad_request",
    ContextLengthExceeded => "context_length_exceeded",
    Unauthorized => "unauthorized",
    Forbidden => "forbidden",
    ModelNotFound => "model_not_found",
    NotFound => "not_found",
    PayloadTooLarge => "payload_too_large",
    Unprocessable => "unprocessable",
    RateLimited => "rate_limited",
    ClientError => "client_error",
    InternalError => "internal_error",
    NotImplemented => "not_implemented",
    Overloaded => "overloaded",
    EngineDead => "engine_dead",
    ServerError => "server_error",
    UpstreamConnect => "upstream_connect",
    UpstreamTimeout => "upstream_timeout",
    UpstreamReset => "upstream_reset",
    StreamError => "stream_error",
    StreamTruncated => "stream_truncated",
    StreamStalled => "stream_stalled",
    ProxyRejected => "proxy_rejected",
    ProxyError => "proxy_error",
});

impl Outcome {
    /// Whoever waited gave up, and had got nothing.
    #[must_use]
    pub fn unanswered(self) -> bool {
        matches!(
            self,
            Self::Cancelled(Phase::BeforeHead | Phase::BeforeFirstToken)
                | Self::Error(ErrorType::UpstreamTimeout)
        )
    }
}

/// How the response body came to its end, as the forwarding path saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The framing of the message said that it is complete.
    Complete,
    /// Upstream closed, reset, or broke the framing.
    UpstreamCut,
    /// No byte for the idle limit; we closed.
    Stalled,
    /// The client left (or stopped reading), or we were shut down under it: the body was dropped.
    ClientGone,
}
