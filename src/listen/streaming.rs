//! Writes one answer in chunks, as hyper would.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::Downstream;
use super::handoff::Taken;
use crate::proxy::body::ForwardBody;
use crate::upstream::Error;

/// Ends a chunk.
const CRLF: &[u8] = b"\r\n";
/// Ends a body.
const LAST: &[u8] = b"0\r\n\r\n";
/// Both.
const CRLF_LAST: &[u8] = b"\r\n0\r\n\r\n";

/// Frames that may wait for a client that does not take them: they are measured when they come, not when it reads.
const FRAMES: usize = 16;

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Streaming {
    /// Gone once it has ended.
    body: Option<Box<ForwardBody>>,
    /// What the client has not taken yet: the head, to begin with. Mostly nothing, and then no memory either.
    out: Vec<u8>,
    /// So much of it has been written.
    at: usize,
    /// So many frames are in it.
    frames: usize,
    /// Bytes that may wait.
    limit: usize,
}

// === impl Streaming ===

impl Streaming {
    /// `close` says that the connection ends with it.
    pub(super) fn new(taken: Taken, close: bool, limit: usize) -> Self {
        let mut out = taken.head;
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        Self {
            body: Some(taken.body),
            out,
            at: 0,
            frames: 0,
            limit,
        }
    }

    /// Ready once the client's socket has all of it. An error is the end of the connection: the client is gone, or
    /// the body was cut and is not to look whole.
    pub(super) fn poll(
        &mut self,
        io: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let full = self.frames >= FRAMES || self.out.len() >= self.limit;
            if let Some(body) = self.body.as_mut().filter(|_| !full)
                && let Poll::Ready(frame) = body.poll(cx)
            {
                self.frame(io, cx, frame)?;
                continue;
            }
            if self.poll_out(io, cx)?.is_pending() {
                if self.body.is_some() && io.poll_gone(cx) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                return Poll::Pending;
            }
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if !full {
                return Poll::Pending;
            }
        }
    }

    fn frame(
        &mut self,
        io: &mut Downstream,
        cx: &mut Context<'_>,
        frame: Option<Result<Frame<Bytes>, Error>>,
    ) -> io::Result<()> {
        let Some(frame) = frame.transpose().map_err(io::Error::other)? else {
            return self.end();
        };
        // Trailers, which nobody has asked for, are the end too.
        let Ok(data) = frame.into_data() else {
            return self.end();
        };
        let last = self.body.as_ref().is_some_and(|body| body.is_over());
        if data.is_empty() {
            return if last { self.end() } else { Ok(()) };
        }
        if last {
            self.body = None;
        }
        let mut size = [0; 18];
        let size = size_line(data.len(), &mut size);
        let end = if last { CRLF_LAST } else { CRLF };
        self.write(io, cx, [size, &data, end])
    }

    fn end(&mut self) -> io::Result<()> {
        self.body = None;
        self.out.extend_from_slice(LAST);
        Ok(())
    }

    /// Writes behind what waits, and keeps what the client does not take.
    fn write(
        &mut self,
        io: &mut Downstream,
        cx: &mut Context<'_>,
        pieces: [&[u8]; 3],
    ) -> io::Result<()> {
        let waiting = self.out.get(self.at..).unwrap_or_default();
        let [size, data, end] = pieces;
        let slices = [waiting, size, data, end].map(IoSlice::new);
        let slices = if waiting.is_empty() {
            slices.get(1..)
        } else {
            Some(&slices[..])
        };
        let mut taken = match Pin::new(io).poll_write_vectored(cx, slices.unwrap_or_default()) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(taken) => taken?,
            Poll::Pending => 0,
        };
        let first = taken.min(waiting.len());
        self.advance(first);
        taken -= first;
        for piece in pieces {
            let here = taken.min(piece.len());
            taken -= here;
            self.out
                .extend_from_slice(piece.get(here..).unwrap_or_default());
        }
        if !self.out.is_empty() {
            self.frames += 1;
        }
        Ok(())
    }

    fn poll_out(&mut self, io: &mut Downstream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waiting @ [_, ..]) = self.out.get(self.at..) {
            match ready!(Pin::new(&mut *io).poll_write(cx, waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.advance(taken),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, taken: usize) {
        self.at += taken;
        if self.at == self.out.len() && self.at > 0 {
            self.out = Vec::new();
            self.at = 0;
            self.frames = 0;
        }
    }
}

/// A chunk's length as hyper writes it.
fn size_line(mut length: usize, line: &mut [u8; 18]) -> &[u8] {
    let mut start = line.len();
    for byte in CRLF.iter().rev() {
        start -= 1;
        line[start] = *byte;
    }
    loop {
        start -= 1;
        line[start] = b"0123456789ABCDEF"[length & 15];
        length >>= 4;
        if length == 0 {
            return &line[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_what_hyper_writes() {
        for length in [1, 9, 10, 255, 256, 65_535, 1 << 20, usize::MAX] {
            let mut line = [0; 18];
            assert_eq!(
                size_line(length, &mut line),
                format!("{length:X}\r\n").as_bytes()
            );
        }
    }
}
