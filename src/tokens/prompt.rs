//! A request body → the tokens of its prompt.
//!
//! What the chat template adds is not known here; a few tokens a message stand in for it. Images and audio count
//! nothing: how many tokens they become only the model's processor knows. The body is read as it lies there: no tree is
//! built of it, and strings are borrowed from it unless they hold an escape.

use std::borrow::Cow;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
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
    #[serde(borrow)]
    messages: Said<'a>,
    #[serde(borrow)]
    input: Said<'a>,
    tools: Value,
    #[serde(borrow)]
    system: Said<'a>,
    #[serde(borrow)]
    instructions: Said<'a>,
}

/// The text of messages: strings, content parts with text, tool calls and tool results.
#[derive(Debug, Default)]
struct Said<'a> {
    texts: Vec<Cow<'a, str>>,
    /// There is more in it than text.
    media: bool,
    turns: Turns,
}

/// How many messages a value would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turns {
    /// It is `null`, or not there.
    #[default]
    Absent,
    /// It is nothing of the kind.
    None,
    Some(u64),
}

/// A tool's arguments, which Anthropic has as an object.
#[derive(Debug, Default)]
struct Arguments(Option<String>);

/// Whether a content part is more than text: `image_url`, `input_audio`, `document`.
#[derive(Debug, Default)]
struct IsMedia(bool);

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
        let turns = match self.messages.turns {
            Turns::Absent => &self.input,
            Turns::None | Turns::Some(_) => &self.messages,
        };
        let Turns::Some(messages) = turns.turns else {
            return None;
        };
        let parts = [&self.system, &self.instructions, turns];
        let texts = parts.into_iter().flat_map(|part| &part.texts);
        let mut text = String::with_capacity(texts.clone().map(|one| one.len() + 1).sum());
        texts.for_each(|one| join(one, &mut text));
        let media = parts.into_iter().any(|part| part.media);
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

// === impl Said ===

impl<'de: 'a, 'a> Said<'a> {
    fn one(text: Cow<'a, str>) -> Self {
        Self {
            texts: vec![text],
            turns: Turns::Some(1),
            ..Self::none()
        }
    }

    fn none() -> Self {
        Self {
            turns: Turns::None,
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        // Most messages have one text each, and most prompts one message.
        if self.texts.is_empty() {
            self.texts = other.texts;
        } else {
            self.texts.extend(other.texts);
        }
        self.media |= other.media;
    }

    /// The value of a key, if it holds text or leads to it; `image_url`, `source`, `data` and ids are left out.
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "content" | "text" | "thinking" | "reasoning" | "reasoning_content" | "tool_calls"
            | "function" | "name" | "arguments" | "output" => self.add(object.next_value()?),
            "input" => {
                let arguments: Arguments = object.next_value()?;
                self.texts.extend(arguments.0.map(Cow::Owned));
            }
            "type" => self.media |= object.next_value::<IsMedia>()?.0,
            _ => drop(object.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Field<'de> for Said<'a> {
    fn borrowed(text: &'de str) -> Self {
        Self::one(Cow::Borrowed(text))
    }
    fn text(text: &str) -> Self {
        Self::one(Cow::Owned(text.to_owned()))
    }
    fn integer(_: u64) -> Self {
        Self::none()
    }
    fn float(_: f64) -> Self {
        Self::none()
    }
    fn truth(_: bool) -> Self {
        Self::none()
    }
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut all, mut length) = (Self::default(), 0);
        while let Some(one) = list.next_element()? {
            all.add(one);
            length += 1;
        }
        all.turns = Turns::Some(length);
        Ok(all)
    }
    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut all = Self::none();
        while let Some(key) = object.next_key::<Text<'de>>()? {
            all.field(&key, &mut object)?;
        }
        Ok(all)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

// === impl Arguments ===

impl<'de> Field<'de> for Arguments {
    fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        let value = Value::deserialize(MapAccessDeserializer::new(object))?;
        Ok(Self(Some(value.to_string())))
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

// === impl IsMedia ===

impl Field<'_> for IsMedia {
    fn text(kind: &str) -> Self {
        let kinds = ["image", "audio", "video", "file", "document", "embeds"];
        Self(kinds.iter().any(|word| kind.contains(word)))
    }
}

impl<'de> Deserialize<'de> for IsMedia {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
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

fn join(part: &str, text: &mut String) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(part);
}
