//! The response body, rid of what the edit of the request has brought.

use std::ops::Range;

use bytes::Bytes;

use super::Added;
use super::chunk::{self, Chunk};
use super::events::{self, Ends};
use super::json::Kind;

/// The longest event that is put together from several reads.
pub(super) const EVENT_LIMIT: usize = 1 << 20;

/// Fed with the pieces of a response body, gives back those of the body that the client would have got.
///
/// What passes is lent from the piece it came in. Held back are an event that the end of a piece cuts, of which nobody
/// could have made anything, and the chunk with the `finish_reason` until the next event, which vLLM writes in the same
/// breath and which may hold the `system_fingerprint` that belongs to it.
#[derive(Debug)]
pub struct Strip {
    added: Added,
    ends: Ends,
    /// The event that the last piece broke off in.
    part: Vec<u8>,
    held: Option<Held>,
    /// A `finish_reason` has passed.
    finished: bool,
    /// Nothing is to be done any more.
    through: bool,
    gave_up: bool,
    unasked: bool,
}

/// The chunk with the `finish_reason`.
#[derive(Debug)]
struct Held {
    event: Bytes,
    /// What the fingerprint takes the place of: `usage`, or nothing.
    place: Range<usize>,
}

/// What becomes of an event.
enum Verdict {
    Pass,
    Drop,
    /// Passes without these bytes.
    Cut(Range<usize>),
    Hold(Range<usize>),
}

// === impl Strip ===

impl Strip {
    /// For the answer to a request to which this was added.
    #[must_use]
    pub fn new(added: Added) -> Self {
        Self {
            added,
            ends: Ends::default(),
            part: Vec::new(),
            held: None,
            finished: false,
            through: added == Added::default(),
            gave_up: false,
            unasked: false,
        }
    }

    /// An event was longer than what is held: everything from it on passed as it came.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// vLLM sent counts with every chunk without having been asked for them (`--enable-force-include-usage`): they
    /// would have been there anyway, and passed. Editing requests for such a server gains nothing.
    #[must_use]
    pub fn saw_unasked_usage(&self) -> bool {
        self.unasked
    }

    /// Takes the next piece. What can go on is appended to `out`.
    pub fn push(&mut self, piece: &Bytes, out: &mut Vec<Bytes>) {
        if self.through || self.is_plain(piece) {
            return forward(piece.clone(), out);
        }
        // `piece[run..at]` are events that pass and wait to be sent in one.
        let (mut run, mut at) = (0, 0);
        while let Some(end) = self.ends.next(piece, at) {
            let begun = !self.part.is_empty();
            let event = if begun {
                let mut event = std::mem::take(&mut self.part);
                event.extend_from_slice(piece.get(..end).unwrap_or_default());
                Bytes::from(event)
            } else {
                piece.slice(at..end)
            };
            let verdict = self.judge(&event, out);
            if begun || !matches!(verdict, Verdict::Pass) {
                forward(piece.slice(run..at), out);
                self.carry_out(verdict, event, out);
                run = end;
            }
            at = end;
            if self.through {
                return forward(piece.slice(run..), out);
            }
        }
        forward(piece.slice(run..at), out);
        self.keep(&piece.slice(at..), out);
    }

