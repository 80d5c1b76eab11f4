//! One event, as far as stripping needs it.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

use super::json::{Key, Kind, Scanner, Value};

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r#""usage""#));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r#""finish_reason""#));

/// The places of a chunk, counted from the start of its event.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) choices: Option<Value>,
    pub(super) usage: Option<Member>,
    pub(super) fingerprint: Option<Member>,
    /// A choice has a `finish_reason`.
    pub(super) finished: bool,
    /// The JSON and its line came to their end.
    whole: bool,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: Kind,
    /// With the comma before it.
    pub(super) at: Range<usize>,
    first: bool,
}

/// Whether any event in `bytes` says something about usage. May say yes in vain, never no.
pub(super) fn may_have_usage(bytes: &[u8]) -> bool {
    USAGE.find(bytes).is_some()
}

/// Whether any event in `bytes` has a `finish_reason` that is not null. May say yes in vain, never no.
pub(super) fn may_be_finished(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(found) = FINISH.find(rest) {
        rest = rest
            .get(found + FINISH.needle().len()..)
            .unwrap_or_default();
        if !rest.starts_with(b":null") {
            return true;
        }
    }
    false
}

/// Whether an event that broke off had come to its JSON object.
pub(super) fn has_begun(event: &[u8]) -> bool {
    event
        .get(data_start(event)..)
        .is_some_and(|data| data.starts_with(b"{"))
        && event.starts_with(b"data:")
}

/// Reads an event of one data line. `None` for any other, and for one that is no JSON object.
pub(super) fn read(event: &[u8]) -> Option<Chunk> {
    let end = memchr(b'\n', event)?;
    let rest = event.get(end + 1..)?;
    if !matches!(rest, b"\n" | b"\r\n") {
        return None;
    }
    Some(read_line(event.get(..=end)?)).filter(|chunk| chunk.whole)
}

/// Reads an event that broke off, to where it did.
pub(super) fn read_part(event: &[u8]) -> Chunk {
    let end = memchr(b'\n', event).map_or(event.len(), |end| end + 1);
    read_line(event.get(..end).unwrap_or_default())
}

fn read_line(line: &[u8]) -> Chunk {
    let mut chunk = Chunk::default();
    if line.starts_with(b"data:") {
        let mut scan = Scanner::new(line, data_start(line));
        let read = scan.object(|scan, key| chunk.member(scan, &key));
        chunk.whole = read.is_some() && scan.is_done();
    }
    chunk
}

fn data_start(event: &[u8]) -> usize {
    const NAME: usize = b"data:".len();
    NAME + usize::from(event.get(NAME) == Some(&b' '))
}

// === impl Chunk ===

impl Chunk {
    /// The event that `include_usage` brings.
    pub(super) fn is_usage_only(&self) -> bool {
        self.has_no_choices()
            && self
                .usage
                .as_ref()
                .is_some_and(|usage| usage.kind == Kind::Object)
    }

    pub(super) fn has_no_choices(&self) -> bool {
        self.choices
            .as_ref()
            .is_some_and(|choices| choices.kind == Kind::Array && choices.items == 0)
    }

    pub(super) fn has_choices(&self) -> bool {
        self.choices
            .as_ref()
            .is_some_and(|choices| choices.kind == Kind::Array && choices.items > 0)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// What to take out to be rid of a member that others stand before.
    pub(super) fn usage_cut(&self) -> Option<Range<usize>> {
        self.usage
            .as_ref()
            .filter(|usage| !usage.first)
            .map(|usage| usage.at.clone())
    }

    fn member<'a>(&mut self, scan: &mut Scanner<'a>, key: &Key<'a>) -> Option<()> {
        if key.is("choices") {
            self.choices = Some(if scan.next_byte()? == b'[' {
                scan.array(|scan| self.choice(scan))?
            } else {
                scan.value()?
            });
        } else if key.is("usage") {
            self.usage = Some(Member::read(scan, key)?);
        } else if key.is("system_fingerprint") {
            self.fingerprint = Some(Member::read(scan, key)?);
        } else {
            scan.value()?;
        }
        Some(())
    }

    fn choice(&mut self, scan: &mut Scanner<'_>) -> Option<()> {
        if scan.next_byte()? != b'{' {
            return scan.value().map(drop);
        }
        scan.object(|scan, key| {
            let is_reason = key.is("finish_reason");
            let value = scan.value()?;
            self.finished |= is_reason && value.kind != Kind::Null;
            Some(())
        })
        .map(drop)
    }
}

// === impl Member ===

impl Member {
    fn read(scan: &mut Scanner<'_>, key: &Key<'_>) -> Option<Self> {
        let value = scan.value()?;
        Some(Self {
            kind: value.kind,
            at: key.behind..value.at.end,
            first: key.first,
        })
    }

    /// The text as it may stand behind another member.
    pub(super) fn text<'e>(&self, event: &'e [u8]) -> Option<&'e [u8]> {
        if self.first || self.kind == Kind::Null {
            return None;
        }
        event.get(self.at.clone())
    }
}
