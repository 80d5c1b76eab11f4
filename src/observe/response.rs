//! The response, as far as measuring needs it.

use std::time::{Duration, Instant};

use crate::classify::Endpoint;
use crate::outcome::End;
use crate::record::Record;

use super::request::RequestFacts;

/// Caps on what the observer keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one event that is cut by the frame edge, or has several data lines.
    pub event: usize,
    /// Bytes of a body that is not a stream; of a longer one only the last 16 KiB are kept.
    pub body: usize,
    /// Bytes of generated text kept for the estimate.
    pub text: usize,
}

/// What the response head said.
#[derive(Clone, Debug)]
pub struct HeadFacts<'a> {
    /// Status code.
    pub status: u16,
    /// `content-type`.
    pub content_type: Option<&'a [u8]>,
    /// `content-encoding`.
    pub content_encoding: Option<&'a [u8]>,
}

/// `count` gaps of `length` each between token-bearing frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// Length of each.
    pub length: Duration,
    /// How many.
    pub count: u32,
}

/// Watches one response.
#[derive(Debug)]
pub struct ResponseObserver {
    endpoint: Endpoint,
}

impl ResponseObserver {
    /// `started` is when the request head was received; `estimate` keeps generated text when no usage is promised.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        facts: RequestFacts,
        head: &HeadFacts<'_>,
        limits: Limits,
        started: Instant,
        estimate: bool,
    ) -> Self {
        let _ = (facts, head, limits, started, estimate);
        Self { endpoint }
    }

    /// One read's worth of body passes at `now`. Calls `gap` for each inter-token gap that it closes.
    pub fn data(&mut self, bytes: &[u8], now: Instant, gap: &mut dyn FnMut(Gap)) {
        let _ = (bytes, now, gap);
    }

    /// The model that upstream named, once it has in a 2xx answer.
    #[must_use]
    pub fn served_model(&self) -> Option<&str> {
        None
    }

    /// Whether a token has been seen.
    #[must_use]
    pub fn first_token_seen(&self) -> bool {
        false
    }

    /// Whether the terminal frame (`[DONE]`, or an error frame) has been seen: what comes after it changes nothing.
    #[must_use]
    pub fn done(&self) -> bool {
        false
    }

    /// Events that the observer could not read.
    #[must_use]
    pub fn faults(&self) -> u32 {
        0
    }

    /// The body has ended, at `now`.
    #[must_use]
    pub fn finish(self, end: End, now: Instant) -> Record {
        let _ = (end, now, self.endpoint);
        unimplemented!()
    }
}
