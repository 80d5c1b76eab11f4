//! Events and bodies that differ from an earlier one in nothing but what always differs.
//!
//! The first and the last events of a stream, and every body, are parsed once a request, and those of one engine are the
//! same but for an id, a time, a text and the usage. So each worker remembers what the last ones looked like, with a hole
//! for each of these, and what they came to. One that fits around the holes, with a value of the same kind in each, comes
//! to the same: a template, but from one request to the next. An id and a time say nothing, and the text and the numbers
//! are read from their holes.

mod holes;

use std::cell::RefCell;

use memchr::memmem;

use crate::record::FinishReason;

use super::progress::{Piece, Progress};
use super::quick::plain::Plain;
use super::template::Changing;
use holes::Holes;

/// Shapes that a worker remembers: a few for each of the models that it sees.
const KEPT: usize = 16;

/// A longer document is no rule.
const LONGEST: usize = 4096;

/// What may be learned before something fits: where all are different, nothing is gained by remembering them.
const PATIENCE: u8 = 32;

/// Documents without a fit after which one more may be learned.
const RENEWAL: u8 = 255;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Event,
    Body,
}

/// What a document comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    /// The one choice, if there is one.
    pub(crate) choice: Option<Told>,
    /// There is usage without details.
    pub(crate) usage: bool,
}

/// What is said of a choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) piece: Piece,
    pub(crate) finish: Option<FinishReason>,
}

#[derive(Debug)]
struct Shape {
    form: Form,
    holes: Holes,
    /// As the document has it: that is no hole.
    model: Box<str>,
    meaning: Meaning,
}

/// One worker's, those that fit most often first.
#[derive(Debug)]
struct Shapes {
    all: Vec<Shape>,
    patience: u8,
    misses: u8,
}

thread_local! {
    static SHAPES: RefCell<Shapes> = const {
        RefCell::new(Shapes { all: Vec::new(), patience: PATIENCE, misses: 0 })
    };
}

/// Reads a document that looks like an earlier one. Answers whether it does.
pub(crate) fn looks_known(form: Form, document: &[u8], progress: &mut Progress) -> bool {
    #[cfg(test)]
    if super::quick::tests::is_off() {
        return false;
    }
    SHAPES.with(|shapes| {
        let Ok(mut shapes) = shapes.try_borrow_mut() else {
            return false;
        };
        let mut all = shapes.all.iter();
        let fits = all.position(|shape| shape.form == form && shape.read(document, progress));
        shapes.count(fits)
    })
}

/// Remembers a document that was parsed: its one text, lent from it, if it has one, and what it came to.
pub(crate) fn learn(
    form: Form,
    document: &[u8],
    text: Option<&str>,
    model: &str,
    meaning: Meaning,
) {
    SHAPES.with(|shapes| {
        let Ok(mut shapes) = shapes.try_borrow_mut() else {
            return;
        };
        if shapes.patience == 0 || document.len() > LONGEST || model.is_empty() {
            return;
        }
        // Log probabilities are others each time. (A text that looks like them only goes unremembered.)
        if memmem::find(document, b"\"logprobs\":{").is_some() {
            return;
        }
        shapes.patience -= 1;
        let Some(holes) = Holes::find(document, text, meaning.usage) else {
            return;
        };
        shapes.all.truncate(KEPT - 1);
        // Not at the end, or two that take turns would only ever push each other out.
        let middle = shapes.all.len() / 2;
        shapes.all.insert(
            middle,
            Shape {
                form,
                holes,
                model: model.into(),
                meaning,
            },
        );
    });
}

// === impl Shapes ===

impl Shapes {
    fn count(&mut self, fits: Option<usize>) -> bool {
        match fits {
            Some(at) => {
                self.all.swap(at, at.saturating_sub(1));
                self.patience = PATIENCE.min(self.patience + 1);
            }
            None if self.misses == RENEWAL => {
                self.misses = 0;
                self.patience = self.patience.max(1);
            }
            None => self.misses += 1,
        }
        fits.is_some()
    }
}

// === impl Shape ===

impl Shape {
    /// Reads the document, if it fits.
    fn read(&self, document: &[u8], progress: &mut Progress) -> bool {
        let Some(found) = self.holes.fill(document) else {
            return false;
        };
        let Ok(text) = std::str::from_utf8(found.text) else {
            return false;
        };
        // What the escapes stand for matters only to who counts it.
        if found.escapes && progress.keeps_text() {
            return false;
        }
        let usage = self.meaning.usage.then_some(found.usage);
        progress.model(&self.model);
        if self.form == Form::Body
            && let Some(usage) = usage
        {
            progress.usage_in_all(usage);
        }
        if let Some(Told { piece, finish }) = self.meaning.choice {
            progress.choices |= self.form == Form::Event;
            if progress.piece(piece) {
                progress.keep(piece.index, text);
            }
            if let Some(reason) = finish {
                progress.finished(piece.index, reason);
            }
        }
        if self.form == Form::Event {
            match (self.meaning.choice, usage) {
                (Some(told), Some(usage)) => progress.counts_so_far(told.piece.index, usage),
                (None, Some(usage)) => progress.usage_in_all(usage),
                (_, None) => {}
            }
            self.lend(document, text, found.escapes, progress);
        }
        true
    }

    /// The stream's own template is quicker still.
    fn lend(&self, document: &[u8], text: &str, escapes: bool, progress: &mut Progress) {
        if let Some(Told {
            piece,
            finish: None,
        }) = self.meaning.choice
            && !text.is_empty()
            && !escapes
            && let Ok(document) = std::str::from_utf8(document)
        {
            let changing = if self.meaning.usage {
                Changing::Usage
            } else {
                Changing::Text
            };
            progress.template(document, text, piece, changing);
        }
    }
}
