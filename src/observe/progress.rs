//! What a response has shown so far, whichever dialect it speaks.

use std::time::Duration;

use smallvec::SmallVec;

use crate::outcome::{ErrorType, TokenSource};
use crate::record::{EstimateText, FinishReason};

use super::template::{Changing, Known, Template};
use super::timing::Timing;
use super::wire::{EngineMetrics, Usage};

/// A longer name is no model's, and no label.
const MODEL_NAME: usize = 256;

/// Templates that a stream may wear out: reasoning and answer are two. Choices that take turns need no more than that
/// each time, and would spend more on them than on parsing.
const TEMPLATES: u8 = 8;

/// One choice's part of one frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Which choice.
    pub(crate) index: u32,
    /// It carries reasoning text.
    pub(crate) reasoning: bool,
    /// It carries output that is not reasoning.
    pub(crate) answer: bool,
    /// How many token ids it carries, if it has a list of them.
    pub(crate) ids: Option<u64>,
}

/// How the text that `echo` asks for arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Not asked for.
    None,
    /// Chat: in a frame of its own before the first token of each choice.
    OwnFrame,
    /// Completions: in front of the first token's text, in the same frame (vLLM 0.6 to 0.33 alike).
    WithFirst,
    /// Completions with `max_tokens: 0`: there is nothing but the prompt.
    Only,
}

/// The running state.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) timing: Timing,
    pub(crate) model: Option<Box<str>>,
    pub(crate) finish_reasons: SmallVec<[FinishReason; 1]>,
    pub(crate) queue: Option<Duration>,
    pub(crate) engine_ttft: Option<Duration>,
    /// A chunk with `choices` has passed: a stream of that kind ends in `[DONE]`.
    pub(crate) choices: bool,
    /// The error frame, or the error that a 200 body is.
    pub(crate) error: Option<ErrorType>,
    /// The terminal frame has passed.
    pub(crate) done: bool,
    usage: Counts,
    ids: Ids,
    template: Option<Template>,
    /// How many more there may be.
    templates: u8,
    text: Option<Box<EstimateText>>,
    text_limit: usize,
    /// The text is kept beside usage, for the two to be compared.
    learning: bool,
    echo: Echo,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
    reasoning: Option<u64>,
    state: Counted,
}

/// What `return_token_ids` tells: exact where there is no usage, as long as all that was generated came with its ids.
#[derive(Clone, Copy, Debug)]
struct Ids {
    output: u64,
    /// Output without ids has passed.
    lacking: bool,
    input: Option<u64>,
    /// Choices to a prompt, each of which brings the prompt's ids.
    n: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Counted {
    #[default]
    Nothing,
    /// What the choices' own counts add up to.
    SoFar,
    Finally,
}

/// The counts as the record takes them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tokens {
    pub(crate) input: Option<(u64, TokenSource)>,
    pub(crate) output: Option<(u64, TokenSource)>,
    pub(crate) cached: Option<u64>,
    pub(crate) reasoning: Option<u64>,
}

// === impl Progress ===

impl Progress {
    /// `n` is the request's; `text_limit` caps the text kept for an estimate, none keeps no text.
    pub(crate) fn new(timing: Timing, echo: Echo, n: u32, text_limit: Option<usize>) -> Self {
        Self {
            timing,
            model: None,
            finish_reasons: SmallVec::new(),
            queue: None,
            engine_ttft: None,
            choices: false,
            error: None,
            done: false,
            usage: Counts::default(),
            text: text_limit.map(|_| Box::default()),
            ids: Ids {
                output: 0,
                lacking: false,
                input: None,
                n: n.max(1),
            },
            template: None,
            templates: if echo == Echo::None { TEMPLATES } else { 0 },
            text_limit: text_limit.unwrap_or(0),
            learning: false,
            echo,
        }
    }

    /// The model, as upstream names it. The first name stands.
    pub(crate) fn model(&mut self, name: &str) {
        if self.model.is_none() && !name.is_empty() && name.len() <= MODEL_NAME {
            self.model = Some(name.into());
        }
    }

    /// Part of a frame. Answers whether its text is generated output to be kept.
    pub(crate) fn piece(&mut self, piece: Piece) -> bool {
        if !(piece.reasoning || piece.answer || piece.ids.is_some_and(|count| count > 0)) {
            return false;
        }
        let mut text = true;
        if self.echo != Echo::None {
            let first = self.timing.first_text(piece.index);
            match self.echo {
                Echo::Only => return false,
                Echo::OwnFrame if first => return false,
                // The prompt cannot be told from the token behind it, so the estimate goes without that token.
                Echo::WithFirst => text = !first,
                Echo::None | Echo::OwnFrame => {}
            }
        }
        match piece.ids {
            Some(count) => self.ids.output = self.ids.output.saturating_add(count),
            None => self.ids.lacking = true,
        }
        self.timing.token(piece.index, piece.answer);
        text
    }

    /// Keeps the text also once usage has made an estimate needless.
    pub(crate) fn learn(&mut self) {
        self.learning = true;
    }

    /// Takes an event that bears nothing but this text, and what is said to change, for what others will look like.
    pub(crate) fn template(&mut self, event: &str, text: &str, piece: Piece, changing: Changing) {
        if self.templates > 0
            && let Some(template) = Template::new(event, text, piece, changing)
        {
            self.templates -= 1;
            self.template = Some(template);
        }
    }

    /// Has every event parsed.
    #[cfg(test)]
    pub(crate) fn parse_all(&mut self) {
        self.templates = 0;
    }

