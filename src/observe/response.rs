//! The response, as far as measuring needs it.

use std::time::{Duration, Instant};

use crate::classify::Endpoint;
use crate::outcome::{End, ErrorType, Outcome, Phase};
use crate::record::Record;
use crate::tenants::TenantValues;

use super::body::{self, Body};
use super::head::HeadFacts;
use super::progress::{Echo, Progress};
use super::request::RequestFacts;
use super::sse::{Event, Splitter};
use super::timing::Timing;
use super::wire::ErrorBody;
use super::{error, openai, quick, typed};

/// More of an error than this says nothing new. vLLM's own reached 100 MB once, since they echo the request.
const ERROR_BODY: usize = 64 * 1024;

/// A body of an endpoint that generates nothing is numbers: over this length it is searched, not parsed.
const NUMBERS: usize = 64 * 1024;

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
    status: u16,
    started: Instant,
    /// The answer is a stream.
    stream: bool,
    asked_stream: bool,
    replay: bool,
    requested_model: Option<Box<str>>,
    mode: Mode,
    progress: Progress,
    faults: u32,
}

/// How the body is read.
#[derive(Debug)]
enum Mode {
    Stream(Splitter),
    Body(Body),
    /// Compressed, or of no interest: only whether there was any.
    Opaque {
        seen: bool,
    },
}

