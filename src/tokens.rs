//! Token counts where upstream gave none: by the model's own tokenizer where it is at hand, else an estimate by
//! tiktoken; off the forwarding path.
//!
//! One thread of its own does all the counting, behind a bounded queue that it looks into by itself while there is
//! traffic: a text of a megabyte delays other counts, never a stream, and no worker has to wake it in the middle of a
//! request. tiktoken is not the model's tokenizer (only gpt-oss has one of its), so what comes out is labelled an
//! estimate, and exact counts are never overwritten by it. Where usage does pass by, the estimate is made all the same
//! for some requests, and what was learned from them corrects the later ones.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use crate::classify::Endpoint;
use crate::config;
use crate::ledger::Ticket;
use crate::outcome::{Outcome, TokenSource};
use crate::record::{EstimateText, FinishReason, Record};

mod bpe;
mod calibration;
mod clock;
mod conversation;
mod count;
mod counter;
mod cut;
mod exact;
mod prompt;
mod python;
mod queue;
mod template;
mod words;

pub use calibration::Direction;

use calibration::{Features, Sampler};
use counter::Counter;
use queue::{Receiver, Sender};

/// A record with its counts filled in.
#[derive(Debug)]
pub struct Estimated {
    /// The record. Its text is gone.
    pub record: Record,
    /// Its place in the books.
    pub ticket: Option<Ticket>,
}

/// Takes the results, on the estimator's thread. Any `Fn(Estimated)` is one, and lets the errors go.
pub trait Sink: Send {
    /// A record with its counts.
    fn record(&self, done: Estimated);

    /// A count was made beside usage, and was off by this share of it.
    fn error(&self, model: &str, direction: Direction, share: f64) {
        let _ = (model, direction, share);
    }
}

impl<F: Fn(Estimated) + Send> Sink for F {
    fn record(&self, done: Estimated) {
        self(done);
    }
}

/// A finished request that lacks a count.
#[derive(Debug)]
pub struct Job {
    /// What the observer knows.
    pub record: Record,
    /// Where the count of its prompt goes, if one was asked for.
    pub prompt: Option<Arc<PromptCell>>,
    /// Its place in the books, which are held open until it is counted.
    pub ticket: Option<Ticket>,
}

/// A finished request with usage, and what to compare it with.
#[derive(Debug)]
pub struct Lesson {
    model: Box<str>,
    prompt: Option<(Arc<PromptCell>, u64)>,
    output: Option<(Output, u64)>,
}

/// Generated text, and the tokens that ended it.
#[derive(Debug)]
struct Output {
    text: EstimateText,
    ends: u64,
}

/// The count of one prompt, once it is there.
#[derive(Debug, Default)]
pub struct PromptCell(OnceLock<PromptCount>);

/// What is known of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PromptCount {
    /// By the model's own tokenizer.
    Exact(u64),
    Estimate {
        text: Features,
        /// There is more in it than text.
        media: bool,
    },
}

/// Bytes of prompts that may wait.
const MAX_WAITING: usize = 64 << 20;

/// Bytes of prompts that an idle thread is left in peace with: they can wait until their requests end, but the clients'
/// buffers should not lie about.
const HELD: usize = 1 << 20;

/// The handle on the estimator's thread. The thread ends with the last clone, when it has done what was queued.
#[derive(Clone, Debug)]
pub struct Estimator {
    queue: Arc<Sender<Work>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dropped: AtomicU64,
    waiting: AtomicUsize,
    /// Of prompts, which may be megabytes each, and keep the clients' buffers alive.
    bytes: AtomicUsize,
    /// With more than this waiting there is no time to learn.
    busy: usize,
    sampler: Sampler,
    started: Instant,
}

#[derive(Debug)]
enum Work {
    Prompt {
        endpoint: Endpoint,
        body: Bytes,
        cell: Arc<PromptCell>,
    },
    Finish(Box<Job>),
    Learn(Box<Lesson>),
}

/// Whether a model's files can be used; else why not, in one line.
pub(crate) fn check(model: &config::TokenModel) -> Result<(), String> {
    exact::Exact::load(model).map(drop)
}

// === impl Lesson ===

impl Lesson {
    /// What there is to learn from a request that has come to its end with usage. Takes its text.
    #[must_use]
    pub fn of(record: &mut Record, prompt: Option<Arc<PromptCell>>) -> Option<Self> {
        let text = record.text.take();
        if record.outcome != Outcome::Success {
            return None;
        }
        let name = record.served_model.as_ref();
        let model = name.or(record.requested_model.as_ref())?.clone();
        let usage = |count: Option<(u64, TokenSource)>| match count {
            Some((count, TokenSource::Usage)) => Some(count),
            _ => None,
        };
        let output = text.map(|text| Output {
            text,
            ends: ends(record),
        });
        let lesson = Self {
            model,
            prompt: prompt.zip(usage(record.input_tokens)),
            output: output.zip(usage(record.output_tokens)),
        };
        (lesson.prompt.is_some() || lesson.output.is_some()).then_some(lesson)
    }
}

