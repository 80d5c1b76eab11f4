//! Token counts where upstream gave none: an estimate by tiktoken, off the forwarding path.
//!
//! One thread of its own does all the counting, behind a bounded queue: a text of a megabyte delays other estimates,
//! never a stream. tiktoken is not the model's tokenizer (only gpt-oss has one of its), so what comes out is labelled
//! an estimate, and exact counts are never overwritten by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use bytes::Bytes;

use crate::classify::Endpoint;
use crate::outcome::TokenSource;
use crate::record::Record;

mod count;
mod prompt;

use count::Encoding;

/// A record with its estimates filled in.
#[derive(Debug)]
pub struct Estimated {
    /// The record. Its text is gone.
    pub record: Record,
}

/// A finished request that lacks a count.
#[derive(Debug)]
pub struct Job {
    /// What the observer knows.
    pub record: Record,
    /// Where the estimate of its prompt goes, if one was asked for.
    pub prompt: Option<Arc<PromptCell>>,
}

/// The estimate of one prompt, once it is there.
#[derive(Debug)]
pub struct PromptCell(AtomicU64);

/// The handle on the estimator's thread. The thread ends with the last clone, when it has done what was queued.
#[derive(Clone, Debug)]
pub struct Estimator {
    queue: SyncSender<Work>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Work {
    Prompt {
        endpoint: Endpoint,
        body: Bytes,
        cell: Arc<PromptCell>,
    },
    Finish(Box<Job>),
}

// === impl PromptCell ===

impl PromptCell {
    const NONE: u64 = u64::MAX;

    /// The estimate; none until there is one.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| *count != Self::NONE)
    }

    fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }
}

impl Default for PromptCell {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }
}

// === impl Estimator ===

impl Estimator {
    /// Starts the thread. `queue` bounds what may wait for it; `sink` takes the records on that thread.
    ///
    /// The vocabularies (some 35 MB each) are loaded on that thread too, with the first text that needs them.
    ///
    /// # Errors
    ///
    /// The system refused a thread.
    pub fn start(queue: usize, sink: Box<dyn Fn(Estimated) + Send>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(queue.max(1));
        thread::Builder::new()
            .name("tokens".to_owned())
            .spawn(move || run(&receiver, &*sink))?;
        Ok(Self {
            queue: sender,
            dropped: Arc::default(),
        })
    }

    /// Has the prompt in a request body counted into `cell`. With the queue full the cell stays empty.
    pub fn prompt(&self, endpoint: Endpoint, body: Bytes, cell: Arc<PromptCell>) {
        let work = Work::Prompt {
            endpoint,
            body,
            cell,
        };
        if self.queue.try_send(work).is_err() {
            self.count_drop();
        }
    }

    /// Has the output of a finished request counted and the record handed to the sink.
    ///
    /// The queue is first in, first out: the prompt is counted by then.
    ///
    /// # Errors
    ///
    /// The queue is full, or the thread is gone: the job comes back, to be recorded without counts.
    pub fn finish(&self, job: Job) -> Result<(), Box<Job>> {
        match self.queue.try_send(Work::Finish(Box::new(job))) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => {
                self.count_drop();
                match work {
                    Work::Finish(job) => Err(job),
                    Work::Prompt { .. } => Ok(()),
                }
            }
        }
    }

    /// Estimates that the full queue turned away so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn count_drop(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

fn run(queue: &Receiver<Work>, sink: &dyn Fn(Estimated)) {
    for work in queue {
        match work {
            Work::Prompt {
                endpoint,
                body,
                cell,
            } => {
                if let Some(count) = prompt::count(endpoint, &body) {
                    cell.set(count);
                }
            }
            Work::Finish(job) => sink(estimate(*job)),
        }
    }
}

fn estimate(job: Job) -> Estimated {
    let Job { mut record, prompt } = job;
    let text = record.text.take();
    if record.output_tokens.is_none()
        && let Some(text) = text
    {
        let model = record
            .served_model
            .as_deref()
            .or(record.requested_model.as_deref());
        let count = Encoding::of_model(model.unwrap_or_default()).count(&text.output);
        record.output_tokens = count.map(|count| (count, TokenSource::Estimate));
    }
    if record.input_tokens.is_none() {
        let count = prompt.and_then(|cell| cell.get());
        record.input_tokens = count.map(|count| (count, TokenSource::Estimate));
    }
    Estimated { record }
}

#[cfg(test)]
mod tests;
