//! One request's life: from its head to exactly one [`Record`], whatever ends it.
//!
//! A [`Track`] is made before the first await and moves into the response body, so that a client that leaves while
//! upstream thinks is counted like any other: there is no exit that does not pass its `Drop`.

mod recorder;
mod request;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode, response};
use prometheus::IntGauge;
use prometheus::local::LocalHistogram;
use smallvec::SmallVec;

pub use recorder::Recorder;
pub use request::RequestWatch;

use crate::activity::Slot;
use crate::classify::Endpoint;
use crate::ledger::{Ticket, Work};
use crate::metrics::{Fault, InUse, Key};
use crate::observe::{HeadFacts, RequestFacts, ResponseObserver};
use crate::outcome::{End, ErrorType, Outcome, Phase};
use crate::record::Record;
use crate::tenants::TenantValues;

/// Inter-token gaps are counted locally and flushed at least this often, so that a stream of minutes shows at once.
const FLUSH: Duration = Duration::from_secs(1);

/// vLLM takes no more (`VLLM_MAX_N_SEQUENCES`).
const MOST_CHOICES: u32 = 16_384;

/// One request that is being measured.
#[derive(Debug)]
pub struct Track {
    recorder: Rc<Recorder>,
    endpoint: Endpoint,
    /// A stored response is asked for again: its times are not those of its making.
    replay: bool,
    started: Instant,
    request: Rc<RefCell<RequestWatch>>,
    stage: Stage,
    gaps: Option<Gaps>,
    stalled: Option<(InUse, IntGauge)>,
    tenants: TenantValues,
    /// Where the engine's progress shows.
    slot: Option<Arc<Slot>>,
    /// It is a stream that has given something.
    speaks: bool,
    /// Its place in the books.
    ticket: Option<Ticket>,
}

#[derive(Debug)]
enum Stage {
    AwaitingHead,
    /// The observer is gone once it has panicked.
    Body {
        observer: Option<Box<ResponseObserver>>,
        facts: Box<RequestFacts>,
        status: u16,
        any_data: bool,
    },
    Recorded,
}

#[derive(Debug)]
struct Gaps {
    _series: InUse,
    local: LocalHistogram,
    flushed: Instant,
}

impl Track {
    /// A request head was received at `started`.
    #[must_use]
    pub fn new(
        recorder: Rc<Recorder>,
        endpoint: Endpoint,
        method: &Method,
        headers: &HeaderMap,
        started: Instant,
    ) -> Self {
        let tenants = recorder.tenants(headers);
        let request = Rc::new(RefCell::new(RequestWatch::new(
            Rc::clone(&recorder),
            endpoint,
            tenants.clone(),
        )));
        Self {
            recorder,
            endpoint,
            replay: endpoint == Endpoint::Responses && *method == Method::GET,
            started,
            request,
            stage: Stage::AwaitingHead,
            gaps: None,
            stalled: None,
            tenants,
            slot: None,
            speaks: false,
            ticket: None,
        }
    }

    /// What is to watch the request body.
    #[must_use]
    pub fn request(&self) -> Rc<RefCell<RequestWatch>> {
        Rc::clone(&self.request)
    }

    /// It is about to be sent to this upstream.
    pub fn toward(&mut self, upstream: usize) {
        // What no engine works for is no sign of one, and has no tokens.
        if self.replay || self.endpoint == Endpoint::Tokenize {
            return;
        }
        // A session may be open and quiet for hours, and what passes in it is not read.
        if self.endpoint == Endpoint::Realtime {
            return;
        }
        self.ticket = self.recorder.ticket(upstream);
        // An adapter that loads or an engine that wakes up takes its time, and moves nothing.
        if self.endpoint == Endpoint::Other {
            return;
        }
        if let Some(slot) = self.recorder.slot(upstream) {
            self.request.borrow_mut().toward(Arc::clone(slot));
            self.slot = Some(Arc::clone(slot));
        }
    }

