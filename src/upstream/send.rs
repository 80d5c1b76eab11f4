//! Sending one request: its head and its body, as the body comes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{Method, Request};
use http_body::Body;
use smallvec::SmallVec;
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

use super::Error;
use super::head::{RequestFraming, write_request};
use super::stream::Stream;

/// Bytes that are gathered before they are written: enough for one system call's worth, little enough that a slow
/// upstream slows the client down.
const GATHER: usize = 64 * 1024;
/// Slices of one vectored write.
const SLICES: usize = 16;
/// How long a body with `Expect: 100-continue` waits for upstream's word, as curl does.
const EXPECT_WAIT: Duration = Duration::from_secs(1);

/// A request on its way out.
#[derive(Debug)]
pub(super) struct Sending<B> {
    method: Method,
    body: Option<B>,
    framing: RequestFraming,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Bytes of the head that are not written yet.
    head_left: usize,
    head_sent: Option<Instant>,
    written: bool,
    /// `Expect: 100-continue`: the body waits until upstream asks for it.
    hold: Option<Pin<Box<Sleep>>>,
    broken: bool,
    /// What has been queued since the beginning, while it may have to be sent again.
    kept: Option<Box<Kept<B>>>,
}

/// A request as it is on the wire, as far as its body has been read.
#[derive(Debug)]
struct Kept<B> {
    pieces: SmallVec<[Bytes; 4]>,
    head: usize,
    /// Bytes that may still be added.
    left: usize,
    /// A body that nobody has asked for.
    held: Option<B>,
}