// === impl ResponseObserver ===

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
        let stream = head.is_event_stream();
        let encoded = head.is_encoded();
        // Embeddings as bytes, transcripts as subtitles: numbers or text that no field stands in.
        let foreign = !stream && !head.may_be_json();
        let mode = match head.status {
            _ if encoded => Mode::Opaque { seen: false },
            400.. => Mode::Body(Body::head(limits.body.min(ERROR_BODY))),
            200..300 if stream => Mode::Stream(Splitter::new(limits.event)),
            200..300 if !foreign => Mode::Body(Body::new(if generates(endpoint) {
                limits.body
            } else {
                limits.body.min(NUMBERS)
            })),
            _ => Mode::Opaque { seen: false },
        };
        // Usage may have been promised: a stream that is cut never gets it, so its text is kept all the same. Usage on
        // every chunk ends the keeping with the first of them.
        let keep = estimate && !encoded && !facts.replay && head.status < 300;
        let text = keep.then_some(limits.text);
        let echo = echo(endpoint, &facts);
        Self {
            endpoint,
            status: head.status,
            started,
            stream,
            asked_stream: facts.stream,
            replay: facts.replay,
            requested_model: facts.model,
            mode,
            progress: Progress::new(Timing::new(started), echo, facts.n, text),
            faults: u32::from(encoded),
        }
    }

    /// Keeps the text beside usage too, for the estimator to learn from.
    #[must_use]
    pub fn learning(mut self, learning: bool) -> Self {
        if learning {
            self.progress.learn();
        }
        self
    }

    /// Has every event parsed.
    #[cfg(test)]
    pub(crate) fn parse_all(&mut self) {
        self.progress.parse_all();
    }

    /// How many templates there have been.
    #[cfg(test)]
    pub(crate) fn templates_used(&self) -> u8 {
        self.progress.templates_used()
    }

    /// One read's worth of body passes at `now`. Calls `gap` for each inter-token gap that it closes.
    pub fn data(&mut self, bytes: &[u8], now: Instant, gap: &mut dyn FnMut(Gap)) {
        let progress = &mut self.progress;
        match &mut self.mode {
            Mode::Opaque { seen } => *seen |= !bytes.is_empty(),
            Mode::Body(body) => body.push(bytes, progress),
            Mode::Stream(_) if progress.over() => {}
            Mode::Stream(splitter) => {
                progress.timing.open_read(now);
                let (endpoint, faults) = (self.endpoint, &mut self.faults);
                splitter.feed(bytes, |event| {
                    if !read(endpoint, event, progress) {
                        *faults = faults.saturating_add(1);
                    }
                });
                if self.replay {
                    progress.timing.close_read(&mut |_| {});
                } else {
                    progress.timing.close_read(gap);
                }
            }
        }
    }

    /// The model that upstream named, once it has in a 2xx answer.
    #[must_use]
    pub fn served_model(&self) -> Option<&str> {
        self.progress.model.as_deref()
    }

    /// Whether a token has been seen.
    #[must_use]
    pub fn first_token_seen(&self) -> bool {
        self.progress.timing.begun()
    }

    /// Whether the terminal frame (`[DONE]`, or an error frame) has been seen: what comes after it changes nothing.
    #[must_use]
    pub fn done(&self) -> bool {
        self.progress.over()
    }

    /// Events that the observer could not read.
    #[must_use]
    pub fn faults(&self) -> u32 {
        let overflows = match &self.mode {
            Mode::Stream(splitter) => splitter.overflows(),
            Mode::Body(_) | Mode::Opaque { .. } => 0,
        };
        self.faults.saturating_add(overflows)
    }

    /// Whether the read at `now` brought something that an engine has made, as far as that can be told.
    #[must_use]
    pub fn progressed(&self, now: Instant) -> bool {
        match self.mode {
            // Not comments, which vLLM's frontend sends on behalf of an engine that says nothing.
            Mode::Stream(_) => self.progress.timing.last_token() == Some(now),
            Mode::Body(_) | Mode::Opaque { .. } => self.status < 400,
        }
    }

    /// The body has ended, at `now`. Called once.
    #[must_use]
    pub fn end(&mut self, end: End, now: Instant) -> Record {
        if let Mode::Body(body) = &self.mode
            && self.status < 400
            && !read_body(self.endpoint, body, &mut self.progress)
            && end == End::Complete
        {
            self.faults = self.faults.saturating_add(1);
        }
        let outcome = self.outcome(end);
        let faults = self.faults();
        let progress = &mut self.progress;
        let tokens = progress.tokens(outcome == Outcome::Success);
        let learning = progress.learns();
        let streamed = |value| {
            if self.stream && !self.replay {
                value
            } else {
                None
            }
        };
        Record {
            endpoint: self.endpoint,
            stream: self.stream || self.asked_stream,
            outcome,
            tenants: TenantValues::new(),
            duration: now.saturating_duration_since(self.started),
            ttft: streamed(progress.timing.ttft(self.started)),
            first_answer: streamed(progress.timing.first_answer(self.started)),
            tpot: streamed(tokens.output.and_then(|(n, _)| progress.timing.tpot(n))),
            longest_stall: streamed(progress.timing.longest_stall()),
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            cached_tokens: tokens.cached,
            reasoning_tokens: tokens.reasoning,
            finish_reasons: std::mem::take(&mut progress.finish_reasons),
            queue: progress.queue,
            engine_ttft: progress.engine_ttft,
            text: progress
                .take_text()
                .filter(|_| learning || tokens.output.is_none()),
            served_model: progress.model.take(),
            requested_model: self.requested_model.take(),
            faults,
        }
    }

    /// The same, of one that is not needed any more.
    #[must_use]
    pub fn finish(mut self, end: End, now: Instant) -> Record {
        self.end(end, now)
    }

    fn outcome(&self, end: End) -> Outcome {
        if self.status >= 400 {
            let body = match &self.mode {
                Mode::Body(body) => body.kept(),
                Mode::Stream(_) | Mode::Opaque { .. } => &[],
            };
            return Outcome::Error(error::of_answer(self.status, body));
        }
        if let Some(error) = self.progress.error {
            return Outcome::Error(error);
        }
        if self.progress.done {
            return Outcome::Success;
        }
        match (end, self.stream) {
            (End::Complete, true) if self.lacks_terminal() => {
                Outcome::Error(ErrorType::StreamTruncated)
            }
            (End::Complete, _) => Outcome::Success,
            (End::UpstreamCut, true) => Outcome::Error(ErrorType::StreamTruncated),
            (End::UpstreamCut, false) => Outcome::Error(ErrorType::UpstreamReset),
            (End::Stalled, true) => Outcome::Error(ErrorType::StreamStalled),
            (End::Stalled, false) => Outcome::Error(ErrorType::UpstreamTimeout),
            (End::ClientGone, _) => Outcome::Cancelled(self.phase()),
        }
    }

    /// The stream should have said that it is complete, and did not.
    fn lacks_terminal(&self) -> bool {
        let says_so = match self.endpoint {
            Endpoint::ChatCompletions
            | Endpoint::Completions
            | Endpoint::Generate
            | Endpoint::Responses
            | Endpoint::Messages
            | Endpoint::Audio => true,
            // Whatever is asked of /invocations comes in the words of chat or completions.
            Endpoint::Embeddings
            | Endpoint::Rerank
            | Endpoint::Score
            | Endpoint::Pooling
            | Endpoint::Classify
            | Endpoint::Tokenize
            | Endpoint::Realtime
            | Endpoint::Other => self.progress.choices,
        };
        says_so && matches!(self.mode, Mode::Stream(_))
    }

    fn phase(&self) -> Phase {
        let streaming = match &self.mode {
            Mode::Stream(_) => self.first_token_seen(),
            Mode::Body(body) => body.seen(),
            Mode::Opaque { seen } => *seen,
        };
        if streaming {
            Phase::Streaming
        } else {
            Phase::BeforeFirstToken
        }
    }
}