    /// The response head has come.
    pub fn head(&mut self, head: &response::Parts) {
        let mut facts = self.request.borrow_mut().settle();
        facts.replay = self.replay;
        let learning = self.request.borrow().learns();
        if let Some(ticket) = &mut self.ticket {
            ticket.choices(choices(self.endpoint, facts.n));
            ticket.work(work(self.endpoint, &facts, head.status));
        }
        let value = |name| head.headers.get(name).map(http::HeaderValue::as_bytes);
        let facts_of_head = HeadFacts {
            status: head.status.as_u16(),
            content_type: value(CONTENT_TYPE),
            content_encoding: value(CONTENT_ENCODING),
        };
        let observer = self.recorder.contain(|| {
            ResponseObserver::new(
                self.endpoint,
                facts.clone(),
                &facts_of_head,
                self.recorder.limits(),
                self.started,
                self.recorder.estimates(),
            )
            .learning(learning)
        });
        self.stage = Stage::Body {
            observer: observer.map(Box::new),
            facts: Box::new(facts),
            status: head.status.as_u16(),
            any_data: false,
        };
    }

    /// A piece of the response body passes.
    pub fn data(&mut self, bytes: &[u8], now: Instant) {
        self.set_stalled(false);
        let Stage::Body {
            observer,
            facts,
            any_data,
            ..
        } = &mut self.stage
        else {
            return;
        };
        *any_data = true;
        let Some(watching) = observer else {
            // Bytes are all that can be seen now.
            if let Some(slot) = &self.slot {
                slot.progress(now);
            }
            return;
        };
        let mut closed: SmallVec<[crate::observe::Gap; 2]> = SmallVec::new();
        let seen = self
            .recorder
            .contain(|| watching.data(bytes, now, &mut |gap| closed.push(gap)));
        if seen.is_none() {
            *observer = None;
            return;
        }
        if let Some(slot) = &self.slot
            && watching.progressed(now)
        {
            slot.progress(now);
            if facts.stream && !self.speaks {
                self.speaks = true;
                slot.speaks();
            }
        }
        if closed.is_empty() {
            return;
        }
        let gaps = match &mut self.gaps {
            Some(gaps) => gaps,
            empty => {
                let model = self
                    .recorder
                    .label(watching.served_model(), facts.model.as_deref());
                let series = self
                    .recorder
                    .series(stream_key(model, self.endpoint, &self.tenants));
                let itl = &self.recorder.metrics().itl;
                let local = itl.with_label_values(&series.key().values(&[])).local();
                empty.insert(Gaps {
                    local,
                    _series: series,
                    flushed: now,
                })
            }
        };
        for gap in closed {
            for _ in 0..gap.count {
                gaps.local.observe(gap.length.as_secs_f64());
            }
        }
        if now.saturating_duration_since(gaps.flushed) >= FLUSH {
            gaps.local.flush();
            gaps.flushed = now;
        }
    }

    /// The stream has been silent for long, or speaks again.
    pub fn set_stalled(&mut self, stalled: bool) {
        if !stalled {
            // The very gauge that was raised: the model's label may have become known since.
            if let Some((_series, gauge)) = self.stalled.take() {
                gauge.dec();
            }
            return;
        }
        if self.stalled.is_some() {
            return;
        }
        let model = self.recorder.label(None, self.model());
        let series = self
            .recorder
            .series(stream_key(model, self.endpoint, &self.tenants));
        let gauge = self
            .recorder
            .metrics()
            .stalled
            .with_label_values(&series.key().values(&[]));
        gauge.inc();
        self.stalled = Some((series, gauge));
    }

    /// Whether silence of this response is a stall: it is a stream whose end has not been seen.
    #[must_use]
    pub fn can_stall(&self) -> bool {
        match &self.stage {
            Stage::Body {
                facts, observer, ..
            } => facts.stream && observer.as_ref().is_none_or(|o| !o.done()),
            Stage::AwaitingHead | Stage::Recorded => false,
        }
    }

    fn model(&self) -> Option<&str> {
        match &self.stage {
            Stage::Body { facts, .. } => facts.model.as_deref(),
            Stage::AwaitingHead | Stage::Recorded => None,
        }
    }

