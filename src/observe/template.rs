//! The commonest event without a parser: most chunks of a stream differ in their text alone.
//!
//! A chunk that was parsed, and bore nothing but one plain text, is the template for those behind it. One that has the
//! same bytes around its text, and a text without a quote, an escape or a control character, is the same JSON with
//! another string in it: there is nothing that a parser could find out beyond that string. Some have numbers that count
//! up behind their text, too: another whole number in such a place is again the same JSON but for that.

use memchr::{memchr, memmem};

use super::progress::Piece;

/// `usage` as vLLM's chunks have it, up to the number.
const USAGE: &str = "\"usage\":{\"prompt_tokens\":";
const TOTAL: &[u8] = b",\"total_tokens\":";
const COMPLETION: &[u8] = b",\"completion_tokens\":";
/// The key of a number that nobody reads, up to the number.
const SEQUENCE: &str = "\"sequence_number\":";
/// Digits of which any number fits 64 bits.
const DIGITS: usize = 18;

/// What stands around the text.
#[derive(Debug)]
pub(crate) struct Template {
    before: Box<str>,
    /// Up to the first number that changes, if there is one.
    after: Box<str>,
    tail: Tail,
    piece: Piece,
}

/// What may change behind the text, and what comes then.
#[derive(Debug)]
enum Tail {
    Fixed,
    Sequence(Box<str>),
    Usage(Box<str>),
}

/// What a template's events have that changes, beside their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changing {
    /// Nothing.
    Text,
    /// A number that says nothing.
    Sequence,
    /// The running usage, which has no details.
    Usage,
}

/// What is read of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// What the text is.
    pub(crate) piece: Piece,
    /// The text.
    pub(crate) text: &'a str,
    /// Tokens of the prompt, and generated ones.
    pub(crate) usage: Option<(u64, u64)>,
}

// === impl Template ===

impl Template {
    /// From an event, its text, which must be lent from it, and what that text is.
    pub(crate) fn new(event: &str, text: &str, piece: Piece, changing: Changing) -> Option<Self> {
        let at = text.as_ptr().addr().checked_sub(event.as_ptr().addr())?;
        let (before, rest) = event.split_at_checked(at)?;
        let after = rest.strip_prefix(text)?;
        if !before.ends_with('"') || !after.starts_with('"') {
            return None;
        }
        let (after, tail) = match changing {
            Changing::Text => (after, Tail::Fixed),
            Changing::Sequence => sequence(after).unwrap_or((after, Tail::Fixed)),
            Changing::Usage => usage(before, after)?,
        };
        Some(Self {
            before: before.into(),
            after: after.into(),
            tail,
            piece,
        })
    }

    /// Reads an event that is like it.
    pub(crate) fn read<'a>(&self, event: &'a [u8]) -> Option<Known<'a>> {
        let rest = event.strip_prefix(self.before.as_bytes())?;
        let (rest, usage) = match &self.tail {
            Tail::Fixed => (rest, None),
            Tail::Sequence(end) => (number(rest.strip_suffix(end.as_bytes())?)?.0, None),
            Tail::Usage(end) => {
                let (rest, completion) = number(rest.strip_suffix(end.as_bytes())?)?;
                let (rest, _) = number(rest.strip_suffix(COMPLETION)?)?;
                let (rest, prompt) = number(rest.strip_suffix(TOTAL)?)?;
                (rest, Some((prompt, completion)))
            }
        };
        let text = rest.strip_suffix(self.after.as_bytes())?;
        let plain = |byte: &u8| *byte >= b' ' && !matches!(byte, b'"' | b'\\');
        if text.is_empty() || !text.iter().all(plain) {
            return None;
        }
        Some(Known {
            piece: self.piece,
            text: std::str::from_utf8(text).ok()?,
            usage,
        })
    }
}

/// What is before the number that an event has been given in its row, and what is behind it. Without a backslash there
/// are no quotes within a string, so what looks like a key is one.
fn sequence(after: &str) -> Option<(&str, Tail)> {
    if memchr(b'\\', after.as_bytes()).is_some() {
        return None;
    }
    let at = memmem::rfind(after.as_bytes(), SEQUENCE.as_bytes())? + SEQUENCE.len();
    let (before, rest) = after.split_at_checked(at)?;
    Some((before, Tail::Sequence(behind(rest)?.into())))
}

/// The same of the numbers in the one `usage` that there is. The parser has found one, so it is that.
fn usage<'a>(before: &str, after: &'a str) -> Option<(&'a str, Tail)> {
    let backslash = |text: &str| memchr(b'\\', text.as_bytes()).is_some();
    let key = b"\"usage\"";
    let named = memmem::find_iter(before.as_bytes(), key).count();
    let named = named + memmem::find_iter(after.as_bytes(), key).count();
    if named != 1 || backslash(before) || backslash(after) {
        return None;
    }
    let at = memmem::find(after.as_bytes(), USAGE.as_bytes())? + USAGE.len();
    let (fixed, rest) = after.split_at_checked(at)?;
    let rest = behind(rest)?.as_bytes().strip_prefix(TOTAL)?;
    let rest = behind(std::str::from_utf8(rest).ok()?)?;
    let rest = rest.as_bytes().strip_prefix(COMPLETION)?;
    let rest = behind(std::str::from_utf8(rest).ok()?)?;
    Some((fixed, Tail::Usage(rest.into())))
}

/// What is behind a whole number.
fn behind(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    (rest.len() < text.len() && rest.starts_with([',', '}'])).then_some(rest)
}

/// The whole number at the end, and what is before it.
fn number(text: &[u8]) -> Option<(&[u8], u64)> {
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit());
    let (before, digits) = text.split_at_checked(text.len() - digits.count())?;
    let zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if zero || digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let add = |value: u64, digit: &u8| value * 10 + u64::from(digit - b'0');
    Some((before, digits.iter().fold(0, add)))
}
