//! A failing upstream fails every request: one line a second is enough to know it.

use std::cell::Cell;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line through per second.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl LogLimit {
    /// `Some` with the number of lines swallowed since the last one, if a line may be written now.
    pub(crate) fn permit(&self) -> Option<u64> {
        let now = Instant::now();
        if self
            .last
            .get()
            .is_some_and(|last| now.saturating_duration_since(last) < INTERVAL)
        {
            self.suppressed.set(self.suppressed.get().saturating_add(1));
            return None;
        }
        self.last.set(Some(now));
        Some(self.suppressed.take())
    }
}
