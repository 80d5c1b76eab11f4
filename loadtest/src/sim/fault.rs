//! What can go wrong with an answer, and on purpose.

use serde::Deserialize;

/// One fault. `after` counts the token-bearing frames that still go out whole; 0 strikes right behind the head.
///
/// A body that is not a stream has no frames: faults that strike inside a stream there cut the body in half, except
/// `error_frame` (an HTTP 500, as vLLM does) and `stall` (silence before the head).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// No fault, also where the default would draw one.
    None,
    /// An HTTP error instead of an answer.
    Http {
        /// Status code.
        status: u16,
        /// Which of the shapes found in the wild the body has.
        #[serde(default)]
        shape: ErrorShape,
        /// `type`; by default the one vLLM gives for the status.
        #[serde(default, rename = "type")]
        error_type: Option<String>,
        /// `message`.
        #[serde(default)]
        message: Option<String>,
    },
    /// An error event inside a 200, followed by `[DONE]`.
    ErrorFrame {
        /// Token frames before it.
        #[serde(default)]
        after: u32,
        /// `message`.
        #[serde(default)]
        message: Option<String>,
        /// `type`.
        #[serde(default, rename = "type")]
        error_type: Option<String>,
        /// `code`.
        #[serde(default)]
        code: Option<u16>,
    },
    /// Closes in the middle of an event.
    CutMidFrame {
        /// Token frames before it.
        #[serde(default)]
        after: u32,
    },
    /// Ends cleanly for HTTP, but with neither `finish_reason` nor `[DONE]`.
    CutNoDone {
        /// Token frames before it.
        #[serde(default)]
        after: u32,
    },
    /// Closes between two events, without the last chunk.
    Truncate {
        /// Token frames before it.
        #[serde(default)]
        after: u32,
    },
    /// Falls silent, for `ms` or until the client leaves.
    Stall {
        /// Token frames before it.
        #[serde(default)]
        after: u32,
        /// How long; for ever if absent.
        #[serde(default)]
        ms: Option<u64>,
    },
    /// RST, before the head if `after` is absent.
    Reset {
        /// Token frames before it.
        #[serde(default)]
        after: Option<u32>,
    },
    /// The head comes this much later.
    SlowHead {
        /// How much.
        ms: u64,
    },
    /// Reads the request and closes without a byte.
    CloseBeforeHead,
    /// Answers normally, keeps the connection and closes it as soon as the next request's first byte arrives.
    IdleCloseRace,
    /// A chunk size that is no number, then close.
    BadChunk {
        /// Token frames before it.
        #[serde(default)]
        after: u32,
    },
    /// A `Content-Length` longer than what is sent, then close.
    ShortBody,
}

/// The shapes of error bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorShape {
    /// `{"error":{"message","type","param","code"}}`: vLLM from 0.10.2.
    #[default]
    Nested,
    /// `{"object":"error","message","type","param","code"}`: vLLM before.
    Flat,
    /// `{"error":"text"}`: authentication, scaling.
    String,
    /// `{"type":"error","error":{"type","message"}}`.
    Anthropic,
    /// `{"detail":"text"}`: FastAPI's own.
    Detail,
}

// === impl Fault ===

impl Fault {
    /// A short name, as in JSON's `kind`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Http { .. } => "http",
            Self::ErrorFrame { .. } => "error_frame",
            Self::CutMidFrame { .. } => "cut_mid_frame",
            Self::CutNoDone { .. } => "cut_no_done",
            Self::Truncate { .. } => "truncate",
            Self::Stall { .. } => "stall",
            Self::Reset { .. } => "reset",
            Self::SlowHead { .. } => "slow_head",
            Self::CloseBeforeHead => "close_before_head",
            Self::IdleCloseRace => "idle_close_race",
            Self::BadChunk { .. } => "bad_chunk",
            Self::ShortBody => "short_body",
        }
    }

    /// The number of token frames after which it strikes, for those that strike inside a stream.
    pub(crate) const fn strikes_after(&self) -> Option<u32> {
        match self {
            Self::ErrorFrame { after, .. }
            | Self::CutMidFrame { after }
            | Self::CutNoDone { after }
            | Self::Truncate { after }
            | Self::Stall { after, .. }
            | Self::BadChunk { after } => Some(*after),
            Self::Reset { after } => *after,
            Self::None
            | Self::Http { .. }
            | Self::SlowHead { .. }
            | Self::CloseBeforeHead
            | Self::IdleCloseRace
            | Self::ShortBody => None,
        }
    }
}
