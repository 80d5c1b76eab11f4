//! Idle connections of one worker to one upstream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::stream::Stream;

/// Oldest first. Requests take the youngest, whose end is farthest away.
#[derive(Debug)]
pub(super) struct Pool {
    idle: VecDeque<(Stream, Instant)>,
    max: usize,
    timeout: Duration,
}

impl Pool {
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        Self {
            idle: VecDeque::new(),
            max,
            timeout,
        }
    }

    /// A connection that is young enough and still open.
    pub(super) fn take(&mut self, now: Instant) -> Option<Stream> {
        while let Some((mut stream, since)) = self.idle.pop_back() {
            let idle = now.saturating_duration_since(since);
            if idle >= self.timeout {
                // All others are older.
                self.idle.clear();
                return None;
            }
            if stream.is_quiet(idle) {
                stream.mark_reused();
                return Some(stream);
            }
        }
        None
    }

    pub(super) fn put(&mut self, stream: Stream, now: Instant) {
        if self.max == 0 {
            return;
        }
        if self.idle.len() == self.max {
            self.idle.pop_front();
        }
        self.idle.push_back((stream, now));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.idle.clear();
    }

    pub(super) fn reap(&mut self, now: Instant) {
        while let Some((_, since)) = self.idle.front() {
            if now.saturating_duration_since(*since) < self.timeout {
                return;
            }
            self.idle.pop_front();
        }
        if self.idle.is_empty() {
            self.idle.shrink_to_fit();
        }
    }
}
