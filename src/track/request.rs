//! The request's side of a track: fed by the body as it passes, read when the response comes.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntGauge;

use super::Recorder;
use crate::classify::Endpoint;
use crate::observe::{RequestFacts, RequestTee};
use crate::tokens::PromptCell;

/// Watches one request body, and holds the in-flight gauge.
#[derive(Debug)]
pub struct RequestWatch {
    recorder: Rc<Recorder>,
    endpoint: Endpoint,
    tee: Option<RequestTee>,
    facts: Option<RequestFacts>,
    in_flight: Option<IntGauge>,
    prompt: Option<Arc<PromptCell>>,
    learns: bool,
}

impl RequestWatch {
    pub(super) fn new(recorder: Rc<Recorder>, endpoint: Endpoint) -> Self {
        let tee = RequestTee::new(endpoint, recorder.max_request_body());
        Self {
            recorder,
            endpoint,
            tee: Some(tee),
            facts: None,
            in_flight: None,
            prompt: None,
            learns: false,
        }
    }

    /// A piece of the body passes.
    pub fn push(&mut self, data: &Bytes) {
        if let Some(tee) = &mut self.tee {
            tee.push(data);
        }
    }

    /// The body is complete.
    pub fn end(&mut self) {
        let Some(tee) = self.tee.take() else {
            return;
        };
        let (facts, body) = self.recorder.contain(|| tee.finish()).unwrap_or_default();
        let model = self.recorder.label(None, facts.model.as_deref());
        let series = self.recorder.series(&model, self.endpoint, facts.stream);
        series.in_flight.inc();
        self.in_flight = Some(series.in_flight.clone());
        // An answer that is not a stream brings its usage; so does a stream that was asked to.
        self.learns = body.is_some() && self.recorder.wants_sample(self.endpoint, &facts);
        if (self.learns || facts.stream && !facts.include_usage)
            && let Some(body) = body
        {
            self.prompt = self.recorder.estimate_prompt(self.endpoint, body);
        }
        self.facts = Some(facts);
    }

    /// What is known of the request now that its response has come, early or not.
    pub(super) fn settle(&mut self) -> RequestFacts {
        self.end();
        self.facts.clone().unwrap_or_default()
    }

    /// Whether it was chosen to be counted beside its usage.
    pub(super) fn learns(&self) -> bool {
        self.learns
    }

    /// The request has ended.
    pub(super) fn leave(&mut self) -> Option<Arc<PromptCell>> {
        if let Some(gauge) = self.in_flight.take() {
            gauge.dec();
        }
        self.prompt.take()
    }
}
