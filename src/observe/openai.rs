//! Chunks and bodies of chat, completions and whatever else speaks in `choices`.

use serde::Deserialize;

use super::json::{Count, Length, Many, Object, Reason, Text};
use super::progress::{Piece, Progress};
use super::shape::{self, Form, Meaning, Told};
use super::template::Changing;
use super::wire::{EngineMetrics, ErrorBody, ErrorField, Meta, Usage};
use super::{error, quick};

/// One event of a stream, or the whole of a body that is none.
///
/// Defaults stand at the fields, not at the structs: the latter builds a whole default first, for each event. What is
/// rare (tool calls) is boxed, so that less is moved about for what is not.
#[derive(Debug, Deserialize)]
struct Chunk<'a> {
    #[serde(default, borrow)]
    model: Text<'a>,
    #[serde(default, borrow)]
    choices: Many<Choice<'a>, 1>,
    #[serde(default)]
    usage: Object<Box<Usage>>,
    #[serde(default)]
    metrics: Object<EngineMetrics>,
    #[serde(default)]
    prompt_token_ids: Length,
    #[serde(default, borrow)]
    error: ErrorField<'a>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Count,
    #[serde(default, borrow, alias = "message")]
    delta: Object<Delta<'a>>,
    #[serde(default, borrow)]
    text: Text<'a>,
    #[serde(default)]
    token_ids: Length,
    #[serde(default)]
    prompt_token_ids: Length,
    #[serde(default)]
    finish_reason: Reason,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(default, borrow)]
    content: Text<'a>,
    #[serde(default, borrow)]
    reasoning: Text<'a>,
    #[serde(default, borrow)]
    reasoning_content: Text<'a>,
    #[serde(default, borrow)]
    refusal: Text<'a>,
    #[serde(default, borrow)]
    tool_calls: Many<ToolCall<'a>, 0>,
    #[serde(default, borrow)]
    function_call: Object<Box<Function<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Object<Function<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    arguments: Text<'a>,
}

/// What `/v2/embed` answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cohere {
    meta: Object<Meta>,
}

/// Reads one event of a stream. An error means that it could not be read.
pub(crate) fn read_event(data: &str, progress: &mut Progress) -> serde_json::Result<()> {
    if shape::looks_known(Form::Event, data.as_bytes(), progress) {
        return Ok(());
    }
    let mut chunk: Chunk<'_> = quick::from_str(data)?;
    if let Some(info) = std::mem::take(&mut chunk.error).info() {
        progress.fail(error::of_frame(&info));
        return Ok(());
    }
    progress.model(&chunk.model);
    for choice in &chunk.choices.0 {
        choice.report(progress);
    }
    if let Some(choice) = chunk.choices.0.first() {
        progress.choices = true;
        progress.prompt_ids(choice.index(), chunk.prompt_token_ids.0);
    }
    if let Some(metrics) = &chunk.metrics.0 {
        progress.engine(metrics);
    }
    if let Some((meaning, text)) = chunk.plain() {
        if let (Some(text), Some(told)) = (text, meaning.choice)
            && told.finish.is_none()
        {
            let changing = if meaning.usage {
                Changing::Usage
            } else {
                Changing::Text
            };
            progress.template(data, text, told.piece, changing);
        }
        if meaning.choice.is_some() || meaning.usage {
            shape::learn(Form::Event, data.as_bytes(), text, &chunk.model, meaning);
        }
    }
    match (chunk.usage.0, chunk.choices.0.first()) {
        (Some(usage), Some(choice)) => progress.usage_so_far(choice.index(), &usage),
        (Some(usage), None) => progress.usage(&usage),
        (None, Some(_)) => {}
        // Neither choices nor usage: vLLM up to 0.10 has its errors flat.
        (None, None) => {
            let body: ErrorBody<'_> = quick::from_str(data)?;
            if let Some(info) = body.declared() {
                progress.fail(error::of_frame(&info));
            }
        }
    }
    Ok(())
}

