//! An answer read piece by piece and held against what the origin has sent.

use super::script::{BEFORE_STAMP, STAMP, Script, now_ns, read_stamp};

/// A chunked body's or a plain body's place in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the digits of a chunk's length.
    Size(usize),
    /// In the rest of that line.
    Extension(usize),
    /// In the data, with so much of it to come.
    Data(usize),
    /// In the line end behind it.
    DataEnd,
    /// In the lines behind the last chunk; whether this one has a byte yet.
    Trailer(bool),
    /// Behind the body.
    End,
}

/// What the head said of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    Length(usize),
}

/// Reads a body.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    script: &'a Script,
    at: At,
    chunked: bool,
    /// The frames bear the times at which they left.
    stamped: bool,
    /// Body bytes seen.
    seen: usize,
    /// Frames seen whole.
    pub(crate) frames: usize,
    /// Something was not as it was sent.
    pub(crate) altered: bool,
    /// The digits of a stamp that came in pieces.
    digits: Vec<u8>,
}

// === impl Check ===

impl<'a> Check<'a> {
    pub(crate) fn new(script: &'a Script, framing: Framing, paced: bool) -> Self {
        Self {
            script,
            at: match framing {
                Framing::Chunked => At::Size(0),
                Framing::Length(0) => At::End,
                Framing::Length(length) => At::Data(length),
            },
            chunked: framing == Framing::Chunked,
            stamped: paced && !script.ends.is_empty(),
            seen: 0,
            frames: 0,
            altered: false,
            digits: Vec::new(),
        }
    }

    /// Whether the body is complete as HTTP has it.
    pub(crate) fn ended(&self) -> bool {
        self.at == At::End
    }

    /// Whether a byte of the body has come.
    pub(crate) fn began(&self) -> bool {
        self.seen > 0
    }

    /// Whether it is complete and all of it is as it was sent.
    pub(crate) fn perfect(&self) -> bool {
        self.ended() && !self.altered && self.seen == self.script.body.len()
    }

    /// Reads on. `delay` is told of each stamped frame how many nanoseconds it has come late.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut delay: impl FnMut(u64)) {
        while let Some((&first, rest)) = bytes.split_first() {
            match self.at {
                At::Data(left) => {
                    let (data, behind) = bytes.split_at(left.min(bytes.len()));
                    self.data(data, &mut delay);
                    bytes = behind;
                    self.at = match (left - data.len(), self.chunked) {
                        (0, true) => At::DataEnd,
                        (0, false) => At::End,
                        (left, _) => At::Data(left),
                    };
                    continue;
                }
                At::Size(size) => match char::from(first).to_digit(16) {
                    Some(digit) => self.at = At::Size((size << 4) | digit as usize),
                    None if first == b'\n' => self.at = after_size(size),
                    None => self.at = At::Extension(size),
                },
                At::Extension(size) if first == b'\n' => self.at = after_size(size),
                At::DataEnd if first == b'\n' => self.at = At::Size(0),
                At::Trailer(false) if first == b'\n' => self.at = At::End,
                At::Trailer(true) if first == b'\n' => self.at = At::Trailer(false),
                At::Trailer(_) if first != b'\r' => self.at = At::Trailer(true),
                At::Extension(_) | At::DataEnd | At::Trailer(_) => {}
                // Bytes behind the end of an answer belong to none.
                At::End => {
                    self.altered = true;
                    return;
                }
            }
            bytes = rest;
        }
    }

    fn data(&mut self, data: &[u8], delay: &mut impl FnMut(u64)) {
        let start = self.seen;
        self.seen += data.len();
        let Some(sent) = self.script.body.get(start..self.seen) else {
            self.altered = true;
            return;
        };
        // Without stamps all can be compared at once.
        self.altered |= !self.stamped && sent != data;
        while let Some(end) = self.script.ends.get(self.frames) {
            if self.stamped {
                self.frame(data, start, *end, delay);
            }
            if *end > self.seen {
                break;
            }
            self.frames += 1;
        }
    }

    /// Holds what `data`, that begins at `start`, has of the current frame against the script, stamp apart.
    fn frame(&mut self, data: &[u8], start: usize, end: usize, delay: &mut impl FnMut(u64)) {
        let begin = match self.frames {
            0 => 0,
            frames => self.script.ends[frames - 1],
        };
        let stamped = self.script.body[begin..end].starts_with(BEFORE_STAMP);
        let digits = begin + BEFORE_STAMP.len();
        let digits = if stamped {
            digits..digits + STAMP
        } else {
            end..end
        };
        let part = |from: usize, to: usize| {
            let (from, to) = (from.max(start), to.min(start + data.len()));
            (from < to).then_some((from, to))
        };
        for (from, to) in [part(begin, digits.start), part(digits.end, end)]
            .into_iter()
            .flatten()
        {
            self.altered |= data[from - start..to - start] != self.script.body[from..to];
        }
        if let Some((from, to)) = part(digits.start, digits.end) {
            self.digits
                .extend_from_slice(&data[from - start..to - start]);
        }
        if end <= start + data.len() && stamped {
            match read_stamp(&self.digits) {
                Some(sent) => delay(now_ns().saturating_sub(sent)),
                None => self.altered = true,
            }
            self.digits.clear();
        }
    }
}

