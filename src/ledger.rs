//! What an engine says it has processed, against what passed the proxy: the books of one upstream.
//!
//! The engine's counters include requests that have not ended, of which the proxy does not know the count yet. So time
//! is cut into epochs, each closed by a reading of the counters. A request belongs to the epoch in which it was sent,
//! and its tokens are booked there, whenever it ends. Whatever the counters contained when an epoch was closed came
//! from requests of that epoch or earlier ones: once all those have ended, the counters of that time less their tokens
//! is what the engine did for others. It may be too low, since these requests went on after the reading; the next
//! balance makes up for that. It is never too high.
//!
//! Of some requests the count never becomes known: their client left, or the answer has none. Nothing is said until they
//! have ended, and then the books are opened anew.
//!
//! Requests touch it twice, with atomics. All else happens on the pollers' thread.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use crate::classify::Endpoint;
use crate::outcome::{ErrorType, Outcome, TokenSource};
use crate::record::Record;

#[cfg(test)]
mod tests;

/// Epochs that may be open. With a reading each 5 s a request may last 5 minutes until they get longer.
const EPOCHS: usize = 64;

/// Readings after the end of a request of unknown count until the books hold again. Two: an engine works on for a moment
/// after its client has left.
const SOON: u8 = 2;
/// Likewise, if it may work on in the background: 5 minutes, with a reading each 5 s.
const LATE: u8 = 60;

/// A number of tokens each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of prompts.
    pub input: u64,
    /// Generated.
    pub output: u64,
}

/// The books of one upstream.
#[derive(Debug)]
pub struct Ledger {
    /// The epoch that requests begin in, counted from 0.
    current: AtomicUsize,
    epochs: [Epoch; EPOCHS],
    /// Questions to the engine that must still come before its answers can be held against what passed.
    unknown: AtomicU8,
    /// How often the books were opened anew for that, if nobody has asked yet.
    reopened: AtomicU64,
    books: Mutex<Books>,
}

/// One epoch's requests.
#[derive(Debug, Default)]
struct Epoch {
    /// Requests that have not ended.
    open: AtomicI64,
    input: AtomicU64,
    output: AtomicU64,
}

/// What only readings change.
#[derive(Debug)]
struct Books {
    /// The last reading, as it was.
    last: Option<Tokens>,
    started: Option<f64>,
    /// The next reading has work in it of which nobody knows how much it is.
    reopen: bool,
    /// What the engine has done since the books were opened.
    engine: Tokens,
    /// `engine` when each epoch was closed.
    closed: [Tokens; EPOCHS],
    /// What had ended of each when the engine was last asked.
    asked: [Tokens; EPOCHS],
    /// The first epoch that is not balanced.
    next: usize,
    /// Tokens of the requests of all balanced epochs.
    passed: Tokens,
    /// Unaccounted since the books were opened.
    balance: Tokens,
}

/// A request's place in the books. Its epoch waits until this is dropped.
#[derive(Debug)]
pub struct Ticket {
    ledger: Arc<Ledger>,
    epoch: usize,
    prompts: u32,
    work: Work,
}

/// What an engine does for a request, beside what is in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing, if the record has counts.
    Recorded,
    /// Nothing at all: it was refused.
    Refused,
    /// More than the answer tells.
    More,
    /// Even after its answer.
    Later,
}

// === impl Ledger ===

impl Default for Ledger {
    fn default() -> Self {
        Self {
            current: AtomicUsize::new(0),
            epochs: std::array::from_fn(|_| Epoch::default()),
            unknown: AtomicU8::new(0),
            reopened: AtomicU64::new(0),
            books: Mutex::new(Books {
                last: None,
                started: None,
                reopen: false,
                engine: Tokens::default(),
                closed: [Tokens::default(); EPOCHS],
                asked: [Tokens::default(); EPOCHS],
                next: 0,
                passed: Tokens::default(),
                balance: Tokens::default(),
            }),
        }
    }
}

impl Ledger {
    /// A request is about to be sent.
    #[must_use]
    pub fn ticket(self: &Arc<Self>) -> Ticket {
        loop {
            let epoch = self.current.load(SeqCst);
            let open = &self.epoch(epoch).open;
            // In first, then a look at whether the epoch was closed meanwhile: a reading looks the other way round, so
            // one of the two sees the other.
            open.fetch_add(1, SeqCst);
            if self.current.load(SeqCst) == epoch {
                return Ticket {
                    ledger: Arc::clone(self),
                    epoch,
                    prompts: 1,
                    work: Work::Recorded,
                };
            }
            open.fetch_sub(1, SeqCst);
        }
    }

    /// The engine's counters say `totals`. Returns by how much more is known to be unaccounted than before.
    ///
    /// `started` tells one process from another: vLLM may restart and be ahead of where it was, and several may answer
    /// at one address in turn.
    pub fn read(&self, totals: Tokens, started: Option<f64>) -> Tokens {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let same = std::mem::replace(&mut books.started, started) == started;
        let reopen = std::mem::take(&mut books.reopen);
        if reopen {
            self.reopened.fetch_add(1, SeqCst);
        }
        match books.last.replace(totals) {
            Some(last)
                if same
                    && !reopen
                    && totals.input >= last.input
                    && totals.output >= last.output =>
            {
                books.engine += totals.less(last);
            }
            _ => self.open(&mut books),
        }
        self.close(&mut books);
        self.balance(&mut books)
    }

    /// How often the books were opened anew since this was last asked, for requests of which nobody knows the count.
    pub fn reopened(&self) -> u64 {
        self.reopened.swap(0, SeqCst)
    }

