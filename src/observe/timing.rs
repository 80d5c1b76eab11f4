//! When tokens came: first token, gaps by choice, stalls.
//!
//! The clock is read once a read, so frames that one read brings share a stamp. A gap that ends in a read of k
//! token-bearing frames counts as k gaps of a k-th; the first read of a choice has its k-1 gaps at zero, since its
//! frames did arrive together. So a choice has one gap less than it has frames, whatever the reads.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::response::Gap;

/// Choices told apart. Batched prompts times `n` can be more; those beyond share the last one's place.
const CHOICES: usize = 1024;

/// Stamps of one stream.
#[derive(Debug)]
pub(crate) struct Timing {
    now: Instant,
    first: Option<Instant>,
    first_answer: Option<Instant>,
    last: Option<Instant>,
    longest: Option<Duration>,
    /// The read under way has brought a token.
    fresh: bool,
    choices: SmallVec<[Choice; 1]>,
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    index: u32,
    /// Token-bearing frames in the read under way.
    pending: u32,
    last: Option<Instant>,
    /// Its tokens, by continuous usage.
    counted: u64,
    finished: bool,
    /// Its first text has passed.
    begun: bool,
}

// === impl Timing ===

impl Timing {
    /// `started` stands in for the clock until the first read.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            now: started,
            first: None,
            first_answer: None,
            last: None,
            longest: None,
            fresh: false,
            choices: SmallVec::new(),
        }
    }

    /// A read begins.
    pub(crate) fn open_read(&mut self, now: Instant) {
        self.now = now;
    }

    /// A token-bearing frame of a choice.
    pub(crate) fn token(&mut self, index: u32, answer: bool) {
        self.fresh = true;
        if self.first.is_none() {
            self.first = Some(self.now);
        }
        if answer && self.first_answer.is_none() {
            self.first_answer = Some(self.now);
        }
        if let Some(choice) = self.choice(index) {
            choice.pending = choice.pending.saturating_add(1);
        }
    }

    /// The read is over: reports the gaps that it closed.
    pub(crate) fn close_read(&mut self, gap: &mut dyn FnMut(Gap)) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        let now = self.now;
        let before = self.last.replace(now);
        let span = before.map(|last| now.saturating_duration_since(last));
        if span > self.longest {
            self.longest = span;
        }
        for choice in &mut self.choices {
            let count = std::mem::take(&mut choice.pending);
            if count == 0 {
                continue;
            }
            match choice.last.replace(now) {
                Some(last) => {
                    // Where there is one choice, it is always the one that came last.
                    let span = match span {
                        Some(span) if before == Some(last) => span,
                        _ => now.saturating_duration_since(last),
                    };
                    let length = if count == 1 { span } else { span / count };
                    gap(Gap { length, count });
                }
                None if count > 1 => gap(Gap {
                    length: Duration::ZERO,
                    count: count - 1,
                }),
                None => {}
            }
        }
    }

    /// Whether this is the first text of the choice. Answers yes once.
    pub(crate) fn first_text(&mut self, index: u32) -> bool {
        self.choice(index)
            .is_some_and(|choice| !std::mem::replace(&mut choice.begun, true))
    }

    /// The choice's tokens so far.
    pub(crate) fn count(&mut self, index: u32, tokens: u64) {
        if let Some(choice) = self.choice(index) {
            choice.counted = tokens;
        }
    }

    /// The tokens so far, over all choices.
    pub(crate) fn counted(&self) -> u64 {
        let counts = self.choices.iter().map(|choice| choice.counted);
        counts.fold(0, u64::saturating_add)
    }

    /// The choice has finished. Answers whether that is news.
    pub(crate) fn finish(&mut self, index: u32) -> bool {
        self.choice(index)
            .is_some_and(|choice| !std::mem::replace(&mut choice.finished, true))
    }

    /// Whether a token has been seen.
    pub(crate) fn begun(&self) -> bool {
        self.first.is_some()
    }

    /// When the last token came.
    pub(crate) fn last_token(&self) -> Option<Instant> {
        self.last
    }

    /// From `started` to the first token.
    pub(crate) fn ttft(&self, started: Instant) -> Option<Duration> {
        Some(self.first?.saturating_duration_since(started))
    }

    /// From `started` to the first token that is not reasoning.
    pub(crate) fn first_answer(&self, started: Instant) -> Option<Duration> {
        Some(self.first_answer?.saturating_duration_since(started))
    }

    /// The largest gap between two token-bearing reads.
    pub(crate) fn longest_stall(&self) -> Option<Duration> {
        self.longest
    }

    /// Time per output token. Choices run side by side, so each is taken to have its share of the tokens.
    ///
    /// None where all tokens came in one read: zero would be the measure of somebody's buffer.
    pub(crate) fn tpot(&self, tokens: u64) -> Option<Duration> {
        let span = self.last?.saturating_duration_since(self.first?);
        let choices = self.choices.iter().filter(|choice| choice.last.is_some());
        let choices = choices.count().max(1) as u64;
        let steps = tokens.saturating_sub(choices);
        if steps == 0 || span.is_zero() {
            return None;
        }
        Duration::try_from_secs_f64(span.as_secs_f64() * choices as f64 / steps as f64).ok()
    }

    fn choice(&mut self, index: u32) -> Option<&mut Choice> {
        // Choices come in order of their index nearly always.
        let at = match self.choices.get(index as usize) {
            Some(choice) if choice.index == index => index as usize,
            _ => match self.choices.iter().position(|choice| choice.index == index) {
                Some(at) => at,
                None if self.choices.len() < CHOICES => {
                    self.choices.push(Choice::new(index));
                    self.choices.len() - 1
                }
                None => CHOICES - 1,
            },
        };
        self.choices.get_mut(at)
    }
}

// === impl Choice ===

impl Choice {
    fn new(index: u32) -> Self {
        Self {
            index,
            pending: 0,
            last: None,
            counted: 0,
            finished: false,
            begun: false,
        }
    }
}
