//! Where one worker's tracks end: its cache of resolved series, the estimator, the shared metrics.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::cache::{Cache, Wanted};
use crate::classify::Endpoint;
use crate::config::Config;
use crate::ledger::Ticket;
use crate::metrics::{Fault, InUse, Metrics, labels};
use crate::observe::{Limits, RequestFacts};
use crate::record::Record;
use crate::tenants::TenantValues;
use crate::tokens::{Estimator, Job, Lesson, PromptCell};

/// One per worker.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    estimator: Option<Estimator>,
    series: Cache,
    limits: Limits,
    max_request_body: usize,
    /// Faults are counted always and logged once of each kind, or one odd client fills the disk.
    logged: Cell<u8>,
}

impl Recorder {
    /// A recorder on shared metrics.
    #[must_use]
    pub fn new(config: &Config, metrics: Arc<Metrics>, estimator: Option<Estimator>) -> Rc<Self> {
        Rc::new(Self {
            metrics,
            estimator,
            series: Cache::default(),
            limits: Limits {
                event: config.observe.max_event,
                body: config.observe.max_response_body,
                text: config.tokens.max_text,
            },
            max_request_body: config.observe.max_request_body,
            logged: Cell::new(0),
        })
    }

    /// The families.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn estimates(&self) -> bool {
        self.estimator.is_some()
    }

    pub(super) fn max_request_body(&self) -> usize {
        self.max_request_body
    }

    /// Runs a piece of the observer. A bug in it must cost a measurement, never a request.
    pub(super) fn contain<T>(&self, observe: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(observe))
            .map_err(|_panic| self.fault(Fault::Panic))
            .ok()
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.faults(fault, 1);
    }

    pub(super) fn faults(&self, fault: Fault, count: u32) {
        self.metrics
            .faults
            .with_label_values(&[fault.as_label()])
            .inc_by(u64::from(count));
        let bit = 1 << fault as u8;
        if self.logged.get() & bit == 0 {
            self.logged.set(self.logged.get() | bit);
            tracing::warn!(
                reason = fault.as_label(),
                "the observer could not measure something; the traffic goes on"
            );
        }
    }

    /// The series of a model by what upstream has called it, or by what the client has. In use until the result is
    /// dropped.
    pub(super) fn series(
        &self,
        served: Option<&str>,
        requested: Option<&str>,
        endpoint: Endpoint,
        stream: bool,
        tenants: &TenantValues,
    ) -> InUse {
        let wanted = |model| Wanted {
            model,
            endpoint,
            stream,
            tenants,
        };
        // A name that has living series is a label value, whoever says it.
        if let Some(name) = served.or(requested)
            && name != labels::OTHER
            && let Some(used) = self.series.recent(&self.metrics, wanted(name))
        {
            return used;
        }
        let models = &self.metrics.models;
        let label = match (served, requested) {
            (Some(name), _) if models.admit(name) => name,
            (None, Some(name)) if models.admit_listed(name) => name,
            _ => labels::OTHER,
        };
        self.series.get(&self.metrics, wanted(label))
    }

    /// The tenant labels of a request.
    pub(super) fn tenants(&self, headers: &HeaderMap) -> TenantValues {
        self.metrics.tenants.resolve(headers, |label| {
            self.metrics.overflow.with_label_values(&[label]).inc();
        })
    }

    /// Starts counting a prompt, off this thread.
    pub(super) fn estimate_prompt(
        &self,
        endpoint: Endpoint,
        body: Bytes,
    ) -> Option<Arc<PromptCell>> {
        let estimator = self.estimator.as_ref()?;
        let cell = Arc::new(PromptCell::default());
        if !estimator.prompt(endpoint, body, Arc::clone(&cell)) {
            self.fault(Fault::EstimateDropped);
            return None;
        }
        Some(cell)
    }

    /// Whether the request is to be counted beside its usage, so that later estimates are nearer.
    pub(super) fn wants_sample(&self, endpoint: Endpoint, facts: &RequestFacts) -> bool {
        let generates = matches!(
            endpoint,
            Endpoint::ChatCompletions
                | Endpoint::Completions
                | Endpoint::Responses
                | Endpoint::Messages
        );
        match (&self.estimator, &facts.model) {
            (Some(estimator), Some(model)) => generates && estimator.wants_sample(model),
            _ => false,
        }
    }

    /// Counts a finished request; its tokens a little later, if they must be estimated. `series` is what it was in flight
    /// on, which mostly is what it ends on.
    pub(super) fn record(
        &self,
        mut record: Record,
        (prompt, for_the_record): (Option<Arc<PromptCell>>, bool),
        mut ticket: Option<Ticket>,
        series: Option<InUse>,
    ) {
        let (served, requested) = (
            record.served_model.as_deref(),
            record.requested_model.as_deref(),
        );
        let (endpoint, stream, tenants) = (record.endpoint, record.stream, &record.tenants);
        let fits = |series: &InUse| {
            served.or(requested).is_some_and(|model| {
                let wanted = Wanted {
                    model,
                    endpoint,
                    stream,
                    tenants,
                };
                model != labels::OTHER && wanted.is(series.key())
            })
        };
        let series = series
            .filter(fits)
            .unwrap_or_else(|| self.series(served, requested, endpoint, stream, tenants));
        if &*series.key().model == labels::OTHER && self.is_legal(&record) {
            self.metrics.overflow.with_label_values(&["model"]).inc();
        }
        self.metrics.record(&record, &series);
        if record.output_tokens.is_some()
            && let Some(estimator) = &self.estimator
            && let Some(lesson) = Lesson::of(&mut record, prompt.clone())
        {
            estimator.learn(lesson);
        }
        if record.text.is_some()
            && record.output_tokens.is_none()
            && let Some(estimator) = &self.estimator
        {
            let prompt = prompt.filter(|_| for_the_record);
            let job = Job {
                record,
                prompt,
                ticket,
            };
            match estimator.finish(job) {
                Ok(()) => return,
                Err(job) => {
                    self.fault(Fault::EstimateDropped);
                    (record, ticket) = (job.record, job.ticket);
                }
            }
        }
        self.metrics.record_tokens(&record, &series);
        if let Some(ticket) = ticket {
            ticket.book(&record);
        }
    }

    /// Whether its model's name is one that upstream has said.
    fn is_legal(&self, record: &Record) -> bool {
        let listed = |name: &str| self.metrics.models.lists(name);
        record.served_model.is_some() || record.requested_model.as_deref().is_some_and(listed)
    }
}
