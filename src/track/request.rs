//! The request's side of a track: fed by the body as it passes, read when the response comes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Recorder;
use crate::activity::Slot;
use crate::classify::Endpoint;
use crate::metrics::InUse;
use crate::observe::{RequestFacts, RequestTee};
use crate::tenants::TenantValues;
use crate::tokens::PromptCell;

/// Watches one request body, and holds the in-flight gauge.
#[derive(Debug)]
pub struct RequestWatch {
    recorder: Rc<Recorder>,
    endpoint: Endpoint,
    tee: Option<RequestTee>,
    /// Until the response comes.
    facts: RequestFacts,
    /// Usage was promised: by the kind of answer, or because it was asked for.
    promised: bool,
    tenants: TenantValues,
    in_flight: Option<InUse>,
    /// Of the upstream that it goes to.
    slot: Option<Arc<Slot>>,
    prompt: Option<Arc<PromptCell>>,
    learns: bool,
}

impl RequestWatch {
    pub(super) fn new(recorder: Rc<Recorder>, endpoint: Endpoint, tenants: TenantValues) -> Self {
        let tee = RequestTee::new(endpoint, recorder.max_request_body());
        Self {
            recorder,
            endpoint,
            tee: Some(tee),
            facts: RequestFacts::default(),
            promised: true,
            tenants,
            in_flight: None,
            slot: None,
            prompt: None,
            learns: false,
        }
    }

    /// Which upstream's engine it will keep busy.
    pub(super) fn toward(&mut self, slot: Arc<Slot>) {
        if self.in_flight.is_some() {
            // Its body was complete before, and may have been sent in vain.
            if let Some(before) = &self.slot {
                before.end(false, Instant::now());
            }
            slot.begin();
        }
        self.slot = Some(slot);
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
        let series = self.recorder.series(
            None,
            facts.model.as_deref(),
            self.endpoint,
            facts.stream,
            &self.tenants,
        );
        series.in_flight.inc();
        self.in_flight = Some(series);
        if let Some(slot) = &self.slot {
            slot.begin();
        }
        // An answer that is not a stream brings its usage; so does a stream that was asked to.
        self.learns = body.is_some() && self.recorder.wants_sample(self.endpoint, &facts);
        self.promised = facts.include_usage || !facts.stream;
        if (self.learns || !self.promised)
            && let Some(body) = body
        {
            self.prompt = self.recorder.estimate_prompt(self.endpoint, body);
        }
        self.facts = facts;
    }

    /// What is known of the request now that its response has come, early or not. Answered once.
    pub(super) fn settle(&mut self) -> RequestFacts {
        self.end();
        std::mem::take(&mut self.facts)
    }

    /// Whether it was chosen to be counted beside its usage.
    pub(super) fn learns(&self) -> bool {
        self.learns
    }

    /// The request has ended. Its prompt's count, and whether it is for the record: one that was sampled, and was promised
    /// usage, is counted for learning only, or whether a cut stream has an estimate would be left to chance. And what it
    /// was in flight on.
    pub(super) fn leave(
        &mut self,
        unanswered: bool,
        now: Instant,
    ) -> ((Option<Arc<PromptCell>>, bool), Option<InUse>) {
        let series = self.in_flight.take();
        if let Some(series) = &series {
            series.in_flight.dec();
            if let Some(slot) = &self.slot {
                slot.end(unanswered, now);
            }
        }
        ((self.prompt.take(), !self.promised), series)
    }
}