/// Reads one event. Answers false if it could not be read.
fn read(endpoint: Endpoint, event: Event<'_>, progress: &mut Progress) -> bool {
    if progress.over() {
        return true;
    }
    let data = event.data.trim_ascii();
    if progress.looks_known(data) {
        return true;
    }
    // Checked once for the whole event: serde_json would check each key and each string by itself, at twice the cost.
    let Ok(data) = std::str::from_utf8(data) else {
        return false;
    };
    let read = match (endpoint, data) {
        (_, "") => return true,
        (_, "[DONE]") => {
            progress.done = true;
            return true;
        }
        (Endpoint::Responses, data) => typed::read_response_event(event.name, data, progress),
        (Endpoint::Messages, data) => typed::read_message_event(event.name, data, progress),
        (_, data) => openai::read_event(data, progress),
    };
    read.is_ok()
}

/// Reads a body that is no stream. Answers false if it is JSON, whole, and could not be read.
fn read_body(endpoint: Endpoint, body: &Body, progress: &mut Progress) -> bool {
    let Some(whole) = body.whole() else {
        body::scan_usage(body.kept(), progress);
        return true;
    };
    if whole.trim_ascii_start().first() != Some(&b'{') {
        return true;
    }
    let read = match endpoint {
        Endpoint::Responses => typed::read_response_body(whole, progress),
        Endpoint::Messages => typed::read_message_body(whole, progress),
        _ => openai::read_body(whole, progress),
    };
    if read.is_ok() && progress.model.is_none() && progress.tokens(true).input.is_none() {
        // Nothing of what an answer has: it may be an error under a 200.
        let declared = quick::from_slice::<ErrorBody<'_>>(whole).map(ErrorBody::declared);
        if let Ok(Some(info)) = declared {
            progress.fail(error::of_body(&info));
        }
    }
    read.is_ok()
}

/// Whether the endpoint answers in text, all of which is read.
fn generates(endpoint: Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::ChatCompletions
            | Endpoint::Completions
            | Endpoint::Responses
            | Endpoint::Messages
            | Endpoint::Generate
            | Endpoint::Other
    )
}

fn echo(endpoint: Endpoint, facts: &RequestFacts) -> Echo {
    match endpoint {
        _ if !facts.echo => Echo::None,
        Endpoint::ChatCompletions => Echo::OwnFrame,
        Endpoint::Other if facts.chat => Echo::OwnFrame,
        _ if facts.max_tokens == Some(0) => Echo::Only,
        _ => Echo::WithFirst,
    }
}
