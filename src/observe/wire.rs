//! Shapes that every dialect shares: usage, vLLM's per-request metrics, errors.

use std::time::Duration;

use serde::Deserialize;
use serde::de::MapAccess;
use serde::de::value::MapAccessDeserializer;

use super::json::{Count, Field, Number, Object, Text, any};

/// `usage`, in OpenAI's words, those of the Responses API, or Anthropic's.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Usage {
    // No aliases: a server that says both would be a duplicate key, and that fails the event.
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Object<PromptDetails>,
    #[serde(default)]
    input_tokens_details: Object<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Object<CompletionDetails>,
    #[serde(default)]
    output_tokens_details: Object<CompletionDetails>,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

/// `meta`, which Cohere's embeddings (`/v2/embed`) have instead of `usage`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Meta {
    billed_units: Object<BilledUnits>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BilledUnits {
    input_tokens: Count,
    image_tokens: Count,
}

/// `metrics`, which vLLM adds with `--enable-per-request-metrics`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EngineMetrics {
    queue_time_ms: Number,
    time_to_first_token_ms: Number,
}

/// The error of any shape: OpenAI's object, a bare string, FastAPI's `detail`.
#[derive(Debug, Default)]
pub(crate) enum ErrorField<'a> {
    /// No error.
    #[default]
    None,
    /// `"error": "Unauthorized"`
    Message(Text<'a>),
    /// `"error": {…}`
    Object(Box<ErrorInfo<'a>>),
}

/// What an error says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorInfo<'a> {
    #[serde(borrow)]
    pub(crate) message: Text<'a>,
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow)]
    pub(crate) param: Text<'a>,
    pub(crate) code: Code,
}

/// `code`: a status, as a number or in digits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Code(pub(crate) Option<u16>);

/// A whole body that may be an error: nested, flat as up to vLLM 0.10, or FastAPI's own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorBody<'a> {
    #[serde(borrow)]
    error: ErrorField<'a>,
    #[serde(borrow)]
    object: Text<'a>,
    #[serde(borrow)]
    detail: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    param: Text<'a>,
    code: Code,
}

// === impl Usage ===

impl Usage {
    /// Prompt tokens. Anthropic's `input_tokens` leaves out what the cache gave and took.
    pub(crate) fn input(&self) -> Option<u64> {
        let cache = self.cache_read_input_tokens.0.unwrap_or(0);
        let created = self.cache_creation_input_tokens.0.unwrap_or(0);
        let anthropic = |input: u64| input.saturating_add(cache).saturating_add(created);
        self.prompt_tokens.0.or(self.input_tokens.0.map(anthropic))
    }

    /// Generated tokens.
    pub(crate) fn output(&self) -> Option<u64> {
        self.completion_tokens.0.or(self.output_tokens.0)
    }

    /// Whether it says nothing beyond these two.
    pub(crate) fn is_bare(&self) -> bool {
        self.cached().or(self.reasoning()).is_none()
    }

    /// Prompt tokens out of the prefix cache.
    pub(crate) fn cached(&self) -> Option<u64> {
        let details = [&self.prompt_tokens_details, &self.input_tokens_details];
        details
            .into_iter()
            .find_map(|details| details.0.as_ref()?.cached_tokens.0)
            .or(self.cache_read_input_tokens.0)
    }

    /// Generated tokens that were reasoning.
    pub(crate) fn reasoning(&self) -> Option<u64> {
        let details = [&self.completion_tokens_details, &self.output_tokens_details];
        details
            .into_iter()
            .find_map(|details| details.0.as_ref()?.reasoning_tokens.0)
    }
}

// === impl Meta ===

impl Meta {
    /// The same as usage.
    pub(crate) fn usage(self) -> Option<Usage> {
        self.billed_units.0.as_ref().map(BilledUnits::usage)
    }
}

impl BilledUnits {
    /// vLLM counts the tokens of images apart; both are the prompt's.
    pub(crate) fn usage(&self) -> Usage {
        let counts = [self.input_tokens.0, self.image_tokens.0];
        Usage {
            prompt_tokens: Count(counts.into_iter().flatten().reduce(u64::saturating_add)),
            ..Usage::default()
        }
    }
}

// === impl EngineMetrics ===

impl EngineMetrics {
    /// Time in vLLM's queue.
    pub(crate) fn queue(&self) -> Option<Duration> {
        ms(self.queue_time_ms)
    }

    /// From scheduled to first token: the queue is not in it.
    pub(crate) fn ttft(&self) -> Option<Duration> {
        ms(self.time_to_first_token_ms)
    }
}

fn ms(time: Number) -> Option<Duration> {
    Duration::try_from_secs_f64(time.0? / 1e3).ok()
}

// === impl ErrorField ===

impl<'de: 'a, 'a> Field<'de> for ErrorField<'a> {
    fn borrowed(text: &'de str) -> Self {
        Self::Message(Text::borrowed(text))
    }
    fn text(text: &str) -> Self {
        Self::Message(Text::text(text))
    }
    fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        let info = ErrorInfo::deserialize(MapAccessDeserializer::new(object))?;
        Ok(Self::Object(Box::new(info)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ErrorField<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

impl<'a> ErrorField<'a> {
    /// The error, if there is one.
    pub(crate) fn info(self) -> Option<ErrorInfo<'a>> {
        match self {
            Self::None => None,
            Self::Message(message) => Some(ErrorInfo {
                message,
                ..ErrorInfo::default()
            }),
            Self::Object(info) => Some(*info),
        }
    }
}

// === impl Code ===

impl Field<'_> for Code {
    fn integer(number: u64) -> Self {
        Self(u16::try_from(number).ok())
    }
    fn text(digits: &str) -> Self {
        Self(digits.parse().ok())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

// === impl ErrorBody ===

impl<'a> ErrorBody<'a> {
    /// The error that this body is, where it is one beyond doubt: also good for a 200.
    pub(crate) fn declared(self) -> Option<ErrorInfo<'a>> {
        let flat = &*self.object == "error" || &*self.kind == "error";
        self.error.info().or(flat.then_some(ErrorInfo {
            message: self.message,
            kind: self.kind,
            param: self.param,
            code: self.code,
        }))
    }

    /// The error of a body whose status says that it is one.
    pub(crate) fn assumed(self) -> ErrorInfo<'a> {
        let message = if self.message.is_empty() {
            self.detail
        } else {
            self.message
        };
        self.error.info().unwrap_or(ErrorInfo {
            message,
            kind: self.kind,
            param: self.param,
            code: self.code,
        })
    }
}
