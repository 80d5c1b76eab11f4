//! A document with holes in it, and what is found in them.

use smallvec::SmallVec;

use super::Plain;
use crate::observe::quick::plain::run;

/// Digits of which any number fits 64 bits.
const DIGITS: usize = 18;

/// The document that was learned from, without what may differ.
#[derive(Debug)]
pub(super) struct Holes {
    parts: Box<[(Box<[u8]>, Hole)]>,
    /// What is behind the last hole.
    end: Box<[u8]>,
}

/// What may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    /// A string that says nothing, without escapes.
    Name,
    /// A whole number that says nothing.
    Number,
    /// The text: some, or it would mean something else.
    Text,
    /// Tokens of the prompt.
    Prompt,
    /// Generated tokens.
    Completion,
}

/// What is in them.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    pub(super) text: &'a [u8],
    /// The text has escapes in it, and is still escaped.
    pub(super) escapes: bool,
    /// Tokens of the prompt, and generated ones.
    pub(super) usage: (u64, u64),
}

type Places = SmallVec<[(std::ops::Range<usize>, Hole); 8]>;

// === impl Holes ===

impl Holes {
    /// Finds them in a document that has been parsed, and is an object. `None` if there is not one for all that is read.
    pub(super) fn find(document: &[u8], text: Option<&str>, usage: bool) -> Option<Self> {
        let mut places = Places::new();
        if let Some(text) = text {
            let base = document.as_ptr().addr();
            let start = text.as_ptr().addr().checked_sub(base)?;
            let place = start..start.checked_add(text.len())?;
            let quoted = document.get(start.checked_sub(1)?..place.end.checked_add(1)?)?;
            let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            if inner != text.as_bytes() || text.is_empty() {
                return None;
            }
            places.push((place, Hole::Text));
        }
        let mut rest = Plain::new(document);
        entries(&mut rest, |key, rest| match (key, rest.peek()?) {
            (b"id", b'"') => name(document, rest, &mut places),
            (b"created", b'0'..=b'9') => number(document, rest, Hole::Number, &mut places),
            (b"usage", b'{') if usage => entries(rest, |key, rest| match key {
                b"prompt_tokens" => number(document, rest, Hole::Prompt, &mut places),
                b"completion_tokens" => number(document, rest, Hole::Completion, &mut places),
                b"total_tokens" => number(document, rest, Hole::Number, &mut places),
                _ => rest.skip(),
            }),
            _ => rest.skip(),
        })?;
        let has = |hole| places.iter().filter(|place| place.1 == hole).count() == 1;
        if usage && !(has(Hole::Prompt) && has(Hole::Completion)) {
            return None;
        }
        places.sort_unstable_by_key(|place| place.0.start);
        let mut parts = Vec::with_capacity(places.len());
        let mut at = 0;
        for (place, hole) in places {
            parts.push((document.get(at..place.start)?.into(), hole));
            at = place.end;
        }
        Some(Self {
            parts: parts.into(),
            end: document.get(at..)?.into(),
        })
    }

    /// What is in a document that is the same but for them.
    pub(super) fn fill<'a>(&self, document: &'a [u8]) -> Option<Found<'a>> {
        // The end tells most apart.
        let mut rest = document.strip_suffix(&*self.end)?;
        let mut found = Found::default();
        for (before, hole) in &self.parts {
            rest = rest.strip_prefix(&**before)?;
            match hole {
                Hole::Name => rest = rest.get(run(rest, &mut 0)..)?,
                Hole::Number => rest = digits(rest)?.0,
                Hole::Prompt => (rest, found.usage.0) = digits(rest)?,
                Hole::Completion => (rest, found.usage.1) = digits(rest)?,
                Hole::Text => {
                    let length = text_length(rest, &mut found.escapes)?;
                    (found.text, rest) = rest.split_at_checked(length)?;
                }
            }
        }
        rest.is_empty().then_some(found)
    }
}

/// How long the text is that is next. What does not stop at a quote does not fit what comes behind it.
fn text_length(rest: &[u8], escapes: &mut bool) -> Option<usize> {
    let mut length = run(rest, &mut 0);
    while rest.get(length) == Some(&b'\\') {
        *escapes = true;
        // Not those of four digits, which may come in pairs, or should.
        match rest.get(length + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => length += 2,
            _ => return None,
        }
        length += run(rest.get(length..)?, &mut 0);
    }
    (length > 0).then_some(length)
}

/// The entries of an object, each key for what takes its value.
fn entries<'a>(
    rest: &mut Plain<'a>,
    mut each: impl FnMut(&[u8], &mut Plain<'a>) -> Option<()>,
) -> Option<()> {
    if !rest.take(b'{') {
        return None;
    }
    let mut first = true;
    while !rest.take(b'}') {
        if !std::mem::take(&mut first) && !rest.take(b',') || rest.peek()? != b'"' {
            return None;
        }
        let key = rest.string()?;
        if key.escapes || !rest.take(b':') {
            return None;
        }
        each(key.inner, rest)?;
    }
    Some(())
}

fn name(document: &[u8], rest: &mut Plain<'_>, places: &mut Places) -> Option<()> {
    let start = document.len() - rest.left() + 1;
    let name = rest.string()?;
    if !name.escapes {
        places.push((start..start + name.inner.len(), Hole::Name));
    }
    Some(())
}

fn number(document: &[u8], rest: &mut Plain<'_>, hole: Hole, places: &mut Places) -> Option<()> {
    rest.peek()?;
    let start = document.len() - rest.left();
    let number = rest.number()?;
    number.whole?;
    places.push((start..start + number.text.len(), hole));
    Some(())
}

/// A whole number as it may stand in JSON, and what is behind it.
fn digits(text: &[u8]) -> Option<(&[u8], u64)> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(length)?;
    let zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if zero || digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let add = |value: u64, digit: &u8| value * 10 + u64::from(digit - b'0');
    Some((rest, digits.iter().fold(0, add)))
}
