//! The chunked transfer coding (RFC 9112 §7.1), decoded in place.
//!
//! Sans-IO. [`Chunked::decode`] moves the data of all chunks in the buffer to its front, so that one read's worth of
//! chunks becomes one frame with one copy.

use http::HeaderMap;

use super::head;

/// Chunk extensions of one body that are read and dropped before it is refused (as hyper does).
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Trailer section that is accepted.
const MAX_TRAILERS: usize = 16 * 1024;

/// Where the decoder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
    Failed(&'static str),
}

/// A decoder for one body.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of the chunk still to come, or the size as read so far.
    left: u64,
    extensions: usize,
    /// The trailer section as it comes.
    section: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// What one call brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// `buffer[..data]` is body now.
    pub(super) data: usize,
    /// Bytes of the input that belong to this body; fewer than given only when it is complete.
    pub(super) consumed: usize,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self {
            state: State::SizeStart,
            left: 0,
            extensions: 0,
            section: Vec::new(),
            trailers: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailers of a complete body, if there were any.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Why nothing more can be decoded, if so.
    pub(super) fn failure(&self) -> Option<&'static str> {
        match self.state {
            State::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Decodes `buffer` in place. Data before a fault is data still: the fault is reported with the next call, and by
    /// [`Chunked::failure`].
    pub(super) fn decode(&mut self, buffer: &mut [u8]) -> Result<Decoded, &'static str> {
        let mut read = 0;
        let mut written = 0;
        if let Some(reason) = self.failure() {
            return Err(reason);
        }
        while read < buffer.len() && self.state != State::Done {
            if self.state == State::Data {
                let here = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len() - read);
                if read != written {
                    buffer.copy_within(read..read + here, written);
                }
                read += here;
                written += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let byte = buffer[read];
            read += 1;
            if let Err(reason) = self.step(byte) {
                self.state = State::Failed(reason);
                if written == 0 {
                    return Err(reason);
                }
                break;
            }
        }
        Ok(Decoded {
            data: written,
            consumed: read,
        })
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        self.state = match (self.state, byte) {
            (State::SizeStart, b) if b.is_ascii_hexdigit() => {
                self.left = 0;
                self.digit(b)?;
                State::Size
            }
            (State::Size, b) if b.is_ascii_hexdigit() => {
                self.digit(b)?;
                State::Size
            }
            (State::Size | State::SizeSpace, b' ' | b'\t') => State::SizeSpace,
            (State::Size | State::SizeSpace, b';') => State::Extension,
            (State::Size | State::SizeSpace | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\n') => return Err("newline in a chunk extension"),
            (State::Extension, _) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err("chunk extensions too long");
                }
                State::Extension
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::Trailers, b) => {
                if self.section.len() == MAX_TRAILERS {
                    return Err("trailers too long");
                }
                if b == b'\n' && self.section.last() != Some(&b'\r') {
                    return Err("bad trailer line end");
                }
                self.section.push(b);
                if self.section == b"\r\n" {
                    State::Done
                } else if self.section.ends_with(b"\r\n\r\n") {
                    let section = std::mem::take(&mut self.section);
                    self.trailers = Some(head::parse_trailers(&section)?);
                    State::Done
                } else {
                    State::Trailers
                }
            }
            (State::SizeStart | State::Size | State::SizeSpace, _) => return Err("bad chunk size"),
            (State::SizeLf | State::DataCr | State::DataLf, _) => return Err("bad chunk line end"),
            (State::Data | State::Done | State::Failed(_), _) => {
                return Err("chunk decoder out of step");
            }
        };
        Ok(())
    }

    fn digit(&mut self, hex: u8) -> Result<(), &'static str> {
        let value = match hex {
            b'0'..=b'9' => hex - b'0',
            b'a'..=b'f' => hex - b'a' + 10,
            _ => hex - b'A' + 10,
        };
        self.left = self
            .left
            .checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(value)))
            .ok_or("chunk size overflows")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(wire: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, usize, bool), &'static str> {
        let mut decoder = Chunked::new();
        let (mut body, mut at, mut consumed) = (Vec::new(), 0, 0);
        let mut sizes = pieces.iter().copied().cycle();
        while at < wire.len() {
            let size = sizes.next().unwrap_or(wire.len()).clamp(1, wire.len() - at);
            let mut piece = wire[at..at + size].to_vec();
            let decoded = decoder.decode(&mut piece)?;
            body.extend_from_slice(&piece[..decoded.data]);
            consumed += decoded.consumed;
            at += size;
            if let Some(reason) = decoder.failure() {
                return Err(reason);
            }
            if decoder.is_done() {
                break;
            }
        }
        Ok((body, consumed, decoder.is_done()))
    }

    #[test]
    fn chunks_of_one_read_become_one_frame() {
        let mut wire = b"5\r\nhello\r\n1\r\n \r\n5;x=y\r\nworld\r\n0\r\n\r\nHTTP".to_vec();
        let mut decoder = Chunked::new();
        let decoded = decoder.decode(&mut wire).unwrap();
        assert_eq!(&wire[..decoded.data], b"hello world");
        assert!(decoder.is_done());
        assert_eq!(&wire[decoded.consumed..], b"HTTP");
        assert_eq!(decoder.take_trailers(), None);
    }

    #[test]
    fn trailers_are_kept() {
        let mut wire = b"0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n".to_vec();
        let mut decoder = Chunked::new();
        decoder.decode(&mut wire).unwrap();
        let trailers = decoder.take_trailers().unwrap();
        assert_eq!(trailers.get_all("x-sum").iter().count(), 2);
    }

    #[test]
    fn what_is_not_chunked_is_refused() {
        for wire in [
            &b"x\r\n"[..],
            b"\r\n",
            b"0x2\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"11111111111111111\r\n",
            b"2\nab",
            b"2\r\nabc",
            b"2\r\nab\n",
            b"1;a\nb\r\n",
            b"2 2\r\n",
            b"0\r\na: b\n\r\n",
        ] {
            assert!(
                decode_all(wire, &[wire.len()]).is_err(),
                "{:?}",
                wire.escape_ascii().to_string()
            );
            assert!(
                decode_all(wire, &[1]).is_err(),
                "{:?}",
                wire.escape_ascii().to_string()
            );
        }
        let long = [b"1;".to_vec(), vec![b'x'; MAX_EXTENSIONS + 1]].concat();
        assert_eq!(decode_all(&long, &[7]), Err("chunk extensions too long"));
        let long = [b"0\r\n".to_vec(), vec![b'x'; MAX_TRAILERS + 1]].concat();
        assert_eq!(decode_all(&long, &[7]), Err("trailers too long"));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_body(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            pieces in prop::collection::vec(1usize..30, 1..20),
            upper in any::<bool>(),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                let size = if upper { format!("{:X}", chunk.len()) } else { format!("{:x}", chunk.len()) };
                wire.extend_from_slice(size.as_bytes());
                wire.extend_from_slice(b"\r\n");
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (body, consumed, done) = decode_all(&wire, &pieces).unwrap();
            prop_assert!(done);
            prop_assert_eq!(consumed, wire.len());
            prop_assert_eq!(body, chunks.concat());
        }

        #[test]
        fn random_bytes_never_panic(wire in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let _ = decode_all(&wire, &[piece]);
        }
    }
}
