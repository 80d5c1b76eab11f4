//! Sees in the raw bytes of a request head what hyper hides: a `Content-Length` beside `Transfer-Encoding`.
//!
//! hyper drops the length, as RFC 9112 §6.3 allows, and tells nobody; but such a request is how smuggling starts, and
//! the guard is to refuse it. Sans-IO, right under any split.

const NAME: &[u8] = b"content-length";

/// Watches one request head.
#[derive(Debug, Default)]
pub(super) struct HeadWatch {
    line: Line,
    content_length: bool,
    started: bool,
}

#[derive(Debug, Default)]
enum Line {
    /// So many bytes of the line match [`NAME`].
    Name(usize),
    /// Nothing to see in the rest of this line; whether it has been empty so far.
    Rest { empty: bool },
    /// Before the request line: empty lines are to be ignored (RFC 9112 §2.2).
    #[default]
    Start,
    /// The request line, whose end starts the headers.
    First,
    /// The head is over; what follows is body.
    Over,
}

impl HeadWatch {
    /// Whether any byte of a head has come.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// Whether the head has a `Content-Length` line.
    pub(super) fn content_length(&self) -> bool {
        self.content_length
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.started |= !bytes.is_empty();
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.line {
                Line::Over => return,
                Line::Start if matches!(byte, b'\r' | b'\n') => {}
                Line::Start => {
                    self.line = Line::First;
                    continue;
                }
                Line::First | Line::Rest { empty: false } => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        return;
                    };
                    self.line = Line::Name(0);
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                    continue;
                }
                Line::Rest { empty: true } | Line::Name(0) if byte == b'\n' => {
                    self.line = Line::Over
                }
                Line::Name(0) if byte == b'\r' => self.line = Line::Rest { empty: true },
                Line::Rest { empty: true } => self.line = Line::Rest { empty: false },
                Line::Name(matched) => match NAME.get(*matched) {
                    Some(want) if byte.to_ascii_lowercase() == *want => *matched += 1,
                    // White space before the colon is hyper's to refuse.
                    None if matches!(byte, b':' | b' ' | b'\t') => {
                        self.content_length = true;
                        self.line = Line::Rest { empty: false };
                    }
                    _ if byte == b'\n' => self.line = Line::Name(0),
                    _ => self.line = Line::Rest { empty: false },
                },
            }
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(head: &str, piece: usize) -> bool {
        let mut watch = HeadWatch::default();
        for bytes in head.as_bytes().chunks(piece) {
            watch.feed(bytes);
        }
        watch.content_length()
    }

    #[test]
    fn found_under_every_split_and_only_in_the_head() {
        for piece in 1..60 {
            assert!(
                watch(
                    "POST / HTTP/1.1\r\nhost: a\r\nCoNtent-Length: 3\r\n\r\nabc",
                    piece
                ),
                "{piece}"
            );
            assert!(
                watch(
                    "\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n",
                    piece
                ),
                "{piece}"
            );
            assert!(
                watch("POST / HTTP/1.1\ncontent-length:3\n\nabc", piece),
                "{piece}"
            );
            assert!(
                !watch(
                    "POST / HTTP/1.1\r\nhost: a\r\n\r\ncontent-length: 3\r\n",
                    piece
                ),
                "{piece}"
            );
            assert!(
                !watch(
                    "POST / HTTP/1.1\r\nx-content-length: 3\r\ncontent-lengthy: 1\r\ncontent-lengt: 1\r\n\r\n",
                    piece
                ),
                "{piece}"
            );
            assert!(
                !watch(
                    "content-length: /\r\nhost: content-length: 3\r\n\r\n",
                    piece
                ),
                "{piece}"
            );
        }
    }
}
