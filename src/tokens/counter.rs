//! What the estimator's thread knows: the models' tokenizers, and the ratios for all others.

use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;

use crate::classify::Endpoint;
use crate::config::TokenModel;
use crate::observe::json::Text;
use crate::outcome::TokenSource;
use crate::record::EstimateText;

use super::calibration::{Calibration, relative_error};
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
                return Some(PromptCount {
                    count,
                    exact: true,
                    media: false,
                });
            }
        }
        prompt::count(endpoint, body)
    }

    pub(super) fn finish(&self, job: Job) {
        let Job { mut record, prompt } = job;
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
            let read = prompt.and_then(|cell| cell.read());
            record.input_tokens = read.map(|read| self.input(model, read));
        }
        self.sink.record(Estimated { record });
    }

    pub(super) fn learn(&mut self, lesson: Lesson) {
        let Lesson {
            model,
            prompt,
            output,
        } = lesson;
        if let Some((cell, usage)) = prompt
            && let Some(read) = cell.read()
            && !read.media
        {
            self.compare(&model, Direction::Input, read.count, read.exact, usage);
        }
        if let Some((output, usage)) = output
            && !output.text.truncated
        {
            let exact = self.models.get(&*model);
            let count = match exact {
                Some(exact) => tokens(&output.text, |text| exact.text(text)),
                None => estimate(&model, &output.text),
            };
            let exact = exact.is_some();
            if let Some(count) = count {
                let count = count.saturating_add(output.ends);
                self.compare(&model, Direction::Output, count, exact, usage);
            }
        }
    }

    /// Learns from an estimate. An exact count has nothing to learn, but a wrong tokenizer would show.
    fn compare(&mut self, model: &str, direction: Direction, count: u64, exact: bool, usage: u64) {
        let error = if exact {
            Some(relative_error(count, usage))
        } else {
            self.calibration.learn(model, direction, count, usage)
        };
        if let Some(error) = error {
            self.sink.error(model, direction, error);
        }
    }

    fn input(&self, model: &str, read: PromptCount) -> (u64, TokenSource) {
        if read.exact {
            return (read.count, TokenSource::Tokenizer);
        }
        let count = self.calibration.apply(model, Direction::Input, read.count);
        (count, TokenSource::Estimate)
    }

    fn output(&self, model: &str, output: &Output) -> Option<(u64, TokenSource)> {
        if let Some(exact) = self.models.get(model)
            && let Some(count) = tokens(&output.text, |text| exact.text(text))
        {
            // Of a text that was cut nobody knows the rest.
            let source = if output.text.truncated {
                TokenSource::Estimate
            } else {
                TokenSource::Tokenizer
            };
            return Some((count.saturating_add(output.ends), source));
        }
        let count = estimate(model, &output.text)?.saturating_add(output.ends);
        let count = self.calibration.apply(model, Direction::Output, count);
        Some((count, TokenSource::Estimate))
    }
}

fn estimate(model: &str, text: &EstimateText) -> Option<u64> {
    let encoding = Encoding::of_model(model);
    tokens(text, |text| encoding.count(text))
}

/// Over all choices, each by itself as it was generated.
fn tokens(text: &EstimateText, count: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    text.choices().map(count).sum()
}
