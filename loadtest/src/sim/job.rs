//! A request as understood, together with what the dice said about its answer.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::Value;

use super::behaviour::{ReasoningField, UsageMode};
use super::{Behaviour, Dist, Fault};

/// The parts of a request's body that change the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    pub(crate) model: Option<String>,
    stream: Option<bool>,
    n: Option<u32>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    stream_options: Option<StreamOptions>,
    tools: Option<Vec<serde::de::IgnoredAny>>,
    tool_choice: Option<Value>,
    echo: Option<bool>,
    prompt: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

/// One answer to give. Strings that go into JSON are escaped already.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) chat: bool,
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) created: u64,
    pub(crate) stream: bool,
    pub(crate) n: u32,
    /// Per choice.
    pub(crate) tokens: u32,
    pub(crate) per_frame: u32,
    pub(crate) prompt_tokens: u32,
    pub(crate) reasoning: u32,
    pub(crate) reasoning_field: ReasoningField,
    pub(crate) tool: bool,
    pub(crate) usage_final: bool,
    pub(crate) usage_continuous: bool,
    pub(crate) usage_body: bool,
    pub(crate) finish: String,
    pub(crate) echo: Option<String>,
    pub(crate) rust: bool,
    pub(crate) ttft: Duration,
    pub(crate) itl: Dist,
    pub(crate) fault: Option<Fault>,
}

// === impl Asked ===

impl Asked {
    pub(crate) fn stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(crate) fn n(&self) -> u32 {
        self.n.unwrap_or(1).clamp(1, 128)
    }

    fn offers_tools(&self) -> bool {
        let none = self
            .tool_choice
            .as_ref()
            .is_some_and(|choice| choice == "none");
        !none && self.tools.as_ref().is_some_and(|tools| !tools.is_empty())
    }
}

// === impl Job ===

impl Job {
    pub(crate) fn new(
        chat: bool,
        asked: &Asked,
        behaviour: &Behaviour,
        context: &JobContext<'_>,
        rng: &mut StdRng,
    ) -> Self {
        let max = asked.max_completion_tokens.or(asked.max_tokens);
        let wanted = behaviour.output_tokens.map_or(16, |dist| dist.count(rng));
        let tokens = wanted.min(max.unwrap_or(u32::MAX));
        let tool = chat && behaviour.tool_call.unwrap_or_else(|| asked.offers_tools());
        let finish = behaviour.finish_reason.clone().unwrap_or_else(|| {
            let reason = if max.is_some_and(|max| max <= wanted) {
                "length"
            } else if tool {
                "tool_calls"
            } else {
                "stop"
            };
            reason.to_owned()
        });
        let options = asked.stream_options.as_ref();
        let include = options.and_then(|o| o.include_usage).unwrap_or(false);
        let continuous = options
            .and_then(|o| o.continuous_usage_stats)
            .unwrap_or(false);
        let (usage_final, usage_continuous) = match behaviour.usage.unwrap_or_default() {
            UsageMode::Auto => (include, include && continuous),
            UsageMode::Never => (false, false),
            UsageMode::Force => (true, true),
        };
        let prompt = match &asked.prompt {
            Some(Value::String(text)) if asked.echo == Some(true) => Some(escape(text)),
            _ => None,
        };
        Self {
            chat,
            id: id(chat, context.request_id, rng),
            model: escape(asked.model.as_deref().unwrap_or_default()),
            created: context.created,
            stream: asked.stream(),
            n: asked.n(),
            tokens,
            per_frame: behaviour.tokens_per_frame.unwrap_or(1).max(1),
            prompt_tokens: behaviour
                .prompt_tokens
                .unwrap_or(1 + u32::try_from(context.body_len / 8).unwrap_or(u32::MAX)),
            reasoning: behaviour
                .reasoning_tokens
                .unwrap_or(0)
                .min(if chat { tokens } else { 0 }),
            reasoning_field: behaviour.reasoning_field.unwrap_or_default(),
            tool,
            usage_final,
            usage_continuous,
            usage_body: behaviour.usage != Some(UsageMode::Never),
            finish: escape(&finish),
            echo: prompt,
            rust: behaviour.rust_frontend.unwrap_or(false),
            ttft: behaviour
                .ttft_ms
                .map_or(Duration::ZERO, |dist| millis(dist.sample(rng))),
            itl: behaviour.itl_ms.unwrap_or(Dist::Const(0.0)),
            fault: behaviour.draw_fault(rng),
        }
    }

    /// Output tokens of all choices.
    pub(crate) fn all_tokens(&self) -> u32 {
        self.tokens.saturating_mul(self.n)
    }
}

/// What a job needs to know beside the request's body.
pub(crate) struct JobContext<'a> {
    pub(crate) request_id: Option<&'a str>,
    pub(crate) created: u64,
    pub(crate) body_len: usize,
}

/// Milliseconds with a fraction as a duration.
pub(crate) fn millis(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX / 4)
}

/// `text` as the inside of a JSON string.
pub(crate) fn escape(text: &str) -> String {
    let quoted = Value::String(text.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// vLLM takes the client's request id into its own.
fn id(chat: bool, given: Option<&str>, rng: &mut StdRng) -> String {
    let prefix = if chat { "chatcmpl" } else { "cmpl" };
    match given {
        Some(given) => format!("{prefix}-{}", escape(given)),
        None => format!("{prefix}-{:016x}", rng.random::<u64>()),
    }
}