    /// Ends the current epoch, if there is a place for the next.
    fn close(&self, books: &mut Books) {
        let current = self.current.load(SeqCst);
        let full = current + 1 - books.next >= EPOCHS;
        let engine = books.engine;
        if let Some(closed) = books.closed.get_mut(current % EPOCHS)
            && !full
        {
            *closed = engine;
            self.current.store(current + 1, SeqCst);
        }
    }

    /// Balances the epochs whose requests have ended, up to the first that has one.
    fn balance(&self, books: &mut Books) -> Tokens {
        let before = books.balance;
        let current = self.current.load(SeqCst);
        while books.next < current {
            let number = books.next;
            let epoch = self.epoch(number);
            // In this order: who ends with an unknown count says so first.
            if epoch.open.load(SeqCst) != 0 || self.unknown.load(SeqCst) != 0 {
                break;
            }
            books.passed += epoch.take();
            if let Some(asked) = books.asked.get_mut(number % EPOCHS) {
                *asked = Tokens::default();
            }
            let closed = books.closed.get(number % EPOCHS).copied();
            let unaccounted = closed.unwrap_or_default().less(books.passed);
            books.balance = books.balance.max(unaccounted);
            books.next = number + 1;
        }
        books.balance.less(before)
    }

    /// The engine is about to be asked for its counters: what has ended by now is in the answer.
    pub fn asking(&self) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unknown.load(SeqCst) > 0 {
            self.unknown.fetch_sub(1, SeqCst);
            books.reopen = true;
        }
        let current = self.current.load(SeqCst);
        for number in books.next..=current {
            let ended = self.epoch(number).sum();
            if let Some(asked) = books.asked.get_mut(number % EPOCHS) {
                *asked = ended;
            }
        }
    }

    /// The first reading of this engine: what had ended when it was asked for stays out of the books. All others stay
    /// in, though a part of theirs is in this reading and so in no later difference: too much on this side is no false
    /// alarm.
    fn open(&self, books: &mut Books) {
        let current = self.current.load(SeqCst);
        for number in books.next..=current {
            let asked = books.asked.get_mut(number % EPOCHS).map(std::mem::take);
            self.epoch(number).take_out(asked.unwrap_or_default());
        }
        books.engine = Tokens::default();
        books.passed = Tokens::default();
        books.balance = Tokens::default();
        // Closed over other books.
        books.closed = [Tokens::default(); EPOCHS];
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "taken modulo the length, which is not 0"
    )]
    fn epoch(&self, number: usize) -> &Epoch {
        &self.epochs[number % EPOCHS]
    }
}

impl Epoch {
    fn sum(&self) -> Tokens {
        Tokens {
            input: self.input.load(SeqCst),
            output: self.output.load(SeqCst),
        }
    }

    fn take(&self) -> Tokens {
        Tokens {
            input: self.input.swap(0, SeqCst),
            output: self.output.swap(0, SeqCst),
        }
    }

    /// What it is known to contain.
    fn take_out(&self, tokens: Tokens) {
        self.input.fetch_sub(tokens.input, SeqCst);
        self.output.fetch_sub(tokens.output, SeqCst);
    }
}

// === impl Ticket ===

impl Ticket {
    /// vLLM runs a request for `n` choices as `n` requests, and counts the prompt of each, while usage has it once.
    pub fn choices(&mut self, n: u32) {
        self.prompts = n.max(1);
    }

    /// What will not be in the record.
    pub fn work(&mut self, work: Work) {
        self.work = work;
    }

    /// The request has ended, and its tokens are known as far as they ever will be.
    pub fn book(self, record: &Record) {
        match self.work {
            Work::Later => self.lose(LATE),
            Work::More => self.lose(SOON),
            Work::Recorded if !is_counted(record) => self.lose(SOON),
            Work::Recorded | Work::Refused => {}
        }
        self.add(Tokens {
            input: at_most(record.input_tokens).saturating_mul(u64::from(self.prompts)),
            output: at_most(record.output_tokens),
        });
    }

    /// The engine has done what nobody has counted, and will have for so many readings.
    fn lose(&self, readings: u8) {
        self.ledger.unknown.fetch_max(readings, SeqCst);
    }

    fn add(&self, tokens: Tokens) {
        let epoch = self.ledger.epoch(self.epoch);
        epoch.input.fetch_add(tokens.input, SeqCst);
        epoch.output.fetch_add(tokens.output, SeqCst);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.ledger.epoch(self.epoch).open.fetch_sub(1, SeqCst);
    }
}

/// Whether all is known of what the engine has done for it.
fn is_counted(record: &Record) -> bool {
    let generates = !matches!(
        record.endpoint,
        Endpoint::Embeddings
            | Endpoint::Rerank
            | Endpoint::Score
            | Endpoint::Pooling
            | Endpoint::Classify
    );
    let none = matches!(
        record.outcome,
        Outcome::Error(ErrorType::UpstreamConnect | ErrorType::ProxyRejected)
    );
    none || record.input_tokens.is_some() && (!generates || record.output_tokens.is_some())
}

/// An estimate may be too low, which is nobody's traffic.
fn at_most(tokens: Option<(u64, TokenSource)>) -> u64 {
    match tokens {
        Some((count, TokenSource::Estimate)) => count.saturating_add(count.div_ceil(4)),
        Some((count, _)) => count,
        None => 0,
    }
}

// === impl Tokens ===

impl Tokens {
    fn less(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_sub(other.input),
            output: self.output.saturating_sub(other.output),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
        }
    }
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
    }
}