/// The token that ends a text is counted by vLLM and shown to nobody.
fn ends(record: &Record) -> u64 {
    let ended = |reason: &&FinishReason| match reason {
        FinishReason::Stop | FinishReason::ToolCalls => true,
        FinishReason::Length
        | FinishReason::Abort
        | FinishReason::Repetition
        | FinishReason::ContentFilter
        | FinishReason::Other => false,
    };
    record.finish_reasons.iter().filter(ended).count() as u64
}

// === impl PromptCell ===

impl PromptCell {
    /// The count, uncorrected; none until there is one.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        self.0.get().map(|read| read.plain())
    }
}

// === impl PromptCount ===

impl PromptCount {
    fn plain(self) -> u64 {
        match self {
            Self::Exact(count) => count,
            Self::Estimate { text, .. } => text.count(),
        }
    }
}

// === impl Estimator ===

impl Estimator {
    /// Starts the thread; `sink` takes the results on it.
    ///
    /// The models' tokenizers are loaded on that thread, and tiktoken's vocabularies (2 MB for `cl100k`, 4 for `o200k`)
    /// with the first text that needs them.
    ///
    /// # Errors
    ///
    /// The system refused a thread.
    pub fn start(config: &config::Tokens, sink: impl Sink + 'static) -> std::io::Result<Self> {
        let queue = config.queue.max(1);
        let shared = Arc::new(Shared {
            dropped: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            busy: queue.div_ceil(4),
            sampler: Sampler::default(),
            started: Instant::now(),
        });
        let (models, of_thread) = (config.models.clone(), Arc::clone(&shared));
        let sender = queue::start("tokens", queue, move |receiver| {
            run(receiver, &of_thread, Counter::new(&models, Box::new(sink)));
        })?;
        Ok(Self {
            queue: Arc::new(sender),
            shared,
        })
    }

    /// Has the prompt in a request body counted into `cell`. False if there is no room, in number or in bytes: the cell
    /// stays empty then.
    #[must_use]
    pub fn prompt(&self, endpoint: Endpoint, body: Bytes, cell: Arc<PromptCell>) -> bool {
        let bytes = body.len();
        let waiting = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        let work = Work::Prompt {
            endpoint,
            body,
            cell,
        };
        let all = waiting.saturating_add(bytes);
        // Nobody asks for it before the request's end, which wakes the thread.
        let now = waiting < HELD && all >= HELD;
        if all <= MAX_WAITING && self.send(work, now).is_ok() {
            return true;
        }
        self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.count_drop();
        false
    }

    /// Has the output of a finished request counted and the record handed to the sink.
    ///
    /// The queue is first in, first out: the prompt is counted by then.
    ///
    /// # Errors
    ///
    /// The queue is full, or the thread is gone: the job comes back, to be recorded without counts.
    pub fn finish(&self, job: Job) -> Result<(), Box<Job>> {
        match self.send(Work::Finish(Box::new(job)), true) {
            Err(Work::Finish(job)) => {
                self.count_drop();
                Err(job)
            }
            Ok(()) | Err(Work::Prompt { .. } | Work::Learn(_)) => Ok(()),
        }
    }

    /// Whether to count this model's next request beside its usage: the first ones, then one a second, and none while
    /// others wait. To be asked once for each request, before it ends: a yes is counted.
    #[must_use]
    pub fn wants_sample(&self, model: &str) -> bool {
        let shared = &self.shared;
        let now = shared.started.elapsed().as_millis();
        shared.waiting.load(Ordering::Relaxed) <= shared.busy
            && shared
                .sampler
                .wants(model, u64::try_from(now).unwrap_or(u64::MAX))
    }

    /// Has a request that was sampled counted and compared. Busy, the lesson is skipped: the next is as good.
    pub fn learn(&self, lesson: Lesson) {
        if self.shared.waiting.load(Ordering::Relaxed) <= self.shared.busy {
            let _ = self.send(Work::Learn(Box::new(lesson)), true);
        }
    }

    /// Counts that the full queue turned away so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// `wakes` the thread if it is idle; if not, it looks by itself soon enough.
    fn send(&self, work: Work, wakes: bool) -> Result<(), Work> {
        // Before it is there to be taken, so that the number never goes below zero.
        let before = self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(refused) = self.queue.send(work) {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(refused);
        }
        if before == self.shared.busy {
            self.queue.hurry();
        } else if wakes {
            self.queue.wake();
        }
        Ok(())
    }

    fn count_drop(&self) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

fn run(queue: Receiver<Work>, shared: &Shared, mut counter: Counter) {
    for work in queue {
        shared.waiting.fetch_sub(1, Ordering::Relaxed);
        match work {
            Work::Prompt {
                endpoint,
                body,
                cell,
            } => {
                shared.bytes.fetch_sub(body.len(), Ordering::Relaxed);
                if let Some(count) = counter.prompt(endpoint, &body) {
                    // A cell is counted once.
                    let _ = cell.0.set(count);
                }
            }
            Work::Finish(job) => counter.finish(*job),
            Work::Learn(lesson) => counter.learn(*lesson),
        }
    }
}

#[cfg(test)]
mod tests;
