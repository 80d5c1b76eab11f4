//! A connection with a read buffer, whose writes and waits notice that the peer has left.

use std::io::ErrorKind;
use std::time::Instant;

use tokio::io::Interest;

use super::BodyKind;
use crate::net::Socket;

/// The peer closed or reset its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerGone;

/// The buffered connection.
#[derive(Debug)]
pub(crate) struct Conn {
    socket: Socket,
    pub(crate) buf: Vec<u8>,
    writes: u32,
}

/// What a peer sends ahead while we answer is kept, up to here: then we no longer read, and its leaving shows
/// only when a write fails.
const MAX_AHEAD: usize = 1 << 20;
const READ: usize = 16 * 1024;

impl Conn {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket,
            buf: Vec::new(),
            writes: 0,
        }
    }

    /// Reads once more into the buffer; waits for at least one byte.
    pub(crate) async fn fill(&mut self) -> Result<usize, PeerGone> {
        loop {
            self.socket.readable().await.map_err(|_| PeerGone)?;
            match self.read_now() {
                Ok(0) => {}
                Ok(n) => return Ok(n),
                Err(gone) => return Err(gone),
            }
        }
    }

    /// Takes what is there without waiting: `Ok(0)` for nothing new.
    pub(crate) fn read_now(&mut self) -> Result<usize, PeerGone> {
        let old = self.buf.len();
        self.buf.resize(old + READ, 0);
        let read = self.socket.try_read(&mut self.buf[old..]);
        self.buf.truncate(old + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(PeerGone),
            Ok(n) => Ok(n),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(_) => Err(PeerGone),
        }
    }

    /// Writes all of `bytes`, reading aside what the peer sends meanwhile.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), PeerGone> {
        while !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(0) => return Err(PeerGone),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let interest = if self.buf.len() < MAX_AHEAD {
                        Interest::READABLE | Interest::WRITABLE
                    } else {
                        Interest::WRITABLE
                    };
                    let ready = self.socket.ready(interest).await.map_err(|_| PeerGone)?;
                    if ready.is_readable() {
                        self.read_now()?;
                    }
                }
                Err(_) => return Err(PeerGone),
            }
        }
        // Non-blocking calls never yield, so a stream at full speed would starve every other task of this thread,
        // the reactor included.
        self.writes = self.writes.wrapping_add(1);
        if self.writes.is_multiple_of(32) {
            self.read_now()?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Waits until `deadline`, or until the peer leaves.
    pub(crate) async fn wait_until(&mut self, deadline: Instant) -> Result<(), PeerGone> {
        let sleep = tokio::time::sleep_until(deadline.into());
        tokio::pin!(sleep);
        tokio::select! {
            () = &mut sleep => Ok(()),
            gone = self.gone() => Err(gone),
        }
    }

    /// Resolves when the peer leaves. What it sends instead is kept.
    pub(crate) async fn gone(&mut self) -> PeerGone {
        loop {
            if self.buf.len() >= MAX_AHEAD {
                return std::future::pending().await;
            }
            if let Err(gone) = self.fill().await {
                return gone;
            }
        }
    }

    /// Reads a body into `body`, `on_progress` being told of each piece. `Ok(false)`: malformed.
    pub(crate) async fn read_body(
        &mut self,
        kind: BodyKind,
        body: &mut Vec<u8>,
    ) -> Result<bool, PeerGone> {
        match kind {
            BodyKind::None => Ok(true),
            BodyKind::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                while self.buf.len() < length {
                    self.fill().await?;
                }
                body.extend(self.buf.drain(..length));
                Ok(true)
            }
            BodyKind::Chunked => self.read_chunked(body).await,
            BodyKind::UntilClose => {
                while self.fill().await.is_ok() {}
                body.append(&mut self.buf);
                Ok(true)
            }
        }
    }

    async fn read_chunked(&mut self, body: &mut Vec<u8>) -> Result<bool, PeerGone> {
        loop {
            let (start, size) = match httparse::parse_chunk_size(&self.buf) {
                Ok(httparse::Status::Complete((start, size))) => (start, size),
                Ok(httparse::Status::Partial) => {
                    self.fill().await?;
                    continue;
                }
                Err(_) => return Ok(false),
            };
            let Ok(size) = usize::try_from(size) else {
                return Ok(false);
            };
            while self.buf.len() < start + size + 2 {
                self.fill().await?;
            }
            body.extend_from_slice(&self.buf[start..start + size]);
            if size > 0 {
                self.buf.drain(..start + size + 2);
                continue;
            }
            // Trailers end with an empty line; usually there are none and the line is all.
            self.buf.drain(..start);
            loop {
                if let Some(end) = memchr::memchr(b'\n', &self.buf) {
                    let empty = end <= 1;
                    self.buf.drain(..=end);
                    if empty {
                        return Ok(true);
                    }
                } else {
                    self.fill().await?;
                }
            }
        }
    }

    /// Closes with FIN.
    pub(crate) fn close(self) {
        drop(self.socket);
    }

    /// Closes with RST.
    pub(crate) fn reset(self) {
        self.socket.reset();
    }
}