/// Reads a whole body that is not a stream.
pub(crate) fn read_body(body: &[u8], progress: &mut Progress) -> serde_json::Result<()> {
    if shape::looks_known(Form::Body, body, progress) {
        return Ok(());
    }
    let chunk: Chunk<'_> = quick::from_slice(body)?;
    if let Some((meaning, text)) = chunk.plain()
        && meaning.usage
    {
        shape::learn(Form::Body, body, text, &chunk.model, meaning);
    }
    progress.model(&chunk.model);
    if let Some(metrics) = chunk.metrics.0 {
        progress.engine(&metrics);
    }
    match &chunk.usage.0 {
        Some(usage) => progress.usage(usage),
        None => {
            let cohere: Cohere = quick::from_slice(body)?;
            if let Some(usage) = cohere.meta.0.and_then(Meta::usage) {
                progress.usage(&usage);
            }
        }
    }
    for choice in &chunk.choices.0 {
        choice.report(progress);
    }
    Ok(())
}

// === impl Chunk ===

impl Chunk<'_> {
    /// What it comes to, and the one text that it bears if there is one, if there is nothing else to it.
    fn plain(&self) -> Option<(Meaning, Option<&str>)> {
        let rest = self.prompt_token_ids.0.is_some() || self.metrics.0.is_some();
        let detailed = self.usage.0.as_ref().is_some_and(|usage| !usage.is_bare());
        if rest || detailed {
            return None;
        }
        let (choice, text) = match &*self.choices.0 {
            [] => (None, None),
            [choice] => {
                let (told, text) = choice.plain()?;
                (Some(told), text)
            }
            _ => return None,
        };
        let meaning = Meaning {
            choice,
            usage: self.usage.0.is_some(),
        };
        Some((meaning, text))
    }
}

// === impl Choice ===

impl Choice<'_> {
    fn index(&self) -> u32 {
        self.index.0.map_or(0, |index| index as u32)
    }

    /// What it says, and the one text that it bears if there is one, if there is nothing else to it.
    fn plain(&self) -> Option<(Told, Option<&str>)> {
        if self.token_ids.0.or(self.prompt_token_ids.0).is_some() {
            return None;
        }
        let reasoning = self.delta.0.as_ref().map_or("", Delta::reasoning);
        let answers = self.delta.0.iter().flat_map(Delta::answer);
        let texts = answers.chain([reasoning, &self.text]);
        let mut texts = texts.filter(|text| !text.is_empty());
        let text = texts.next();
        if texts.next().is_some() {
            return None;
        }
        let piece = Piece {
            index: self.index(),
            reasoning: !reasoning.is_empty(),
            answer: text.is_some() && reasoning.is_empty(),
            ids: None,
        };
        let finish = self.finish_reason.0;
        Some((Told { piece, finish }, text))
    }

    fn report(&self, progress: &mut Progress) {
        let delta = self.delta.0.as_ref();
        let reasoning = delta.map_or("", Delta::reasoning);
        let answer =
            || std::iter::once(&*self.text).chain(delta.into_iter().flat_map(Delta::answer));
        let answers = answer().any(|text| !text.is_empty());
        let token = progress.piece(Piece {
            index: self.index(),
            reasoning: !reasoning.is_empty(),
            // Ids without a delta are the answer of /inference/v1/generate; beside a delta without text they are
            // tokens that a parser holds back, of which nobody knows yet what they will be.
            answer: answers || (delta.is_none() && self.token_ids.0.is_some_and(|count| count > 0)),
            ids: self.token_ids.0,
        });
        progress.prompt_ids(self.index(), self.prompt_token_ids.0);
        if token && progress.keeps_text() {
            progress.keep(self.index(), reasoning);
            answer().for_each(|text| progress.keep(self.index(), text));
        }
        if let Some(reason) = self.finish_reason.0 {
            progress.finished(self.index(), reason);
        }
    }
}

// === impl Delta ===

impl Delta<'_> {
    /// vLLM 0.11.2 to 0.14 says the same thing in both fields.
    fn reasoning(&self) -> &str {
        if self.reasoning.is_empty() {
            &self.reasoning_content
        } else {
            &self.reasoning
        }
    }

    fn answer(&self) -> impl Iterator<Item = &str> {
        let calls = self.tool_calls.0.iter().map(|call| &call.function);
        let functions = calls
            .filter_map(|function| function.0.as_ref())
            .chain(self.function_call.0.as_deref());
        [&*self.content, &*self.refusal]
            .into_iter()
            .chain(functions.flat_map(|function| [&*function.name, &*function.arguments]))
    }
}
