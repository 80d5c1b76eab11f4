//! Where the events of a stream end, whatever its reads cut.

use memchr::memchr;

/// An event ends behind an empty line. A blank line before any field counts as an event of its own.
///
/// Lines end with LF or CRLF. A lone CR, which the standard allows and nobody sends, would cut lines that this misses:
/// see [`has_lone_cr`].
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// The line under way has bytes, apart from `cr`.
    in_line: bool,
    /// The line under way is a CR so far.
    cr: bool,
}

// === impl Ends ===

impl Ends {
    /// The end of the event that `bytes` goes on with at `from`; `None` if it ends in a later read.
    pub(super) fn next(&mut self, bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            if !self.in_line {
                match *bytes.get(at)? {
                    b'\n' => {
                        self.cr = false;
                        return Some(at + 1);
                    }
                    b'\r' if !self.cr => {
                        self.cr = true;
                        at += 1;
                        continue;
                    }
                    _ => {
                        self.in_line = true;
                        self.cr = false;
                    }
                }
            }
            at += memchr(b'\n', bytes.get(at..)?)? + 1;
            self.in_line = false;
        }
    }

    /// Whether the next byte begins an event that ends within the read if the read ends with an empty line.
    pub(super) fn is_fresh(&self) -> bool {
        !self.in_line && !self.cr
    }
}

/// Whether `bytes` ends with an empty line, taken that it begins with an event.
pub(super) fn ends_whole(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n")
}

/// Whether a CR in `bytes`, or before it at the end of `part`, is followed by something else than LF.
pub(super) fn has_lone_cr(part: &[u8], bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut after_cr = part.last() == Some(&b'\r');
    loop {
        if after_cr && rest.first().is_some_and(|&byte| byte != b'\n') {
            return true;
        }
        let Some(cr) = memchr(b'\r', rest) else {
            return false;
        };
        rest = rest.get(cr + 1..).unwrap_or_default();
        after_cr = true;
    }
}