    /// How many there have been.
    #[cfg(test)]
    pub(crate) fn templates_used(&self) -> u8 {
        TEMPLATES - self.templates
    }

    /// Reads an event that looks like the template. Answers whether it does.
    pub(crate) fn looks_known(&mut self, event: &[u8]) -> bool {
        let known = self.template.as_ref().and_then(|known| known.read(event));
        let Some(Known { piece, text, usage }) = known else {
            return false;
        };
        if self.piece(piece) {
            self.keep(piece.index, text);
        }
        if let Some((prompt, completion)) = usage {
            self.counts_so_far(piece.index, (prompt, completion));
        }
        true
    }

    /// Whether it does.
    pub(crate) fn learns(&self) -> bool {
        self.learning
    }

    fn counted(&mut self) {
        if !self.learning {
            self.text = None;
        }
    }

    /// The prompt's ids, beside a choice.
    pub(crate) fn prompt_ids(&mut self, index: u32, count: Option<u64>) {
        // vLLM numbers the choices of several prompts in one row.
        if let Some(count) = count.filter(|_| index.is_multiple_of(self.ids.n)) {
            self.ids.input = Some(self.ids.input.unwrap_or(0).saturating_add(count));
        }
    }

    /// Whether text is still wanted.
    pub(crate) fn keeps_text(&self) -> bool {
        self.text.is_some()
    }

    /// Keeps a choice's generated text for the estimate.
    pub(crate) fn keep(&mut self, index: u32, text: &str) {
        let Some(kept) = &mut self.text else { return };
        if kept.truncated {
            return;
        }
        let room = self.text_limit.saturating_sub(kept.len());
        let end = text.floor_char_boundary(room);
        kept.truncated = end < text.len();
        kept.push(index, text.get(..end).unwrap_or_default());
    }

    /// Usage on a frame that carries a choice: the running count of that choice.
    pub(crate) fn usage_so_far(&mut self, index: u32, usage: &Usage) {
        if let Some(output) = usage.output() {
            self.generated_so_far(index, output);
        }
        self.details(usage);
    }

    /// The same of nothing but the prompt's tokens and the generated ones.
    pub(crate) fn counts_so_far(&mut self, index: u32, (prompt, completion): (u64, u64)) {
        self.generated_so_far(index, completion);
        self.usage.input = Some(prompt);
    }

    fn generated_so_far(&mut self, index: u32, output: u64) {
        self.timing.count(index, output);
        if self.usage.state == Counted::Nothing {
            self.usage.state = Counted::SoFar;
        }
        self.counted();
    }

    /// Usage of the whole request.
    pub(crate) fn usage(&mut self, usage: &Usage) {
        if let Some(output) = usage.output() {
            self.usage.output = Some(output);
            self.counted();
        }
        if usage.output().or(usage.input()).is_some() {
            self.usage.state = Counted::Finally;
        }
        self.details(usage);
    }

    /// The same of nothing but the prompt's tokens and the generated ones.
    pub(crate) fn usage_in_all(&mut self, (prompt, completion): (u64, u64)) {
        self.usage.output = Some(completion);
        self.usage.input = Some(prompt);
        self.usage.state = Counted::Finally;
        self.counted();
    }

    /// Usage before any output: only its prompt side says something.
    pub(crate) fn usage_of_prompt(&mut self, usage: &Usage) {
        self.details(usage);
    }

    fn details(&mut self, usage: &Usage) {
        // Fields that a later usage leaves out (vLLM's continuous ones leave out the cache) keep their last value.
        self.usage.input = usage.input().or(self.usage.input);
        self.usage.cached = usage.cached().or(self.usage.cached);
        self.usage.reasoning = usage.reasoning().or(self.usage.reasoning);
    }

    /// vLLM's own times.
    pub(crate) fn engine(&mut self, metrics: &EngineMetrics) {
        self.queue = metrics.queue().or(self.queue);
        self.engine_ttft = metrics.ttft().or(self.engine_ttft);
    }

    /// A choice has finished.
    pub(crate) fn finished(&mut self, index: u32, reason: FinishReason) {
        if self.timing.finish(index) {
            self.finish_reasons.push(reason);
        }
    }

    /// An error frame. The first stands.
    pub(crate) fn fail(&mut self, error: ErrorType) {
        self.error.get_or_insert(error);
    }

    /// Whether what comes now changes nothing any more.
    pub(crate) fn over(&self) -> bool {
        self.done || self.error.is_some()
    }

    /// The counts, of a response that came to its end properly or not.
    pub(crate) fn tokens(&self, complete: bool) -> Tokens {
        let Counts {
            input,
            output,
            cached,
            reasoning,
            state,
        } = self.usage;
        let source = if complete || state == Counted::Finally {
            TokenSource::Usage
        } else {
            TokenSource::Partial
        };
        let ids = (!self.ids.lacking && self.ids.output > 0).then_some(self.ids.output);
        let output = match state {
            Counted::SoFar => Some(self.timing.counted()),
            Counted::Nothing => output.or(ids),
            Counted::Finally => output,
        };
        Tokens {
            input: input.or(self.ids.input).map(|count| (count, source)),
            output: output.map(|count| (count, source)),
            cached,
            reasoning,
        }
    }

    /// The text kept, where there is anything to estimate.
    pub(crate) fn take_text(&mut self) -> Option<EstimateText> {
        let text = self.text.take().map(|text| *text);
        text.filter(|text| !text.is_empty())
    }
}