    /// Something of this request could not be done as promised.
    pub fn fault(&self, fault: Fault) {
        self.recorder.fault(fault);
    }

    /// It ended without a response from upstream.
    pub fn fail(mut self, outcome: Outcome) {
        self.conclude(outcome);
    }

    /// The response body has ended, at `now`.
    pub fn finish(&mut self, end: End, now: Instant) {
        self.set_stalled(false);
        if let Some(gaps) = &self.gaps {
            gaps.local.flush();
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Recorded);
        let Stage::Body {
            observer,
            facts,
            status,
            any_data,
        } = stage
        else {
            self.stage = stage;
            return;
        };
        let record = observer
            .and_then(|observer| self.recorder.contain(|| observer.finish(end, now)))
            .inspect(|record| {
                if record.faults > 0 {
                    self.recorder.faults(Fault::Unreadable, record.faults);
                }
            })
            .unwrap_or_else(|| {
                // The observer broke. The forwarding path still knows how the request ended.
                let outcome = match end {
                    End::Complete if status < 400 => Outcome::Success,
                    End::Complete => Outcome::Error(ErrorType::ProxyError),
                    End::UpstreamCut => Outcome::Error(ErrorType::UpstreamReset),
                    End::Stalled => Outcome::Error(ErrorType::StreamStalled),
                    End::ClientGone if any_data => Outcome::Cancelled(Phase::Streaming),
                    End::ClientGone => Outcome::Cancelled(Phase::BeforeFirstToken),
                };
                bare(self.endpoint, &facts, outcome, self.started, now)
            });
        // Also of an answer that had no token in it.
        if let Some(slot) = &self.slot
            && record.outcome == Outcome::Success
        {
            slot.progress(now);
        }
        self.publish(record);
    }

    /// The one way out.
    fn publish(&mut self, mut record: Record) {
        record.tenants = std::mem::take(&mut self.tenants);
        if let Some(slot) = &self.slot
            && std::mem::take(&mut self.speaks)
        {
            slot.hushes();
        }
        let prompt = self.request.borrow_mut().leave(record.outcome.unanswered());
        self.recorder.record(record, prompt, self.ticket.take());
    }

    fn conclude(&mut self, outcome: Outcome) {
        if !matches!(self.stage, Stage::AwaitingHead) {
            return;
        }
        self.stage = Stage::Recorded;
        let facts = self.request.borrow_mut().settle();
        let record = bare(self.endpoint, &facts, outcome, self.started, Instant::now());
        self.publish(record);
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        match self.stage {
            Stage::AwaitingHead => self.conclude(Outcome::Cancelled(Phase::BeforeHead)),
            Stage::Body { .. } => self.finish(End::ClientGone, Instant::now()),
            Stage::Recorded => {}
        }
    }
}

/// As how many requests the engine runs one with this `n`. Others ignore the field, so a client may write anything in it.
fn choices(endpoint: Endpoint, n: u32) -> u32 {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Generate => {
            n.min(MOST_CHOICES)
        }
        _ => 1,
    }
}

/// What of the engine's work its usage will not tell.
fn work(endpoint: Endpoint, facts: &RequestFacts, status: StatusCode) -> Work {
    if status.is_client_error() {
        Work::Refused
    } else if endpoint == Endpoint::Responses && facts.background {
        Work::Later
    } else if facts.searches {
        Work::More
    } else {
        Work::Recorded
    }
}

/// The series of a stream that has not ended.
fn stream_key(model: &str, endpoint: Endpoint, tenants: &TenantValues) -> Key {
    Key {
        model: model.into(),
        endpoint,
        stream: true,
        tenants: tenants.clone(),
    }
}

/// A record of which nothing is known but its end.
fn bare(
    endpoint: Endpoint,
    facts: &RequestFacts,
    outcome: Outcome,
    started: Instant,
    now: Instant,
) -> Record {
    Record {
        stream: facts.stream,
        requested_model: facts.model.clone(),
        duration: now.saturating_duration_since(started),
        ..Record::bare(endpoint, outcome)
    }
}
