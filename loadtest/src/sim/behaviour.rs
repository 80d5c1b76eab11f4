//! How the simulator answers: the server's default, and what a request's `x-sim` header says over it.

use rand::RngExt;
use serde::Deserialize;

use super::{Dist, Fault};

/// Every field is optional: what a request leaves open the server's default fills, and what both leave open is vLLM's
/// usual way at full speed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// From the request's head to its first token, ms.
    pub ttft_ms: Option<Dist>,
    /// Between token frames, ms.
    pub itl_ms: Option<Dist>,
    /// Tokens per choice, cut at the request's `max_tokens`.
    pub output_tokens: Option<Dist>,
    /// Prompt tokens reported; by default derived from the length of the body.
    pub prompt_tokens: Option<u32>,
    /// Tokens in one frame, as when the consumer lags or speculation hits.
    pub tokens_per_frame: Option<u32>,
    /// The first so many tokens are reasoning.
    pub reasoning_tokens: Option<u32>,
    /// The delta's field for reasoning: `reasoning` by default.
    pub reasoning_field: Option<ReasoningField>,
    /// Answer with a tool call; by default if the request offers tools.
    pub tool_call: Option<bool>,
    /// When to send usage.
    pub usage: Option<UsageMode>,
    /// The finish reason; by default `length` at `max_tokens`, `tool_calls`, else `stop`.
    pub finish_reason: Option<String>,
    /// From the request to the head of the answer, ms.
    pub head_delay_ms: Option<u64>,
    /// SSE comments this often while idle, ms.
    pub keepalive_comment_ms: Option<u64>,
    /// How the bytes are cut into writes.
    pub split: Option<Split>,
    /// SSE lines end with CRLF.
    pub crlf: Option<bool>,
    /// The shapes of vLLM's Rust frontend.
    pub rust_frontend: Option<bool>,
    /// `Connection: close`.
    pub close: Option<bool>,
    /// A fault for certain.
    pub fault: Option<Fault>,
    /// Faults with their probabilities, drawn for requests without a fault of their own.
    pub faults: Vec<(f64, Fault)>,
}

/// When a stream carries usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageMode {
    /// As the request's `stream_options` say.
    #[default]
    Auto,
    /// Not even if asked.
    Never,
    /// Always, and continuously: `--enable-force-include-usage`.
    Force,
}

/// The name of the reasoning field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningField {
    /// From 0.16.
    #[default]
    Reasoning,
    /// Up to 0.11.
    ReasoningContent,
}

/// How the bytes of an answer are cut into writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// One write a frame, as uvicorn does.
    #[default]
    Frame,
    /// One write a byte.
    Bytes,
    /// Writes of this many bytes.
    Every(usize),
    /// Writes of 1 to 64 bytes.
    Random,
    /// Everything that is due in one write, up to 64 KiB.
    Coalesce,
}

// === impl Behaviour ===

impl Behaviour {
    /// `self`, with what it leaves open taken from `default`.
    #[must_use]
    pub fn over(self, default: &Self) -> Self {
        Self {
            ttft_ms: self.ttft_ms.or(default.ttft_ms),
            itl_ms: self.itl_ms.or(default.itl_ms),
            output_tokens: self.output_tokens.or(default.output_tokens),
            prompt_tokens: self.prompt_tokens.or(default.prompt_tokens),
            tokens_per_frame: self.tokens_per_frame.or(default.tokens_per_frame),
            reasoning_tokens: self.reasoning_tokens.or(default.reasoning_tokens),
            reasoning_field: self.reasoning_field.or(default.reasoning_field),
            tool_call: self.tool_call.or(default.tool_call),
            usage: self.usage.or(default.usage),
            finish_reason: self.finish_reason.or_else(|| default.finish_reason.clone()),
            head_delay_ms: self.head_delay_ms.or(default.head_delay_ms),
            keepalive_comment_ms: self.keepalive_comment_ms.or(default.keepalive_comment_ms),
            split: self.split.or(default.split),
            crlf: self.crlf.or(default.crlf),
            rust_frontend: self.rust_frontend.or(default.rust_frontend),
            close: self.close.or(default.close),
            fault: self.fault.or_else(|| default.fault.clone()),
            faults: if self.faults.is_empty() {
                default.faults.clone()
            } else {
                self.faults
            },
        }
    }

    /// The fault that this request gets.
    pub(crate) fn draw_fault(&self, rng: &mut impl RngExt) -> Option<Fault> {
        let fault = self.fault.clone().or_else(|| {
            let mut dice: f64 = rng.random();
            let hit = self.faults.iter().find(|(probability, _)| {
                dice -= probability;
                dice < 0.0
            });
            hit.map(|(_, fault)| fault.clone())
        });
        fault.filter(|fault| *fault != Fault::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_speaks_over_the_default() {
        let default = Behaviour {
            ttft_ms: Some(5.0.into()),
            itl_ms: Some(7.0.into()),
            ..Behaviour::default()
        };
        let header = r#"{"itl_ms":1,"split":{"every":3},"fault":{"kind":"truncate","after":2}}"#;
        let merged = serde_json::from_str::<Behaviour>(header)
            .unwrap()
            .over(&default);
        assert_eq!(merged.ttft_ms, Some(Dist::Const(5.0)));
        assert_eq!(merged.itl_ms, Some(Dist::Const(1.0)));
        assert_eq!(merged.split, Some(Split::Every(3)));
        assert_eq!(merged.fault, Some(Fault::Truncate { after: 2 }));
    }
}