const fn after_size(size: usize) -> At {
    if size == 0 {
        At::Trailer(false)
    } else {
        At::Data(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::script::stamp;

    /// The wire of a script behind its head, with stamps if asked for.
    fn wire(script: &Script, stamped: bool) -> Vec<u8> {
        let mut wire = script.wire[script.wire_ends[0]..].to_vec();
        let finder = memchr::memmem::Finder::new(BEFORE_STAMP);
        let found: Vec<usize> = finder.find_iter(&wire).collect();
        for at in found.into_iter().filter(|_| stamped) {
            let at = at + BEFORE_STAMP.len();
            stamp(&mut wire[at..at + STAMP], now_ns() - 1000);
        }
        wire
    }

    #[test]
    fn a_stream_is_whole_at_every_split() {
        let script = Script::stream(12);
        for stamped in [false, true] {
            let wire = wire(&script, stamped);
            for size in 1..400 {
                let mut check = Check::new(&script, Framing::Chunked, stamped);
                let mut delays = 0;
                for piece in wire.chunks(size) {
                    check.feed(piece, |_| delays += 1);
                }
                assert!(check.perfect(), "size {size} {check:?}");
                assert_eq!(check.frames, 12);
                assert_eq!(delays, if stamped { 11 } else { 0 }, "size {size}");
            }
        }
    }

    #[test]
    fn a_changed_or_missing_byte_shows() {
        let script = Script::stream(5);
        for stamped in [false, true] {
            let wire = wire(&script, stamped);
            let end = wire.len() - 5;
            let mut checked = 0;
            for at in (0..end).filter(|at| wire[*at].is_ascii_lowercase()) {
                let mut other = wire.clone();
                other[at] = b'Z';
                let mut check = Check::new(&script, Framing::Chunked, stamped);
                check.feed(&other, |_| {});
                assert!(!check.perfect(), "byte {at}");
                checked += 1;
            }
            assert!(checked > 100);
            let mut check = Check::new(&script, Framing::Chunked, stamped);
            check.feed(&wire[..end], |_| {});
            assert!(!check.ended() && !check.altered);
            check.feed(b"2\r\n\n\n\r\n0\r\n\r\n", |_| {});
            assert!(check.ended() && !check.perfect());
        }
    }

    #[test]
    fn a_body_with_a_length_is_compared_too() {
        let script = Script::json(4);
        let length = script.body.len();
        for size in [1, 7, length] {
            let mut check = Check::new(&script, Framing::Length(length), true);
            for piece in script.body.chunks(size) {
                check.feed(piece, |_| {});
            }
            assert!(check.perfect());
        }
        let mut check = Check::new(&script, Framing::Length(length), true);
        check.feed(&b" ".repeat(length), |_| {});
        assert!(check.ended() && !check.perfect());
    }
}
