//! What the estimator's thread knows: the models' tokenizers, and the ratios for all others.

use std::collections::HashMap;
use std::iter::Sum;
use std::rc::Rc;

use serde::Deserialize;

use crate::classify::Endpoint;
use crate::config::TokenModel;
use crate::observe::json::Text;
use crate::outcome::TokenSource;
use crate::record::{ChoiceText, EstimateText};

use super::calibration::{Calibration, Features, relative_error};
use super::count::Encoding;
use super::exact::Exact;
use super::{Direction, Estimated, Job, Lesson, Output, PromptCount, Sink, ends, prompt};

pub(super) struct Counter {
    models: HashMap<String, Rc<Exact>>,
    calibration: Calibration,
    sink: Box<dyn Sink>,
}

/// Of a request body the model only.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    model: Text<'a>,
}

// === impl Counter ===

impl Counter {
    pub(super) fn new(models: &[TokenModel], sink: Box<dyn Sink>) -> Self {
        let mut loaded = HashMap::new();
        for model in models {
            match Exact::load(model) {
                Ok(exact) => {
                    let exact = Rc::new(exact);
                    let names = model.names.iter().cloned();
                    loaded.extend(names.map(|name| (name, Rc::clone(&exact))));
                }
                // The configuration was checked, so the file has changed since; its counts are estimates then.
                Err(why) => tracing::error!(why, "a model's tokenizer cannot be used"),
            }
        }
        Self {
            models: loaded,
            calibration: Calibration::default(),
            sink,
        }
    }

    pub(super) fn prompt(&self, endpoint: Endpoint, body: &[u8]) -> Option<PromptCount> {
        if !self.models.is_empty() {
            let named: Named<'_> = serde_json::from_slice(body).ok()?;
            let exact = self.models.get(&*named.model);
            if let Some(count) = exact.and_then(|model| model.prompt(endpoint, body)) {
                return Some(PromptCount::Exact(count));
            }
        }
        prompt::count(endpoint, body)
    }

    pub(super) fn finish(&self, job: Job) {
        let Job {
            mut record,
            prompt,
            ticket,
        } = job;
        let text = record.text.take();
        let model = record.served_model.as_deref();
        let model = model.or(record.requested_model.as_deref());
        let model = model.unwrap_or_default();
        if record.output_tokens.is_none()
            && let Some(text) = text
        {
            let ends = ends(&record);
            record.output_tokens = self.output(model, &Output { text, ends });
        }
        if record.input_tokens.is_none() {
            let read = prompt.and_then(|cell| cell.0.get().copied());
            record.input_tokens = read.map(|read| self.input(model, read));
        }
        self.sink.record(Estimated { record, ticket });
    }

    pub(super) fn learn(&mut self, lesson: Lesson) {
        let Lesson {
            model,
            prompt,
            output,
        } = lesson;
        match prompt.and_then(|(cell, usage)| Some((*cell.0.get()?, usage))) {
            Some((PromptCount::Exact(count), usage)) => {
                self.compare(&model, Direction::Input, count, usage);
            }
            Some((PromptCount::Estimate { text, media: false }, usage)) => {
                self.fit(&model, Direction::Input, text, usage);
            }
            // What an image costs is not the tokenizer's to say.
            Some((PromptCount::Estimate { media: true, .. }, _)) | None => {}
        }
        if let Some((output, usage)) = output
            && !output.text.truncated
        {
            if let Some(exact) = self.models.get(&*model) {
                let count = tokens(&output.text, |kept| exactly(exact, kept));
                if let Some(count) = count {
                    let count = count.saturating_add(output.ends);
                    self.compare(&model, Direction::Output, count, usage);
                }
            } else if let Some(text) = measure(&model, &output) {
                self.fit(&model, Direction::Output, text, usage);
            }
        }
    }

    /// An exact count has nothing to learn, but a wrong tokenizer would show.
    fn compare(&self, model: &str, direction: Direction, count: u64, usage: u64) {
        self.sink
            .error(model, direction, relative_error(count, usage));
    }

    fn fit(&mut self, model: &str, direction: Direction, text: Features, usage: u64) {
        if let Some(error) = self.calibration.learn(model, direction, text, usage) {
            self.sink.error(model, direction, error);
        }
    }

    fn input(&self, model: &str, read: PromptCount) -> (u64, TokenSource) {
        match read {
            PromptCount::Exact(count) => (count, TokenSource::Tokenizer),
            PromptCount::Estimate { text, .. } => {
                let count = self.calibration.apply(model, Direction::Input, text);
                (count, TokenSource::Estimate)
            }
        }
    }

    fn output(&self, model: &str, output: &Output) -> Option<(u64, TokenSource)> {
        if let Some(exact) = self.models.get(model)
            && let Some(count) = tokens(&output.text, |kept| exactly(exact, kept))
        {
            // Of a text that was cut nobody knows the rest.
            let source = if output.text.truncated {
                TokenSource::Estimate
            } else {
                TokenSource::Tokenizer
            };
            return Some((count.saturating_add(output.ends), source));
        }
        let text = measure(model, output)?;
        let pieces: u64 = output.text.choices().map(|kept| kept.pieces).sum();
        let count = self.calibration.apply(model, Direction::Output, text);
        Some((
            count.max(pieces.saturating_add(output.ends)),
            TokenSource::Estimate,
        ))
    }
}

/// By the model's own tokenizer, but no fewer than came.
pub(super) fn exactly(model: &Exact, kept: &ChoiceText) -> Option<u64> {
    Some(model.text(&kept.text)?.max(kept.pieces))
}

fn measure(model: &str, output: &Output) -> Option<Features> {
    let encoding = Encoding::of_model(model);
    let text = tokens(&output.text, |kept| encoding.measure(&kept.text))?;
    Some(text + Features::tokens(output.ends))
}

/// Over all choices, each by itself as it was generated.
fn tokens<T: Sum>(text: &EstimateText, count: impl Fn(&ChoiceText) -> Option<T>) -> Option<T> {
    text.choices().map(count).sum()
}