/// Why sending ended early.
#[derive(Debug)]
pub(super) enum SendError {
    /// Upstream does not take it.
    Io(io::Error),
    /// The client does not send it.
    Body(Box<dyn std::error::Error + Send + Sync>),
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(request: Request<B>) -> Result<Self, Error> {
        let no_body = request.body().is_end_stream();
        let framing = if no_body || request.headers().contains_key(CONTENT_LENGTH) {
            RequestFraming::AsIs
        } else {
            RequestFraming::Chunked
        };
        let head = write_request(&request, framing)?;
        let expects = !no_body
            && request
                .headers()
                .get(EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let (parts, body) = request.into_parts();
        Ok(Self {
            method: parts.method,
            body: (!no_body).then_some(body),
            framing,
            queued: head.len(),
            head_left: head.len(),
            queue: VecDeque::from([Bytes::from(head)]),
            head_sent: None,
            written: false,
            hold: expects.then(|| Box::pin(tokio::time::sleep(EXPECT_WAIT))),
            broken: false,
            kept: None,
        })
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    pub(super) fn head_sent(&self) -> Option<Instant> {
        self.head_sent
    }

    /// A byte has been written.
    pub(super) fn has_written(&self) -> bool {
        self.written
    }

    /// Everything is written, so the connection is upstream's again.
    pub(super) fn is_done(&self) -> bool {
        self.is_over() && !self.broken
    }

    /// Nothing more will be sent, for whatever reason.
    pub(super) fn is_over(&self) -> bool {
        self.broken || (self.body.is_none() && self.queue.is_empty())
    }

    /// Makes ready for another connection, if that is safe: nothing has been written, so nothing is lost.
    pub(super) fn rewind(&mut self) -> bool {
        self.broken = false;
        !self.written
    }

    /// Keeps what is sent, until it is more than so many bytes of the body. To be called before anything is sent.
    pub(super) fn keep(&mut self, left: usize) {
        self.kept = Some(Box::new(Kept {
            pieces: self.queue.iter().cloned().collect(),
            head: self.head_left,
            left,
            held: None,
        }));
    }

    /// Whether all that has been sent is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// It will not be sent again.
    pub(super) fn settle(&mut self) {
        self.kept = None;
    }

    /// Begins anew with what is kept. The rest of the body follows as it comes.
    pub(super) fn replay(&mut self) -> bool {
        let Some(kept) = &mut self.kept else {
            return false;
        };
        self.queue = kept.pieces.iter().cloned().collect();
        self.queued = self.queue.iter().map(Bytes::len).sum();
        self.head_left = kept.head;
        self.head_sent = None;
        self.written = false;
        self.broken = false;
        if let Some(held) = kept.held.take() {
            self.body = Some(held);
            self.hold = Some(Box::pin(tokio::time::sleep(EXPECT_WAIT)));
        }
        true
    }

    /// Upstream has said 100: whether a body was waiting for it.
    pub(super) fn release(&mut self) -> bool {
        self.hold.take().is_some()
    }

    /// Upstream has answered a request whose body it never asked for: the body stays with the client.
    pub(super) fn abandon_held_body(&mut self) {
        if self.hold.take().is_some() {
            let body = self.body.take();
            self.broken = true;
            if let Some(kept) = &mut self.kept {
                kept.held = body;
            }
        }
    }

    /// Sends what can be sent now. Ready when all is sent, or when no more can be.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<(), SendError>> {
        if self.broken {
            return Poll::Ready(Ok(()));
        }
        loop {
            // The body first: one that came with its head leaves with it, in one write.
            let mut starved = false;
            while self.queued < GATHER && self.queue.len() < SLICES && !starved {
                match self.poll_body(cx) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => break,
                    Poll::Ready(Err(error)) => {
                        self.broken = true;
                        return Poll::Ready(Err(SendError::Body(error)));
                    }
                    Poll::Pending => starved = true,
                }
            }
            if self.queue.is_empty() {
                // TLS holds what it has accepted until it is flushed.
                return match Pin::new(stream).poll_flush(cx) {
                    Poll::Ready(Ok(())) if starved => Poll::Pending,
                    flushed => flushed.map_err(SendError::Io),
                };
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(bytes);
                used += 1;
            }
            let slices = slices.get(..used).unwrap_or_default();
            match Pin::new(&mut *stream).poll_write_vectored(cx, slices) {
                Poll::Ready(Ok(0)) => {
                    self.broken = true;
                    return Poll::Ready(Err(SendError::Io(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(count)) => self.advance(count),
                Poll::Ready(Err(error)) => {
                    self.broken = true;
                    return Poll::Ready(Err(SendError::Io(error)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Queues the next piece of the body: true if there was one, false if there is no more.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Box<dyn std::error::Error + Send + Sync>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(false));
        };
        if let Some(wait) = &mut self.hold {
            if wait.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.hold = None;
        }
        let data = match std::task::ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Request trailers: vLLM has no use for them, and a `Content-Length` among them is an attack.
                Err(_trailers) => return Poll::Ready(Ok(true)),
            },
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            None => {
                self.end_body();
                return Poll::Ready(Ok(false));
            }
        };
        if data.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.framing == RequestFraming::Chunked {
            self.push(Bytes::from(format!("{:x}\r\n", data.len())));
            self.push(data);
            self.push(Bytes::from_static(b"\r\n"));
        } else {
            self.push(data);
        }
        if self.body.as_ref().is_some_and(Body::is_end_stream) {
            self.end_body();
        }
        Poll::Ready(Ok(true))
    }

    fn end_body(&mut self) {
        self.body = None;
        if self.framing == RequestFraming::Chunked {
            self.push(Bytes::from_static(b"0\r\n\r\n"));
        }
    }

    fn push(&mut self, bytes: Bytes) {
        if let Some(kept) = &mut self.kept {
            match kept.left.checked_sub(bytes.len()) {
                Some(left) => {
                    kept.left = left;
                    kept.pieces.push(bytes.clone());
                }
                None => self.kept = None,
            }
        }
        self.queued += bytes.len();
        self.queue.push_back(bytes);
    }

    fn advance(&mut self, mut count: usize) {
        self.written = true;
        self.queued = self.queued.saturating_sub(count);
        if self.head_left > 0 {
            self.head_left = self.head_left.saturating_sub(count);
            if self.head_left == 0 {
                self.head_sent = Some(Instant::now());
            }
        }
        while let Some(front) = self.queue.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.queue.pop_front();
        }
        if self.body.is_none() {
            // A stream lives long after its request is sent.
            self.queue.shrink_to_fit();
        }
    }
}
