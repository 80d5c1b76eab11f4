//! The body of an answer that is no stream, kept within a cap.
//!
//! Of a body over the cap only the end is kept, since that is where `usage` stands, and the model's name is taken from
//! the beginning before that goes.

use serde::Deserialize;

use super::json::{Object, Text};
use super::progress::Progress;
use super::wire::{BilledUnits, Usage};

/// What is kept of a body over the cap.
const TAIL: usize = 16 * 1024;

/// The model's name stands before the data in all that vLLM answers.
const HEAD: usize = 4 * 1024;

/// What passed of a body.
#[derive(Debug, Default)]
pub(crate) struct Body {
    kept: Vec<u8>,
    limit: usize,
    /// Only the end is kept, or only the beginning.
    cut: bool,
    /// A body of which the beginning matters: an error.
    head_only: bool,
    seen: bool,
}

// === impl Body ===

impl Body {
    /// A body to be read whole, or by its end.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// A body whose beginning will do.
    pub(crate) fn head(limit: usize) -> Self {
        Self {
            head_only: true,
            ..Self::new(limit)
        }
    }

    /// A read passes.
    pub(crate) fn push(&mut self, bytes: &[u8], progress: &mut Progress) {
        self.seen |= !bytes.is_empty();
        if self.head_only {
            let room = self.limit.saturating_sub(self.kept.len());
            self.cut |= bytes.len() > room;
            let head = bytes.get(..room).unwrap_or(bytes);
            self.kept.extend_from_slice(head);
            return;
        }
        if !self.cut && self.kept.len().saturating_add(bytes.len()) <= self.limit {
            if self.kept.is_empty() {
                // Most bodies come in one read: no more than their own size for them.
                self.kept.reserve_exact(bytes.len());
            }
            self.kept.extend_from_slice(bytes);
            return;
        }
        if !self.cut {
            self.cut = true;
            let missing = HEAD.saturating_sub(self.kept.len());
            if missing > 0 {
                let more = bytes.get(..missing).unwrap_or(bytes);
                self.kept.extend_from_slice(more);
                name_model(&self.kept, progress);
                self.kept.truncate(self.kept.len() - more.len());
            } else {
                name_model(&self.kept, progress);
            }
            let from = self.kept.len().saturating_sub(TAIL);
            self.kept = self.kept.split_off(from);
            self.kept.shrink_to_fit();
        }
        self.push_tail(bytes);
    }

    /// Trims only once there is as much again, so that small reads do not move the tail each time.
    fn push_tail(&mut self, bytes: &[u8]) {
        let from = bytes.len().saturating_sub(TAIL);
        let tail = bytes.get(from..).unwrap_or_default();
        let over = (self.kept.len() + tail.len()).saturating_sub(TAIL);
        if over >= TAIL || tail.len() == TAIL {
            self.kept.drain(..over.min(self.kept.len()));
        }
        self.kept.extend_from_slice(tail);
    }

    /// The body, if it is whole.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        (!self.cut).then_some(&self.kept)
    }

    /// What was kept of it, whole or not.
    pub(crate) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Whether a byte of it has passed.
    pub(crate) fn seen(&self) -> bool {
        self.seen
    }
}

/// Finds `"usage": {…}` in the end of a body, the last that is an object; or else what Cohere's embeddings have.
///
/// Inside a JSON string the quotes would be escaped, so the key cannot be mistaken for generated text.
pub(crate) fn scan_usage(tail: &[u8], progress: &mut Progress) {
    for at in memchr::memmem::rfind_iter(tail, b"\"usage\"") {
        let rest = tail.get(at..).unwrap_or_default();
        if let Some(Object(Some(usage))) = value_of::<Object<Usage>>(rest) {
            return progress.usage(&usage);
        }
    }
    if let Some(at) = memchr::memmem::rfind(tail, b"\"billed_units\"")
        && let Some(Object(Some(units))) =
            value_of::<Object<BilledUnits>>(tail.get(at..).unwrap_or_default())
    {
        progress.usage(&units.usage());
    }
}

/// Finds `"model": "…"` in the beginning of a body.
pub(crate) fn name_model(head: &[u8], progress: &mut Progress) {
    let head = head.get(..HEAD).unwrap_or(head);
    if let Some(at) = memchr::memmem::find(head, b"\"model\"") {
        let rest = head.get(at..).unwrap_or_default();
        if let Some(name) = value_of::<Text<'_>>(rest) {
            progress.model(&name);
        }
    }
}

/// The value behind the key that `from` begins with.
fn value_of<'a, T: Deserialize<'a>>(from: &'a [u8]) -> Option<T> {
    let colon = memchr::memchr(b':', from)?;
    let value = from.get(colon + 1..)?;
    T::deserialize(&mut serde_json::Deserializer::from_slice(value)).ok()
}
