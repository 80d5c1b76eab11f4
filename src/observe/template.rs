//! The commonest event without a parser: most chunks of a stream differ in their text alone.
//!
//! A chunk that was parsed, and bore nothing but one plain text, is the template for those behind it. One that has the
//! same bytes around its text, and a text without a quote, an escape or a control character, is the same JSON with
//! another string in it: there is nothing that a parser could find out beyond that string.

use super::progress::Piece;

/// What stands around the text.
#[derive(Debug)]
pub(crate) struct Template {
    before: Box<str>,
    after: Box<str>,
    piece: Piece,
}

// === impl Template ===

impl Template {
    /// From an event, its text, which must be lent from it, and what that text is.
    pub(crate) fn new(event: &str, text: &str, piece: Piece) -> Option<Self> {
        let at = text.as_ptr().addr().checked_sub(event.as_ptr().addr())?;
        let (before, rest) = event.split_at_checked(at)?;
        let after = rest.strip_prefix(text)?;
        let lent = before.ends_with('"') && after.starts_with('"');
        lent.then(|| Self {
            before: before.into(),
            after: after.into(),
            piece,
        })
    }

    /// The text of an event that is like it.
    pub(crate) fn read<'a>(&self, event: &'a [u8]) -> Option<(Piece, &'a str)> {
        let text = event.strip_prefix(self.before.as_bytes())?;
        let text = text.strip_suffix(self.after.as_bytes())?;
        let plain = |byte: &u8| *byte >= b' ' && !matches!(byte, b'"' | b'\\');
        if text.is_empty() || !text.iter().all(plain) {
            return None;
        }
        Some((self.piece, std::str::from_utf8(text).ok()?))
    }
}
