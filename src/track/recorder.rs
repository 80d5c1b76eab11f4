//! Where one worker's tracks end: its cache of resolved series, the estimator, the shared metrics.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::activity::Slot;
use crate::classify::Endpoint;
use crate::config::Config;
use crate::ledger::Ticket;
use crate::metrics::{Fault, InUse, Key, Metrics, Series, labels};
use crate::observe::{Limits, RequestFacts};
use crate::record::Record;
use crate::tenants::TenantValues;
use crate::tokens::{Estimator, Job, Lesson, PromptCell};

/// One per worker.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    estimator: Option<Estimator>,
    /// What this worker's traffic says of each upstream.
    slots: Vec<Arc<Slot>>,
    series: RefCell<HashMap<Key, Rc<Series>>>,
    /// The sweep that the cache was last cleared after.
    epoch: Cell<u64>,
    limits: Limits,
    max_request_body: usize,
    /// Faults are counted always and logged once of each kind, or one odd client fills the disk.
    logged: Cell<u8>,
}

impl Recorder {
    /// A recorder on shared metrics. Workers are numbered from 0.
    #[must_use]
    pub fn new(
        worker: usize,
        config: &Config,
        metrics: Arc<Metrics>,
        estimator: Option<Estimator>,
    ) -> Rc<Self> {
        Rc::new(Self {
            slots: metrics.polled.activity.of_worker(worker),
            metrics,
            estimator,
            series: RefCell::default(),
            epoch: Cell::new(0),
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

    /// Where progress of an upstream shows.
    pub(super) fn slot(&self, upstream: usize) -> Option<&Arc<Slot>> {
        self.slots.get(upstream)
    }

    /// A request is about to be sent.
    pub(super) fn ticket(&self, upstream: usize) -> Option<Ticket> {
        self.metrics
            .polled
            .ledger(upstream)
            .map(|ledger| ledger.ticket())
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

    /// The label for a model by what upstream has called it, or by what the client has.
    pub(super) fn label<'a>(&self, served: Option<&'a str>, requested: Option<&'a str>) -> &'a str {
        match (served, requested) {
            (Some(name), _) if self.metrics.models.admit(name) => name,
            (None, Some(name)) if self.metrics.models.admit_listed(name) => name,
            _ => labels::OTHER,
        }
    }

    /// The resolved series, in use until the result is dropped.
    pub(super) fn series(&self, key: Key) -> InUse {
        let epoch = self.metrics.epoch();
        if self.epoch.replace(epoch) != epoch {
            self.series
                .borrow_mut()
                .retain(|_, series| !series.is_dead());
        }
        let mut known = self.series.borrow_mut();
        if let Some(series) = known.get(&key)
            && let Some(used) = self.metrics.enter(series)
        {
            return used;
        }
        loop {
            // Dead, or new to this worker. A sweep that is under way may take it once more.
            let series = Rc::new(Series::new(&self.metrics, &key));
            if let Some(used) = self.metrics.enter(&series) {
                known.insert(key, series);
                return used;
            }
        }
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

    /// Counts a finished request; its tokens a little later, if they must be estimated.
    pub(super) fn record(
        &self,
        mut record: Record,
        (prompt, for_the_record): (Option<Arc<PromptCell>>, bool),
        mut ticket: Option<Ticket>,
    ) {
        let key = Key::of(&record, self.metrics.model_label(&record));
        if &*key.model == labels::OTHER && self.is_legal(&record) {
            self.metrics.overflow.with_label_values(&["model"]).inc();
        }
        let series = self.series(key);
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
        self.metrics.record_tokens(&record, series.key());
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
