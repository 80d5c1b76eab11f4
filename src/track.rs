//! One request's life: from its head to exactly one [`Record`], whatever ends it.
//!
//! A [`Track`] is made before the first await and moves into the response body, so that a client that leaves while
//! upstream thinks is counted like any other: there is no exit that does not pass its `Drop`.

mod cache;
mod recorder;
mod request;
mod work;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, response};
use prometheus::IntGauge;
use prometheus::local::LocalHistogram;
use smallvec::SmallVec;

pub use recorder::Recorder;
pub use request::RequestWatch;

use crate::activity::Slot;
use crate::classify::Endpoint;
use crate::ledger::Ticket;
use crate::metrics::polled::Books;
use crate::metrics::{Fault, InUse};
use crate::observe::{HeadFacts, ResponseObserver};
use crate::outcome::{End, ErrorType, Outcome, Phase};
use crate::record::Record;
use crate::tenants::TenantValues;

/// Inter-token gaps are counted locally and flushed at least this often, so that a stream of minutes shows at once.
const FLUSH: Duration = Duration::from_secs(1);

/// One request that is being measured.
#[derive(Debug)]
pub struct Track {
    recorder: Rc<Recorder>,
    endpoint: Endpoint,
    /// A stored response is asked for again: its times are not those of its making.
    replay: bool,
    started: Instant,
    request: Rc<RefCell<RequestWatch>>,
    /// The model, as the client named it. Of a request whose response has come.
    requested: Option<Box<str>>,
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
        /// It was asked for a stream.
        stream: bool,
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
            requested: None,
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

    /// It is about to be sent to the upstream with these books; to another one than before, if that has done nothing for it.
    pub fn toward(&mut self, books: &Books) {
        // What no engine works for is no sign of one, and has no tokens.
        if self.replay || self.endpoint == Endpoint::Tokenize {
            return;
        }
        // A session may be open and quiet for hours, and what passes in it is not read.
        if self.endpoint == Endpoint::Realtime {
            return;
        }
        self.ticket = Some(books.ledger.ticket());
        // An adapter that loads or an engine that wakes up takes its time, and moves nothing.
        if self.endpoint == Endpoint::Other {
            return;
        }
        self.request.borrow_mut().toward(Arc::clone(&books.slot));
        self.slot = Some(Arc::clone(&books.slot));
    }

    /// The response head has come.
    pub fn head(&mut self, head: &response::Parts) {
        let (mut facts, learning) = {
            let mut request = self.request.borrow_mut();
            (request.settle(), request.learns())
        };
        facts.replay = self.replay;
        // Kept here, where it outlives a bug in the observer.
        self.requested = facts.model.take();
        let stream = facts.stream;
        if let Some(ticket) = &mut self.ticket {
            ticket.choices(work::choices(self.endpoint, facts.n));
            ticket.work(work::of(self.endpoint, &facts, head.status));
        }
        let value = |name| head.headers.get(name).map(http::HeaderValue::as_bytes);
        let facts_of_head = HeadFacts {
            status: head.status.as_u16(),
            content_type: value(CONTENT_TYPE),
            content_encoding: value(CONTENT_ENCODING),
        };
        let observer = self.recorder.contain(|| {
            let observer = ResponseObserver::new(
                self.endpoint,
                facts,
                &facts_of_head,
                self.recorder.limits(),
                self.started,
                self.recorder.estimates(),
            );
            Box::new(observer.learning(learning))
        });
        self.stage = Stage::Body {
            observer,
            stream,
            status: head.status.as_u16(),
            any_data: false,
        };
    }

    /// A piece of the response body passes.
    pub fn data(&mut self, bytes: &[u8], now: Instant) {
        self.set_stalled(false);
        let Stage::Body {
            observer,
            stream,
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
            if *stream && !self.speaks {
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
                let series = self.recorder.series(
                    watching.served_model(),
                    self.requested.as_deref(),
                    self.endpoint,
                    true,
                    &self.tenants,
                );
                let local = series.itl(self.recorder.metrics()).local();
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
        let series = self.recorder.series(
            None,
            self.requested.as_deref(),
            self.endpoint,
            true,
            &self.tenants,
        );
        let gauge = series.stalled(self.recorder.metrics()).clone();
        gauge.inc();
        self.stalled = Some((series, gauge));
    }

    /// Whether silence of this response is a stall: it is a stream whose end has not been seen.
    #[must_use]
    pub fn can_stall(&self) -> bool {
        match &self.stage {
            Stage::Body {
                stream, observer, ..
            } => *stream && observer.as_ref().is_none_or(|o| !o.done()),
            Stage::AwaitingHead | Stage::Recorded => false,
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
            stream,
            status,
            any_data,
        } = stage
        else {
            self.stage = stage;
            return;
        };
        let record = observer
            .and_then(|mut observer| self.recorder.contain(|| observer.end(end, now)))
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
                self.bare(stream, outcome, now)
            });
        // Also of an answer that had no token in it.
        if let Some(slot) = &self.slot
            && record.outcome == Outcome::Success
        {
            slot.progress(now);
        }
        self.publish(record, now);
    }

    /// The one way out.
    fn publish(&mut self, mut record: Record, now: Instant) {
        record.tenants = std::mem::take(&mut self.tenants);
        record.requested_model = self.requested.take();
        if let Some(slot) = &self.slot
            && std::mem::take(&mut self.speaks)
        {
            slot.hushes();
        }
        let unanswered = record.outcome.unanswered();
        let (prompt, series) = self.request.borrow_mut().leave(unanswered, now);
        self.recorder
            .record(record, prompt, self.ticket.take(), series);
    }

    fn conclude(&mut self, outcome: Outcome) {
        if !matches!(self.stage, Stage::AwaitingHead) {
            return;
        }
        self.stage = Stage::Recorded;
        let facts = self.request.borrow_mut().settle();
        self.requested = facts.model;
        let now = Instant::now();
        let record = self.bare(facts.stream, outcome, now);
        self.publish(record, now);
    }

    /// A record of which nothing is known but its end.
    fn bare(&self, stream: bool, outcome: Outcome, now: Instant) -> Record {
        Record {
            stream,
            duration: now.saturating_duration_since(self.started),
            ..Record::bare(self.endpoint, outcome)
        }
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
