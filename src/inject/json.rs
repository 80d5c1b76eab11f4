//! A strict JSON scanner that knows where each value lies, since an edit needs places and not contents.
//!
//! It takes what RFC 8259 takes and no more: what a lenient parser might read differently from a strict one is not
//! to be edited. The input may end or break off anywhere; what was handed out until then holds.

use std::ops::Range;

use memchr::memchr2;

/// Deeper nesting is refused; no body that vLLM answers comes near it.
const MAX_DEPTH: usize = 128;

const SHORT: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    Text,
    Number,
    True,
    False,
    Null,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) at: Range<usize>,
    /// Members of the object, elements of the array.
    pub(super) items: usize,
}

/// The key of a member, and where the member begins.
#[derive(Clone, Debug)]
pub(super) struct Key<'a> {
    /// Between the quotes, as written.
    raw: &'a [u8],
    escaped: bool,
    /// The end of what stands before: of the last member's value, or of the opening brace.
    pub(super) behind: usize,
    /// Nothing but the brace stands before.
    pub(super) first: bool,
}

#[derive(Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

// === impl Key ===

impl Key<'_> {
    /// Compares as a JSON parser does, escapes resolved.
    pub(super) fn is(&self, name: &str) -> bool {
        if !self.escaped {
            return self.raw == name.as_bytes();
        }
        let quoted = [b"\"", self.raw, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).is_ok_and(|key| key == name)
    }
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            depth: 0,
        }
    }

    /// Whether nothing but white space is left.
    pub(super) fn is_done(&mut self) -> bool {
        self.space();
        self.at == self.bytes.len()
    }

    /// The value at hand, whatever it is.
    pub(super) fn value(&mut self) -> Option<Value> {
        self.space();
        match self.peek()? {
            b'{' => self.object(|scan, _| scan.value().map(drop)),
            b'[' => self.array(|scan| scan.value().map(drop)),
            b'"' => {
                let start = self.at;
                self.string()?;
                Some(self.scalar(Kind::Text, start))
            }
            b't' => self.literal(b"true", Kind::True),
            b'f' => self.literal(b"false", Kind::False),
            b'n' => self.literal(b"null", Kind::Null),
            _ => self.number(),
        }
    }

    /// The object at hand. `each` is called behind the colon of each member and must consume its value.
    pub(super) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Key<'a>) -> Option<()>,
    ) -> Option<Value> {
        let start = self.open(b'{')?;
        let mut items = 0;
        let mut behind = self.at;
        self.space();
        if self.peek()? != b'}' {
            loop {
                self.space();
                let (raw, escaped) = self.string()?;
                self.space();
                self.take(b':')?;
                let first = items == 0;
                each(
                    self,
                    Key {
                        raw,
                        escaped,
                        behind,
                        first,
                    },
                )?;
                items += 1;
                behind = self.at;
                self.space();
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.close(b'}')?;
        Some(Value {
            kind: Kind::Object,
            at: start..self.at,
            items,
        })
    }

    /// The array at hand. `each` must consume an element.
    pub(super) fn array(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<Value> {
        let start = self.open(b'[')?;
        let mut items = 0;
        self.space();
        if self.peek()? != b']' {
            loop {
                each(self)?;
                items += 1;
                self.space();
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.close(b']')?;
        Some(Value {
            kind: Kind::Array,
            at: start..self.at,
            items,
        })
    }

    /// What `value` would find at hand, by its first byte.
    pub(super) fn next_byte(&mut self) -> Option<u8> {
        self.space();
        self.peek()
    }

    /// Whether the value at hand begins with `text`.
    pub(super) fn is_at(&mut self, text: &[u8]) -> bool {
        self.space();
        self.bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(text))
    }

    fn open(&mut self, brace: u8) -> Option<usize> {
        self.space();
        let start = self.at;
        self.take(brace)?;
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(start)
    }

    fn close(&mut self, brace: u8) -> Option<()> {
        self.space();
        self.depth -= 1;
        self.take(brace)
    }

    /// Between the quotes, and whether that holds escapes.
    fn string(&mut self) -> Option<(&'a [u8], bool)> {
        self.take(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.plain()?;
            let stop = self.peek()?;
            self.at += 1;
            if stop == b'"' {
                return Some((self.bytes.get(start..self.at - 1)?, escaped));
            }
            escaped = true;
            self.escape()?;
        }
    }

    /// Up to the next quote or backslash.
    fn plain(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.at..)?;
        // Most strings are shorter than a vector search takes to begin.
        let near = rest.get(..SHORT).unwrap_or(rest);
        let stop = match near.iter().position(|&byte| byte == b'"' || byte == b'\\') {
            Some(stop) => stop,
            None => near.len() + memchr2(b'"', b'\\', rest.get(near.len()..)?)?,
        };
        // All of it is looked at, so that the loop can be made of vectors.
        let is_bad = |bad: bool, &byte: &u8| bad | (byte < b' ');
        if rest.get(..stop)?.iter().fold(false, is_bad) {
            return None;
        }
        self.at += stop;
        Some(())
    }

    fn escape(&mut self) -> Option<()> {
        let kind = self.peek()?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(self.scalar(Kind::Number, start))
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Option<Value> {
        let start = self.at;
        if !self.bytes.get(start..)?.starts_with(word) {
            return None;
        }
        self.at += word.len();
        Some(self.scalar(kind, start))
    }

    fn scalar(&self, kind: Kind, start: usize) -> Value {
        Value {
            kind,
            at: start..self.at,
            items: 0,
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}
