//! The ground truth: what the simulator really did, to hold against what the proxy says it saw.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Fault;

/// The log. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Mutex<Vec<Entry>>,
    pushed: Notify,
    ids: AtomicU64,
}

/// One request on a model endpoint.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The client's `x-request-id`, else a number.
    pub id: String,
    /// The path.
    pub endpoint: String,
    /// The model asked for.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Choices asked for.
    pub n: u32,
    /// Status sent, 0 if none.
    pub status: u16,
    /// When the request's head was complete.
    pub received: Instant,
    /// Right before the head's write.
    pub head_sent: Option<Instant>,
    /// Right before the write of the first token frame (of the body, if it is no stream).
    pub first_token_sent: Option<Instant>,
    /// Right before the write of the last token frame so far.
    pub last_token_sent: Option<Instant>,
    /// Frames sent that bear tokens.
    pub token_frames: u32,
    /// SSE events sent whole, the role, usage, error and `[DONE]` ones included, comments not.
    pub frames: u32,
    /// Prompt tokens.
    pub prompt_tokens: u32,
    /// Output tokens sent so far, of all choices.
    pub output_tokens: u32,
    /// Those of them that were reasoning.
    pub reasoning_tokens: u32,
    /// Whether the client was sent a final usage.
    pub usage_sent: bool,
    /// Finish reasons sent.
    pub finish_reasons: Vec<String>,
    /// How it ended.
    pub end: TruthEnd,
    /// When the client was seen to have left before the end.
    pub client_gone_at: Option<Instant>,
    /// The fault that was played.
    pub fault: Option<Fault>,
}

/// How a request ended, from where the simulator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TruthEnd {
    /// Everything was sent.
    Complete,
    /// An error event and `[DONE]`.
    ErrorFrame,
    /// We stopped before the end, without a reset.
    Cut,
    /// We reset the connection.
    Reset,
    /// We were silent until the client left.
    Stalled,
    /// The client left while we were willing.
    ClientGone,
    /// Answered with 4xx or 5xx.
    HttpError,
}

/// An entry being filled; it is logged when this is dropped, so none can be forgotten.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) entry: Entry,
    truth: Truth,
}

// === impl Truth ===

impl Truth {
    /// All entries so far, in the order of their ends.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// The entry with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Entry> {
        self.lock().iter().find(|entry| entry.id == id).cloned()
    }

    /// How many requests have ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all entries.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Waits until `n` requests have ended; false if `timeout` comes first.
    pub async fn wait_for(&self, n: usize, timeout: Duration) -> bool {
        let reached = async {
            loop {
                let pushed = self.inner.pushed.notified();
                tokio::pin!(pushed);
                // Registered before the look, so that a push in between is not lost.
                pushed.as_mut().enable();
                if self.len() >= n {
                    return;
                }
                pushed.await;
            }
        };
        tokio::time::timeout(timeout, reached).await.is_ok()
    }

    pub(crate) fn open(&self, id: Option<&str>, endpoint: &str, received: Instant) -> Open {
        let number = self.inner.ids.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            id: id.map_or_else(|| number.to_string(), str::to_owned),
            endpoint: endpoint.to_owned(),
            model: String::new(),
            stream: false,
            n: 1,
            status: 0,
            received,
            head_sent: None,
            first_token_sent: None,
            last_token_sent: None,
            token_frames: 0,
            frames: 0,
            prompt_tokens: 0,
            output_tokens: 0,
            reasoning_tokens: 0,
            usage_sent: false,
            finish_reasons: Vec::new(),
            end: TruthEnd::Cut,
            client_gone_at: None,
            fault: None,
        };
        Open {
            entry,
            truth: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.inner
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    /// From the request's head to the first token.
    #[must_use]
    pub fn ttft(&self) -> Option<Duration> {
        Some(self.first_token_sent?.duration_since(self.received))
    }

    pub(crate) fn client_gone(&mut self) {
        self.client_gone_at = Some(Instant::now());
        self.end = TruthEnd::ClientGone;
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        self.truth.lock().push(self.entry.clone());
        self.truth.inner.pushed.notify_waiters();
    }
}
