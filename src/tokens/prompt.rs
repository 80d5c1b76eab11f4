//! A request body → the tokens of its prompt.
//!
//! What the chat template adds is not known here; a few tokens a message stand in for it. Images and audio count
//! nothing: how many tokens they become only the model's processor knows.

use serde::de::SeqAccess;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::classify::Endpoint;
use crate::observe::json::{Field, Text, any};

use super::PromptCount;
use super::calibration::Features;
use super::count::Encoding;

/// Role and delimiters of one message.
const MESSAGE: u64 = 4;

/// The head of the answer that the template opens.
const ANSWER: u64 = 3;

/// A conversation, under the names of the three endpoints that take one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conversation<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    messages: Value,
    input: Value,
    tools: Value,
    system: Value,
    instructions: Value,
}

/// A bare prompt.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plain<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    prompt: Prompt,
    input: Prompt,
    token_ids: Prompt,
}

/// A string, token ids, or a list of either. Ids are counted, not kept, and their count is exact.
#[derive(Debug, Default)]
struct Prompt {
    text: String,
    ids: u64,
    given: bool,
}

/// The estimate, where the body has a prompt at all.
pub(super) fn count(endpoint: Endpoint, body: &[u8]) -> Option<PromptCount> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Messages | Endpoint::Responses => {
            serde_json::from_slice::<Conversation<'_>>(body)
                .ok()?
                .count()
        }
        _ => serde_json::from_slice::<Plain<'_>>(body).ok()?.count(),
    }
}

// === impl Conversation ===

impl Conversation<'_> {
    fn count(&self) -> Option<PromptCount> {
        let turns = match &self.messages {
            Value::Null => &self.input,
            messages => messages,
        };
        let messages = match turns {
            Value::Array(messages) => messages.len() as u64,
            Value::String(_) => 1,
            _ => return None,
        };
        let mut text = String::new();
        let mut media = false;
        for part in [&self.system, &self.instructions, turns] {
            collect(part, &mut text, &mut media);
        }
        if self.tools.as_array().is_some_and(|tools| !tools.is_empty()) {
            // Templates print the tools as JSON, most of them.
            join(&self.tools.to_string(), &mut text);
        }
        let template = messages.saturating_mul(MESSAGE).saturating_add(ANSWER);
        let text = Encoding::of_model(&self.model).measure(&text)?;
        Some(PromptCount::Estimate {
            text: text + Features::tokens(template),
            media,
        })
    }
}

// === impl Plain ===

impl Plain<'_> {
    fn count(self) -> Option<PromptCount> {
        let given = [self.prompt, self.input, self.token_ids];
        let prompt = given.into_iter().find(|prompt| prompt.given)?;
        if prompt.text.is_empty() && prompt.ids > 0 {
            // Ids need no tokenizer.
            return Some(PromptCount::Exact(prompt.ids));
        }
        let text = Encoding::of_model(&self.model).measure(&prompt.text)?;
        Some(PromptCount::Estimate {
            text: text + Features::tokens(prompt.ids),
            media: false,
        })
    }
}

// === impl Prompt ===

impl<'de> Field<'de> for Prompt {
    fn text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ids: 0,
            given: true,
        }
    }
    fn integer(_: u64) -> Self {
        Self {
            text: String::new(),
            ids: 1,
            given: true,
        }
    }
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut all = Self::default();
        while let Some(one) = list.next_element::<Self>()? {
            if !one.text.is_empty() {
                join(&one.text, &mut all.text);
            }
            all.ids += one.ids;
            all.given |= one.given;
        }
        Ok(all)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

/// The text of messages: strings, content parts with text, tool calls and tool results.
fn collect(value: &Value, text: &mut String, media: &mut bool) {
    match value {
        Value::String(string) => join(string, text),
        Value::Array(list) => list.iter().for_each(|item| collect(item, text, media)),
        Value::Object(object) => {
            // Keys that hold text or lead to it; `image_url`, `source`, `data` and ids are left out.
            const TEXT: [&str; 10] = [
                "content",
                "text",
                "thinking",
                "reasoning",
                "reasoning_content",
                "tool_calls",
                "function",
                "name",
                "arguments",
                "output",
            ];
            let inner = TEXT.iter().filter_map(|key| object.get(*key));
            inner.for_each(|inner| collect(inner, text, media));
            *media |= object
                .get("type")
                .and_then(Value::as_str)
                .is_some_and(is_media);
            // Anthropic has a tool's arguments as an object.
            if let Some(arguments @ Value::Object(_)) = object.get("input") {
                join(&arguments.to_string(), text);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A content part that is more than text: `image_url`, `input_audio`, `document`.
fn is_media(kind: &str) -> bool {
    ["image", "audio", "video", "file", "document", "embeds"]
        .iter()
        .any(|word| kind.contains(word))
}

fn join(part: &str, text: &mut String) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(part);
}
