//! What is known of one finished request: the observer's result, the metrics' input.

use std::time::Duration;

use smallvec::SmallVec;

use crate::classify::Endpoint;
use crate::outcome::{Outcome, TokenSource};
use crate::tenants::TenantValues;

/// One finished request. Durations are wall time on one monotonic clock; counts are tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The endpoint it was made to.
    pub endpoint: Endpoint,
    /// The request asked for a stream, or the answer was one.
    pub stream: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Values of the configured tenant labels.
    pub tenants: TenantValues,
    /// The model as upstream named it in a 2xx answer: safe to become a label.
    pub served_model: Option<Box<str>>,
    /// The model as the client named it: a label only if upstream is known to serve it.
    pub requested_model: Option<Box<str>>,
    /// Request head received → end.
    pub duration: Duration,
    /// Request head received → first frame that carries generated output. Streams only.
    pub ttft: Option<Duration>,
    /// Request head received → first generated output that is not reasoning. Streams only.
    pub first_answer: Option<Duration>,
    /// (last token − first token) / (output tokens − 1). Streams with a known count of at least 2 only.
    pub tpot: Option<Duration>,
    /// The largest gap between two token-bearing reads of a stream with at least two of them.
    pub longest_stall: Option<Duration>,
    /// Prompt tokens, as upstream or the estimate has it.
    pub input_tokens: Option<(u64, TokenSource)>,
    /// Generated tokens, over all choices.
    pub output_tokens: Option<(u64, TokenSource)>,
    /// Prompt tokens that came from the prefix cache, where usage says so.
    pub cached_tokens: Option<u64>,
    /// Output tokens spent on reasoning, where usage says so.
    pub reasoning_tokens: Option<u64>,
    /// One per choice that finished.
    pub finish_reasons: SmallVec<[FinishReason; 1]>,
    /// vLLM's own queue time, where its per-request `metrics` object passed by.
    pub queue: Option<Duration>,
    /// vLLM's own time from scheduled to first token, from the same object.
    pub engine_ttft: Option<Duration>,
    /// The text that the observer kept since no usage was promised: to be counted off the forwarding path.
    pub text: Option<EstimateText>,
    /// Events, or the body, that the observer could not read. Nothing of the traffic depends on it.
    pub faults: u32,
}

impl Record {
    /// A record of which nothing is known but its end.
    #[must_use]
    pub fn bare(endpoint: Endpoint, outcome: Outcome) -> Self {
        Self {
            endpoint,
            stream: false,
            outcome,
            tenants: TenantValues::new(),
            served_model: None,
            requested_model: None,
            duration: Duration::ZERO,
            ttft: None,
            first_answer: None,
            tpot: None,
            longest_stall: None,
            input_tokens: None,
            output_tokens: None,
            cached_tokens: None,
            reasoning_tokens: None,
            finish_reasons: SmallVec::new(),
            queue: None,
            engine_ttft: None,
            text: None,
            faults: 0,
        }
    }

    /// What the wire's time to first token has more than the engine's own: the network, and vLLM's frontend.
    #[must_use]
    pub fn frontend(&self) -> Option<Duration> {
        let engine = self.queue?.saturating_add(self.engine_ttft?);
        Some(self.ttft?.saturating_sub(engine))
    }
}

/// What the token estimator needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EstimateText {
    /// They arrive interleaved, and were generated apart.
    choices: SmallVec<[ChoiceText; 1]>,
    length: usize,
    /// The text stops at the observer's cap: the estimate is a lower bound.
    pub truncated: bool,
}

/// One choice's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceText {
    index: u32,
    /// As it came.
    pub text: String,
    /// The pieces that it came in. Each is a token at least, so there are no fewer tokens than pieces, however the whole
    /// would be cut anew: a model does not always choose the tokens that its tokenizer would.
    pub pieces: u64,
}

/// Choices whose texts are kept apart; those of further ones are joined.
const CHOICES: usize = 64;

impl EstimateText {
    /// Appends to the text of a choice.
    pub fn push(&mut self, choice: u32, text: &str) {
        if text.is_empty() {
            return;
        }
        self.length = self.length.saturating_add(text.len());
        let full = self.choices.len() >= CHOICES;
        let known = self.choices.iter().position(|kept| kept.index == choice);
        let at = known.or(full.then_some(CHOICES - 1));
        match at.and_then(|at| self.choices.get_mut(at)) {
            Some(kept) => {
                kept.text.push_str(text);
                kept.pieces += 1;
            }
            None => self.choices.push(ChoiceText {
                index: choice,
                text: text.to_owned(),
                pieces: 1,
            }),
        }
    }

    /// The choices' texts.
    pub fn choices(&self) -> impl Iterator<Item = &ChoiceText> {
        self.choices.iter()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no text at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// The `finish_reason` label: vLLM's set, closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// End of sequence or a stop string.
    Stop,
    /// `max_tokens` or the context length.
    Length,
    /// The model called a tool.
    ToolCalls,
    /// Aborted inside vLLM.
    Abort,
    /// vLLM's repetition detection.
    Repetition,
    /// A content filter.
    ContentFilter,
    /// Any word that vLLM has not used so far.
    Other,
}

crate::outcome::labels!(FinishReason {
    Stop => "stop",
    Length => "length",
    ToolCalls => "tool_calls",
    Abort => "abort",
    Repetition => "repetition",
    ContentFilter => "content_filter",
    Other => "other",
});

impl FinishReason {
    /// From the wire's word.
    #[must_use]
    pub fn from_wire(word: &str) -> Self {
        match word {
            "stop" | "end_turn" | "stop_sequence" => Self::Stop,
            "length" | "max_tokens" => Self::Length,
            "tool_calls" | "function_call" | "tool_use" => Self::ToolCalls,
            "abort" => Self::Abort,
            "repetition" => Self::Repetition,
            "content_filter" => Self::ContentFilter,
            _ => Self::Other,
        }
    }
}
