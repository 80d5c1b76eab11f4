//! The request body, as far as measuring needs it.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use smallvec::SmallVec;

use crate::classify::Endpoint;

use super::form::Form;
use super::hollow::hollow;
use super::json::{Count, Field, Flag, Object, Text, any};
use super::quick;

/// What the request body said.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The answer begins with the prompt: `echo`, and for chat a last message that vLLM would echo.
    pub echo: bool,
    /// vLLM tries more than it answers with, and usage has only the answer: `use_beam_search`, `best_of` above `n`.
    pub searches: bool,
    /// `background`: the answer comes before the work.
    pub background: bool,
    /// The body is a chat's: it has `messages`. What `/invocations` is asked for shows in nothing else.
    pub chat: bool,
    /// The answer may have been given before: a stored response is read again. Not in the body, but set by who knows.
    pub replay: bool,
}

/// A capped tee: keeps references to the passing frames, never copies one that arrives whole.
#[derive(Debug)]
pub struct RequestTee {
    limit: usize,
    length: usize,
    frames: SmallVec<[Bytes; 1]>,
    /// Everything so far, once there were `MANY` frames: a body in single bytes must not cost 32 bytes for each.
    joined: BytesMut,
    /// Instead of all that, where the body is a form.
    form: Option<Box<Form>>,
}

/// Frames that are kept as they are.
const MANY: usize = 64;

/// The body, lenient in every field.
#[derive(Debug, Default, Deserialize)]
struct Wire<'a> {
    #[serde(default, borrow)]
    model: Text<'a>,
    #[serde(default)]
    stream: Flag,
    #[serde(default)]
    n: Count,
    #[serde(default)]
    max_completion_tokens: Count,
    #[serde(default)]
    max_tokens: Count,
    #[serde(default)]
    max_output_tokens: Count,
    #[serde(default)]
    stream_options: Object<StreamOptions>,
    #[serde(default)]
    sampling_params: Object<SamplingParams>,
    #[serde(default)]
    echo: Flag,
    #[serde(default)]
    best_of: Count,
    #[serde(default)]
    use_beam_search: Flag,
    #[serde(default)]
    background: Flag,
    #[serde(default)]
    add_generation_prompt: NotFalse,
    #[serde(default)]
    messages: Messages,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Flag,
    #[serde(default)]
    continuous_usage_stats: Flag,
}

/// `/inference/v1/generate` has them one level down.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SamplingParams {
    n: Count,
    max_tokens: Count,
}

/// True unless it is false.
#[derive(Debug)]
struct NotFalse(bool);

/// Of the messages only whether there are any and the last is the assistant's: all else is passed over, not built.
#[derive(Debug, Default)]
struct Messages {
    some: bool,
    last_is_assistant: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Role {
    #[serde(default)]
    role: IsAssistant,
}

#[derive(Debug, Default)]
struct IsAssistant(bool);

// === impl RequestFacts ===

impl Default for RequestFacts {
    fn default() -> Self {
        Self {
            model: None,
            stream: false,
            n: 1,
            max_tokens: None,
            include_usage: false,
            continuous_usage: false,
            echo: false,
            searches: false,
            background: false,
            chat: false,
            replay: false,
        }
    }
}

impl RequestFacts {
    fn read(body: &[u8]) -> Option<Self> {
        let hollowed = hollow(body);
        let body = hollowed.as_deref().unwrap_or(body);
        let wire: Wire<'_> = quick::from_slice(body).ok()?;
        let options = wire.stream_options.0.unwrap_or_default();
        let sampling = wire.sampling_params.0.unwrap_or_default();
        let max_tokens = wire.max_completion_tokens.0;
        let max_tokens = max_tokens.or(wire.max_tokens.0);
        let max_tokens = max_tokens.or(wire.max_output_tokens.0);
        let max_tokens = max_tokens.or(sampling.max_tokens.0);
        let chat = wire.messages.some;
        // vLLM echoes the last message if its role is the answer's, which without a generation prompt is any.
        let echoes = !chat || wire.messages.last_is_assistant || !wire.add_generation_prompt.0;
        let n = wire.n.0.or(sampling.n.0).unwrap_or(1);
        Some(Self {
            model: (!wire.model.is_empty()).then(|| wire.model.as_str().into()),
            stream: wire.stream.0,
            n: saturate(n),
            max_tokens: max_tokens.map(saturate),
            include_usage: options.include_usage.0,
            continuous_usage: options.continuous_usage_stats.0,
            echo: wire.echo.0 && echoes,
            searches: wire.use_beam_search.0 || wire.best_of.0.is_some_and(|best_of| best_of > n),
            background: wire.background.0,
            chat,
            replay: false,
        })
    }
}

fn saturate(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

// === impl RequestTee ===

impl RequestTee {
    /// Keeps at most `limit` bytes; a longer body is not read at all. Of audio, the file is not kept in any case.
    #[must_use]
    pub fn new(endpoint: Endpoint, limit: usize) -> Self {
        Self {
            limit,
            length: 0,
            frames: SmallVec::new(),
            joined: BytesMut::new(),
            form: (endpoint == Endpoint::Audio).then(Box::default),
        }
    }

    /// A data frame passes.
    pub fn push(&mut self, frame: &Bytes) {
        if frame.is_empty() {
            return;
        }
        if let Some(form) = &mut self.form {
            return form.push(frame);
        }
        self.length = self.length.saturating_add(frame.len());
        if self.length > self.limit {
            self.frames = SmallVec::new();
            self.joined = BytesMut::new();
        } else if self.frames.len() < MANY && self.joined.is_empty() {
            self.frames.push(frame.clone());
        } else {
            self.join();
            self.joined.extend_from_slice(frame);
        }
    }

    /// The body has passed: what it said, and the body itself for the prompt estimate where it was kept whole.
    #[must_use]
    pub fn finish(mut self) -> (RequestFacts, Option<Bytes>) {
        if let Some(form) = self.form {
            return (form.finish(), None);
        }
        let body = if self.frames.len() == 1 {
            self.frames.remove(0)
        } else {
            self.join();
            self.joined.freeze()
        };
        if body.trim_ascii_start().first() != Some(&b'{') {
            return (RequestFacts::default(), None);
        }
        match RequestFacts::read(&body) {
            Some(facts) => (facts, Some(body)),
            None => (RequestFacts::default(), None),
        }
    }
}

impl RequestTee {
    fn join(&mut self) {
        if !self.frames.is_empty() {
            self.joined.reserve(self.length);
        }
        for frame in self.frames.drain(..) {
            self.joined.extend_from_slice(&frame);
        }
    }
}

// === impl Field ===

impl Default for NotFalse {
    fn default() -> Self {
        Self(true)
    }
}

impl Field<'_> for NotFalse {
    fn truth(truth: bool) -> Self {
        Self(truth)
    }
}

impl Field<'_> for IsAssistant {
    fn text(role: &str) -> Self {
        Self(role == "assistant")
    }
}

impl<'de> Field<'de> for Messages {
    fn list<A: serde::de::SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut last_is_assistant = false;
        let mut some = false;
        while let Some(message) = list.next_element::<Object<Role>>()? {
            some = true;
            last_is_assistant = message.0.is_some_and(|message| message.role.0);
        }
        Ok(Self {
            some,
            last_is_assistant,
        })
    }
}

macro_rules! lenient {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                any(from)
            }
        }
    )+};
}
lenient!(NotFalse, IsAssistant, Messages);
