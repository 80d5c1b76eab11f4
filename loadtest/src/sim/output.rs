//! The bytes of one answer on their way out: framing, cutting into writes, and the ground truth of what left when.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::behaviour::Split;
use super::truth::Entry;
use crate::http1::{Conn, PeerGone};

/// Collects bytes and writes them as the behaviour's `split` says.
pub(crate) struct Output<'a> {
    pub(crate) conn: &'a mut Conn,
    pub(crate) entry: &'a mut Entry,
    pub(crate) rng: StdRng,
    pub(crate) framing: Framing,
    split: Split,
    keepalive: Option<Duration>,
    out: Vec<u8>,
    pending: Pending,
}

/// How events become bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    pub(crate) chunked: bool,
    pub(crate) crlf: bool,
}

/// What lies in the buffer and counts as sent once it is written.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) head: bool,
    pub(crate) frames: u32,
    pub(crate) token_frames: u32,
    pub(crate) tokens: u32,
    pub(crate) reasoning: u32,
    pub(crate) usage: bool,
    pub(crate) finish: Vec<String>,
}

const COALESCED: usize = 64 * 1024;

// === impl Output ===

impl<'a> Output<'a> {
    pub(crate) fn new(
        conn: &'a mut Conn,
        entry: &'a mut Entry,
        rng: StdRng,
        framing: Framing,
        split: Split,
        keepalive: Option<Duration>,
    ) -> Self {
        Self {
            conn,
            entry,
            rng,
            framing,
            split,
            keepalive,
            out: Vec::with_capacity(512),
            pending: Pending::default(),
        }
    }

    /// Adds bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Notes what the bytes added mean.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut Pending)) {
        change(&mut self.pending);
    }

    /// Adds an event with this data.
    pub(crate) fn event(&mut self, data: &[u8]) {
        self.framing.event(&mut self.out, data);
        self.pending.frames += 1;
    }

    /// Adds the first half of an event's bytes.
    pub(crate) fn half_event(&mut self, data: &[u8]) {
        let start = self.out.len();
        self.framing.event(&mut self.out, data);
        let half = start + (self.out.len() - start) / 2;
        self.out.truncate(half);
    }

    /// Adds the chunk that ends a chunked body.
    pub(crate) fn last_chunk(&mut self) {
        if self.framing.chunked {
            self.raw(b"0\r\n\r\n");
        }
    }

    /// The end of a frame: written now, unless writes are coalesced.
    pub(crate) async fn frame_end(&mut self) -> Result<(), PeerGone> {
        if self.split == Split::Coalesce && self.out.len() < COALESCED {
            return Ok(());
        }
        self.flush().await
    }

    /// Writes everything.
    pub(crate) async fn flush(&mut self) -> Result<(), PeerGone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let at = Instant::now();
        let out = std::mem::take(&mut self.out);
        let written = self.write(&out).await;
        self.out = out;
        self.out.clear();
        self.entry.commit(std::mem::take(&mut self.pending), at);
        written
    }

    /// Waits until `due`, after writing what is there; sends comments meanwhile if so configured.
    pub(crate) async fn wait_until(&mut self, due: Instant) -> Result<(), PeerGone> {
        if due <= Instant::now() {
            return Ok(());
        }
        self.flush().await?;
        while let Some(every) = self.keepalive {
            let next = Instant::now() + every;
            if next >= due {
                break;
            }
            self.conn.wait_until(next).await?;
            let mut comment = Vec::new();
            self.framing.block(&mut comment, b": keep-alive");
            self.conn.write_all(&comment).await?;
        }
        self.conn.wait_until(due).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), PeerGone> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = match self.split {
                Split::Frame | Split::Coalesce => rest.len(),
                Split::Bytes => 1,
                Split::Every(size) => size.clamp(1, rest.len()),
                Split::Random => self.rng.random_range(1..=64).min(rest.len()),
            };
            let (piece, after) = rest.split_at(len);
            self.conn.write_all(piece).await?;
            rest = after;
            if !rest.is_empty() {
                // Lets a reader on the same thread see the piece alone.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

// === impl Framing ===

impl Framing {
    fn event(self, out: &mut Vec<u8>, data: &[u8]) {
        let end: &[u8] = if self.crlf { b"\r\n\r\n" } else { b"\n\n" };
        self.chunk(out, &[b"data: ", data, end]);
    }

    fn block(self, out: &mut Vec<u8>, line: &[u8]) {
        let end: &[u8] = if self.crlf { b"\r\n\r\n" } else { b"\n\n" };
        self.chunk(out, &[line, end]);
    }

    /// One HTTP chunk an event, as uvicorn does.
    fn chunk(self, out: &mut Vec<u8>, parts: &[&[u8]]) {
        if self.chunked {
            let len: usize = parts.iter().map(|part| part.len()).sum();
            let _ = write!(out, "{len:x}\r\n");
        }
        for part in parts {
            out.extend_from_slice(part);
        }
        if self.chunked {
            out.extend_from_slice(b"\r\n");
        }
    }
}

// === impl Entry ===

impl Entry {
    fn commit(&mut self, sent: Pending, at: Instant) {
        if sent.head {
            self.head_sent = Some(at);
        }
        if sent.tokens > 0 {
            self.first_token_sent.get_or_insert(at);
            self.last_token_sent = Some(at);
        }
        self.frames += sent.frames;
        self.token_frames += sent.token_frames;
        self.output_tokens += sent.tokens;
        self.reasoning_tokens += sent.reasoning;
        self.usage_sent |= sent.usage;
        self.finish_reasons.extend(sent.finish);
    }
}
