//! What became of one request, from where the client stands.

use std::time::{Duration, Instant};

use bytes::Bytes;

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Record {
    /// The `x-request-id` sent.
    pub id: String,
    /// The path.
    pub endpoint: &'static str,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Whether `stream_options.include_usage` was.
    pub usage: bool,
    /// Whether tools were offered.
    pub tools: bool,
    /// Choices asked for.
    pub n: u32,
    /// The `x-sim` header sent.
    pub directive: Option<String>,
    /// When the client means to leave.
    pub cancel: Option<Cancel>,
    /// Right before the request's write.
    pub sent: Instant,
    /// Status received, 0 if none.
    pub status: u16,
    /// To the head.
    pub head: Option<Duration>,
    /// To the first token frame.
    pub ttft: Option<Duration>,
    /// To the end, whichever it was.
    pub e2e: Duration,
    /// Between token frames, ms.
    pub itl_ms: Vec<f32>,
    /// Frames received that bear tokens.
    pub token_frames: u32,
    /// Body bytes received.
    pub bytes: u64,
    /// FNV-1a of them.
    pub body_hash: u64,
    /// The bytes themselves, if asked for.
    pub body: Option<Bytes>,
    /// How it ended.
    pub outcome: Outcome,
}

/// When a client leaves on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cancel {
    /// Before the answer's head.
    BeforeHead,
    /// Behind the head, before a token.
    BeforeFirstToken,
    /// Behind some tokens.
    MidStream,
    /// As soon as `[DONE]` is seen, whether or not the last chunk came with it.
    AfterDone,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// 2xx and complete; for a stream up to `[DONE]`.
    Ok,
    /// A complete answer of another status.
    HttpError(u16),
    /// A stream with an error event.
    ErrorFrame,
    /// A stream that ended cleanly for HTTP, but without `[DONE]`.
    NoDone,
    /// The connection ended before the answer did.
    Cut,
    /// What came is no HTTP.
    Malformed,
    /// No connection.
    ConnectFailed,
    /// Longer than the plan allows.
    TimedOut,
    /// We left; the phase is the one that we were really in.
    Cancelled(Cancel),
}

// === impl Cancel ===

impl Cancel {
    /// A short name.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::BeforeHead => "before_head",
            Self::BeforeFirstToken => "before_first_token",
            Self::MidStream => "mid_stream",
            Self::AfterDone => "after_done",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// A short name, as in reports.
    #[must_use]
    pub fn as_label(self) -> String {
        match self {
            Self::Ok => "ok".into(),
            Self::HttpError(status) => format!("http_{status}"),
            Self::ErrorFrame => "error_frame".into(),
            Self::NoDone => "no_done".into(),
            Self::Cut => "cut".into(),
            Self::Malformed => "malformed".into(),
            Self::ConnectFailed => "connect_failed".into(),
            Self::TimedOut => "timed_out".into(),
            Self::Cancelled(phase) => format!("cancelled_{}", phase.as_label()),
        }
    }
}