    /// The body is over, complete or not. What was held back goes on, as far as it is the client's.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        let mut part = std::mem::take(&mut self.part);
        let begun = chunk::read_part(&part);
        let is_usage = begun.has_no_choices() && (begun.is_usage_only() || !begun.is_whole());
        // What broke off behind the finish before it told what it is was going to be the usage. A whole event is an error
        // or another choice's chunk, and the client's.
        let cannot_tell = !begun.is_whole() && !begun.has_choices() && chunk::has_begun(&part);
        let is_ours = self.added.usage && (is_usage || (self.finished && cannot_tell));
        if is_ours {
            let fingerprint = begun
                .fingerprint
                .as_ref()
                .and_then(|member| member.text(&part));
            self.release(fingerprint, out);
        } else {
            self.release(None, out);
            if self.added.continuous && begun.has_choices() {
                shorten(&mut part, &begun);
            }
            forward(Bytes::from(part), out);
        }
        self.through = true;
    }

    /// Whether a piece is whole events that all pass. The way of nearly every piece.
    fn is_plain(&self, piece: &[u8]) -> bool {
        self.part.is_empty()
            && self.held.is_none()
            && self.ends.is_fresh()
            && events::ends_whole(piece)
            && !self.is_suspect(piece)
    }

    fn is_suspect(&self, events: &[u8]) -> bool {
        chunk::may_have_usage(events) || (self.added.usage && chunk::may_be_finished(events))
    }

    fn judge(&mut self, event: &[u8], out: &mut Vec<Bytes>) -> Verdict {
        let chunk = if self.is_suspect(event) {
            chunk::read(event)
        } else {
            None
        };
        let Some(chunk) = chunk else {
            self.release(None, out);
            return Verdict::Pass;
        };
        if chunk.is_usage_only() {
            self.through = true;
            if !self.added.usage {
                return Verdict::Pass;
            }
            let fingerprint = chunk
                .fingerprint
                .as_ref()
                .and_then(|member| member.text(event));
            self.release(fingerprint, out);
            return Verdict::Drop;
        }
        self.release(None, out);
        if !chunk.has_choices() {
            return Verdict::Pass;
        }
        self.finished |= chunk.finished;
        let cut = match chunk.usage.as_ref().map(|usage| usage.kind) {
            Some(Kind::Object) if self.added.continuous => chunk.usage_cut(),
            Some(Kind::Object) if self.added.usage => {
                self.unasked = true;
                self.through = true;
                return Verdict::Pass;
            }
            // As the OpenAI API documents it, and old versions of vLLM did.
            Some(Kind::Null) if self.added.usage => chunk.usage_cut(),
            _ => None,
        };
        let waits = self.added.usage && chunk.finished && chunk.fingerprint.is_none();
        match (waits, cut, &chunk.choices) {
            (true, Some(place), _) => Verdict::Hold(place),
            (true, None, Some(choices)) => Verdict::Hold(choices.at.end..choices.at.end),
            (_, Some(cut), _) => Verdict::Cut(cut),
            (_, None, _) => Verdict::Pass,
        }
    }

    fn carry_out(&mut self, verdict: Verdict, event: Bytes, out: &mut Vec<Bytes>) {
        match verdict {
            Verdict::Pass => forward(event, out),
            Verdict::Drop => {}
            Verdict::Cut(cut) => splice(&event, cut, &[], out),
            Verdict::Hold(place) => self.held = Some(Held { event, place }),
        }
    }

    /// The chunk with the `finish_reason` goes on.
    fn release(&mut self, fingerprint: Option<&[u8]>, out: &mut Vec<Bytes>) {
        if let Some(Held { event, place }) = self.held.take() {
            splice(&event, place, fingerprint.unwrap_or_default(), out);
        }
    }

    /// Keeps what the end of a piece leaves of an event.
    fn keep(&mut self, rest: &Bytes, out: &mut Vec<Bytes>) {
        let len = self.part.len().saturating_add(rest.len());
        let lone_cr = events::has_lone_cr(&self.part, rest);
        if len <= EVENT_LIMIT && !lone_cr {
            return self.part.extend_from_slice(rest);
        }
        self.gave_up = true;
        self.through = true;
        self.release(None, out);
        forward(Bytes::from(std::mem::take(&mut self.part)), out);
        forward(rest.clone(), out);
    }
}

/// The event that a stream broke off in, made a beginning of the one that the client would have got.
fn shorten(part: &mut Vec<u8>, begun: &Chunk) {
    if let Some(cut) = begun.usage_cut().filter(|_| begun.is_whole()) {
        part.drain(cut);
    } else if let Some(choices) = &begun.choices
        && !begun.is_whole()
    {
        part.truncate(choices.at.end);
    }
}

fn splice(event: &Bytes, place: Range<usize>, new: &[u8], out: &mut Vec<Bytes>) {
    if place.is_empty() && new.is_empty() {
        return forward(event.clone(), out);
    }
    forward(event.slice(..place.start), out);
    forward(Bytes::copy_from_slice(new), out);
    forward(event.slice(place.end..), out);
}

fn forward(bytes: Bytes, out: &mut Vec<Bytes>) {
    if !bytes.is_empty() {
        out.push(bytes);
    }
}
