//! Reading an answer's body piece by piece, and the SSE events in it.

use crate::http1::{BodyKind, Conn};

/// A body being read.
#[derive(Debug)]
pub(crate) struct Body {
    kind: BodyKind,
    /// Bytes left of the body, or of the chunk.
    left: u64,
    /// Behind a chunk's data there is a line end to skip.
    in_chunk: bool,
}

/// What reading once more gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Some bytes.
    More,
    /// The body is complete.
    End,
    /// The connection ended before the body did.
    Cut,
    /// Not a body.
    Malformed,
}

/// Finds the data of events in bytes that come in any pieces.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
}

/// What an event is, as far as a client cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Tokens,
    Error,
    Done,
    Other,
}

// === impl Body ===

impl Body {
    pub(crate) const fn new(kind: BodyKind) -> Self {
        let left = match kind {
            BodyKind::Length(length) => length,
            BodyKind::None | BodyKind::Chunked | BodyKind::UntilClose => 0,
        };
        Self {
            kind,
            left,
            in_chunk: false,
        }
    }

    /// Appends what comes next to `out`.
    pub(crate) async fn next(&mut self, conn: &mut Conn, out: &mut Vec<u8>) -> Piece {
        loop {
            match self.decode(&mut conn.buf, out) {
                Some(piece) => return piece,
                None => {
                    if conn.fill().await.is_err() {
                        return if self.kind == BodyKind::UntilClose {
                            Piece::End
                        } else {
                            Piece::Cut
                        };
                    }
                }
            }
        }
    }

    /// All that `buf` gives. `None`: it needs more first.
    fn decode(&mut self, buf: &mut Vec<u8>, out: &mut Vec<u8>) -> Option<Piece> {
        let before = out.len();
        let end = match self.kind {
            BodyKind::None => Some(Piece::End),
            BodyKind::UntilClose => {
                out.append(buf);
                None
            }
            BodyKind::Length(_) => {
                self.take(buf, out, 0);
                (self.left == 0).then_some(Piece::End)
            }
            BodyKind::Chunked => self.decode_chunks(buf, out),
        };
        end.or_else(|| (out.len() > before).then_some(Piece::More))
    }

    fn take(&mut self, buf: &mut Vec<u8>, out: &mut Vec<u8>, at: usize) -> usize {
        let len = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len() - at);
        out.extend_from_slice(&buf[at..at + len]);
        self.left -= len as u64;
        if at == 0 {
            buf.drain(..len);
        }
        len
    }

    fn decode_chunks(&mut self, buf: &mut Vec<u8>, out: &mut Vec<u8>) -> Option<Piece> {
        // One drain at the end: draining each chunk would move the buffer a hundred times.
        let mut at = 0;
        let end = loop {
            if self.left > 0 {
                let len = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(buf.len() - at);
                out.extend_from_slice(&buf[at..at + len]);
                self.left -= len as u64;
                at += len;
                if self.left > 0 {
                    break None;
                }
            }
            if self.in_chunk {
                if buf.len() - at < 2 {
                    break None;
                }
                at += 2;
                self.in_chunk = false;
            }
            match httparse::parse_chunk_size(&buf[at..]) {
                Ok(httparse::Status::Complete((start, 0))) => {
                    if buf.len() - at < start + 2 {
                        break None;
                    }
                    at += start + 2;
                    break Some(Piece::End);
                }
                Ok(httparse::Status::Complete((start, size))) => {
                    at += start;
                    self.left = size;
                    self.in_chunk = true;
                }
                Ok(httparse::Status::Partial) => break None,
                Err(_) => break Some(Piece::Malformed),
            }
        };
        buf.drain(..at);
        end
    }
}

// === impl Events ===

impl Events {
    /// Tells `each` of every event that `bytes` completes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Event)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            // vLLM's events have one line of data each.
            if let Some(data) = self.line.strip_prefix(b"data: ") {
                each(classify(data.trim_ascii_end()));
            }
            self.line.clear();
        }
        self.line.extend_from_slice(bytes);
    }
}

fn classify(data: &[u8]) -> Event {
    if data == b"[DONE]" {
        return Event::Done;
    }
    if data.starts_with(b"{\"error\"") {
        return Event::Error;
    }
    // Inside a JSON string these could stand only with escaped quotes, so the search is exact.
    let fields: [&[u8]; 4] = [
        b"\"content\":\"",
        b"\"text\":\"",
        b"\"reasoning\":\"",
        b"\"reasoning_content\":\"",
    ];
    let filled = fields.into_iter().any(|field| {
        memchr::memmem::find(data, field)
            .is_some_and(|at| data.get(at + field.len()) != Some(&b'"'))
    });
    if filled || memchr::memmem::find(data, b"\"tool_calls\":[").is_some() {
        Event::Tokens
    } else {
        Event::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_stream_decodes_at_every_split() {
        let recorded = include_bytes!("../../tests-data/chat-stream-usage.resp");
        let start = memchr::memmem::find(recorded, b"\r\n\r\n").unwrap() + 4;
        for size in 1..200 {
            let (mut body, mut events) = (Body::new(BodyKind::Chunked), Events::default());
            let (mut buf, mut found, mut end) = (Vec::new(), Vec::new(), None);
            for piece in recorded[start..].chunks(size) {
                buf.extend_from_slice(piece);
                let mut out = Vec::new();
                end = body.decode(&mut buf, &mut out);
                events.feed(&out, |event| found.push(event));
            }
            assert_eq!(end, Some(Piece::End));
            let mut expected = vec![Event::Other];
            expected.extend([Event::Tokens; 8]);
            expected.extend([Event::Other, Event::Done]);
            assert_eq!(found, expected);
        }
    }
}
