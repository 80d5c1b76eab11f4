//! Server-sent events out of a stream of reads, whatever the reads cut.
//!
//! Sans-IO: it is fed bytes and calls back with events. An event whose single data line lies whole within one read is
//! lent from that read; only what the edge of a read cuts is copied, and the copy is capped and given back once the
//! event is out, since thousands of streams sit idle at a time.

use memchr::{memchr, memchr2};

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// What is kept of a carry buffer from one event to the next. A stream whose reads cut every event does not allocate
/// anew for each; a stream that once carried a megabyte does not hold on to it.
const KEEP: usize = 512;

/// One event, borrowed for the length of the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The `event:` field; empty where there was none.
    pub(crate) name: &'a [u8],
    /// The data lines, joined by `\n`.
    pub(crate) data: &'a [u8],
}

/// The state between two reads.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// The line that the last read broke off in.
    line: Vec<u8>,
    /// Data of the event under way, where it could not be lent.
    data: Vec<u8>,
    /// Its name, where it could not be lent.
    name: Vec<u8>,
    limit: usize,
    overflows: u32,
    /// Bytes of the byte order mark matched so far; `None` once the start of the stream is behind us.
    bom: Option<usize>,
    /// A data line has been put into `data`, be it an empty one.
    has_data: bool,
    /// The last read ended in a CR that ended a line: an LF at the start of the next belongs to it.
    skip_lf: bool,
    /// The event under way was over the limit: what is left of it is passed over.
    skipping: bool,
    /// While skipping: the line under way has bytes, so that its end does not end the event.
    skipped_line: bool,
}

/// What the read at hand has brought of the event under way.
#[derive(Default)]
struct Lent<'b> {
    data: Option<&'b [u8]>,
    name: Option<&'b [u8]>,
}

// === impl Splitter ===

impl Splitter {
    /// `limit` caps what is copied of one event.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            name: Vec::new(),
            limit,
            overflows: 0,
            bom: Some(0),
            has_data: false,
            skip_lf: false,
            skipping: false,
            skipped_line: false,
        }
    }

    /// Events that were passed over because they were longer than the limit.
    pub(crate) fn overflows(&self) -> u32 {
        self.overflows
    }

    /// Splits one read. Calls `each` for every event that it completes.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Event<'_>)) {
        let mut rest = self.strip_bom(bytes);
        let mut lent = Lent::default();
        loop {
            if self.skip_lf {
                let Some(&first) = rest.first() else { break };
                self.skip_lf = false;
                if first == b'\n' {
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            // A blank line needs no search.
            let end = match rest.first() {
                Some(b'\n') => 0,
                _ => match memchr2(b'\n', b'\r', rest) {
                    Some(end) => end,
                    None => break,
                },
            };
            let (line, tail) = rest.split_at(end);
            self.skip_lf = tail.first() == Some(&b'\r');
            rest = tail.get(1..).unwrap_or_default();
            self.end_line(line, &mut lent, &mut each);
        }
        self.carry(rest, &lent);
    }

    /// The mark may itself be cut, and what only looked like its beginning belongs to the first line.
    fn strip_bom<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(mut matched) = self.bom else {
            return bytes;
        };
        for (at, byte) in bytes.iter().enumerate() {
            if BOM.get(matched) != Some(byte) {
                self.bom = None;
                let of_line = BOM.get(..matched).unwrap_or_default();
                self.line.extend_from_slice(of_line);
                return bytes.get(at..).unwrap_or_default();
            }
            matched += 1;
            if matched == BOM.len() {
                self.bom = None;
                return bytes.get(at + 1..).unwrap_or_default();
            }
        }
        self.bom = Some(matched);
        &[]
    }

    fn end_line<'b>(
        &mut self,
        line: &'b [u8],
        lent: &mut Lent<'b>,
        each: &mut impl FnMut(Event<'_>),
    ) {
        if self.skipping {
            if line.is_empty() && !self.skipped_line {
                self.skipping = false;
                *lent = Lent::default();
            }
            self.skipped_line = false;
        } else if !self.line.is_empty() {
            self.end_carried_line(line);
        } else if line.is_empty() {
            self.dispatch(lent, each);
        } else {
            match field(line) {
                (b"data", value) => self.lend_data(value, lent),
                (b"event", value) => lent.name = Some(value),
                _ => {}
            }
        }
    }

    /// A line of which an earlier read brought the beginning. It is never empty.
    fn end_carried_line(&mut self, end: &[u8]) {
        if self.exceeds(end.len()) {
            return self.skip(false);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        match field(&line) {
            (b"data", value) => self.push_data(value),
            (b"event", value) => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            _ => {}
        }
        self.line = emptied(line);
    }

    fn lend_data<'b>(&mut self, value: &'b [u8], lent: &mut Lent<'b>) {
        if let Some(first) = lent.data.take() {
            self.push_data(first);
        } else if !self.has_data {
            lent.data = Some(value);
            return;
        }
        self.push_data(value);
    }

    fn push_data(&mut self, value: &[u8]) {
        if self.skipping {
            return;
        }
        if self.exceeds(value.len().saturating_add(usize::from(self.has_data))) {
            return self.skip(false);
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
    }

    fn dispatch(&mut self, lent: &mut Lent<'_>, each: &mut impl FnMut(Event<'_>)) {
        let name = lent.name.take().unwrap_or(&self.name);
        if let Some(data) = lent.data.take() {
            each(Event { name, data });
        } else if self.has_data {
            each(Event {
                name,
                data: &self.data,
            });
        }
        self.forget();
    }

    /// The read is over: what is left of it, and what was lent of it, must be copied.
    fn carry(&mut self, rest: &[u8], lent: &Lent<'_>) {
        if self.skipping {
            self.skipped_line |= !rest.is_empty();
            return;
        }
        let copied = lent.data.map_or(0, <[u8]>::len) + lent.name.map_or(0, <[u8]>::len);
        if self.exceeds(copied.saturating_add(rest.len())) {
            return self.skip(!rest.is_empty());
        }
        if let Some(name) = lent.name {
            self.name.clear();
            self.name.extend_from_slice(name);
        }
        if let Some(data) = lent.data {
            self.push_data(data);
        }
        self.line.extend_from_slice(rest);
    }

    fn exceeds(&self, more: usize) -> bool {
        let held = self.line.len() + self.data.len() + self.name.len();
        held.saturating_add(more) > self.limit
    }

    fn skip(&mut self, within_line: bool) {
        self.forget();
        self.overflows = self.overflows.saturating_add(1);
        self.skipping = true;
        self.skipped_line = within_line;
    }

    fn forget(&mut self) {
        self.has_data = false;
        for buffer in [&mut self.line, &mut self.data, &mut self.name] {
            if buffer.capacity() > 0 {
                *buffer = emptied(std::mem::take(buffer));
            }
        }
    }
}

fn emptied(mut buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() > KEEP {
        return Vec::new();
    }
    buffer.clear();
    buffer
}

/// Name and value of a line. A comment has the empty name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = match line.get(4) {
        Some(b':') => 4,
        _ => match memchr(b':', line) {
            Some(colon) => colon,
            None => return (line, &[]),
        },
    };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    (name, value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests;
