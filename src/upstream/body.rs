//! Receiving one response: its head, then its body frame by frame.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, response};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use super::chunked::Chunked;
use super::framing::Framing;
use super::head::{MAX_HEAD, Parsed, parse_response};
use super::send::{SendError, Sending};
use super::stream::{Stream, Tunnel};
use super::{Error, Events, Upstream};

/// A response on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Gone once the body is complete.
    stream: Option<Stream>,
    method: Method,
    /// Before the head is complete: what there is of it. After: body bytes that came with it.
    carry: Vec<u8>,
    state: State,
    keep_alive: bool,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Box<Chunked>),
    Close,
    /// All data is read; these are still to be handed on.
    Trailers(HeaderMap),
    Tunnel,
    Done,
}

/// What one step of decoding brought.
enum Step {
    Frame(Frame<Bytes>),
    /// All of the input was framing.
    More,
    End,
}

impl Incoming {
    pub(super) fn new(stream: Stream, method: Method) -> Self {
        Self {
            stream: Some(stream),
            method,
            carry: Vec::new(),
            state: State::Head,
            keep_alive: false,
        }
    }

    /// Sends the request and reads until the final head is there.
    pub(super) fn poll_head<B>(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending<B>,
        scratch: &mut [u8],
        events: &mut dyn Events,
    ) -> Poll<Result<response::Parts, Error>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(Error::BadHead("already read")));
        };
        loop {
            match sending.poll(cx, stream) {
                Poll::Ready(Err(SendError::Body(error))) => {
                    return Poll::Ready(Err(Error::RequestBody(error)));
                }
                Poll::Ready(Err(SendError::Io(source))) if !sending.has_written() => {
                    return Poll::Ready(Err(Error::BrokenBeforeHead {
                        sent: !stream.is_reused(),
                        source,
                    }));
                }
                // Upstream stopped listening; it may have answered all the same (413, 401).
                Poll::Ready(Err(SendError::Io(_)) | Ok(())) | Poll::Pending => {}
            }
            let mut buffer = ReadBuf::new(scratch);
            if let Err(source) = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                return Poll::Ready(Err(Error::BrokenBeforeHead { sent: true, source }));
            }
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Err(Error::ClosedBeforeHead { sent: true }));
            }
            // Nearly always the head is whole in one read, and is parsed where it lies.
            let whole = std::mem::take(&mut self.carry);
            let joined = if whole.is_empty() {
                None
            } else {
                Some([&whole, read].concat())
            };
            let mut rest = joined.as_deref().unwrap_or(read);
            loop {
                match parse_response(rest, &self.method)? {
                    Parsed::Partial => {
                        self.carry = rest.to_vec();
                        break;
                    }
                    Parsed::Informational(head, length) => {
                        // A 100 that a waiting body is released by reaches the client by way of hyper, which says it as
                        // soon as the body is read.
                        if !(head.status == 100 && sending.release()) {
                            events.informational(&head);
                        }
                        rest = rest.get(length..).unwrap_or_default();
                        if rest.is_empty() {
                            break;
                        }
                    }
                    Parsed::Final(head, length) => {
                        sending.abandon_held_body();
                        self.carry = rest.get(length..).unwrap_or_default().to_vec();
                        self.keep_alive = head.keep_alive;
                        self.state = match head.framing {
                            Framing::Empty => State::Done,
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::Chunked(Box::new(Chunked::new())),
                            Framing::Close => State::Close,
                            Framing::Tunnel => State::Tunnel,
                        };
                        return Poll::Ready(Ok(head.parts));
                    }
                }
            }
            if self.carry.len() > MAX_HEAD {
                return Poll::Ready(Err(Error::BadHead("too long")));
            }
        }
    }

    /// The next frame of the body. After `None` or an error the stream is gone.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if matches!(self.state, State::Done | State::Head | State::Tunnel) {
                return Poll::Ready(None);
            }
            if let State::Trailers(trailers) = &mut self.state {
                let trailers = std::mem::take(trailers);
                self.state = State::Done;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let failure = match &self.state {
                State::Chunked(chunked) => chunked.failure(),
                _ => None,
            };
            let step = if let Some(reason) = failure {
                Err(Error::BadBody(reason))
            } else if self.carry.is_empty() {
                let Some(stream) = &mut self.stream else {
                    return Poll::Ready(None);
                };
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(stream).poll_read(cx, &mut buffer))
                    .map(|()| buffer.filled().len());
                match read {
                    Ok(0) => self.end_of_stream(),
                    Ok(read) => self.decode(scratch.get_mut(..read).unwrap_or_default()),
                    Err(source) => Err(Error::BrokenInBody(source)),
                }
            } else {
                let mut carry = std::mem::take(&mut self.carry);
                self.decode(&mut carry)
            };
            match step {
                Ok(Step::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Step::More) => {}
                Ok(Step::End) => return Poll::Ready(None),
                Err(error) => {
                    self.state = State::Done;
                    self.stream = None;
                    self.keep_alive = false;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn decode(&mut self, input: &mut [u8]) -> Result<Step, Error> {
        let (data, consumed) = match &mut self.state {
            State::Length(left) => {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= here as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                (here, here)
            }
            State::Chunked(chunked) => {
                let decoded = chunked.decode(input).map_err(Error::BadBody)?;
                if chunked.is_done() {
                    self.state = chunked.take_trailers().map_or(State::Done, State::Trailers);
                }
                (decoded.data, decoded.consumed)
            }
            State::Close => (input.len(), input.len()),
            State::Head | State::Trailers(_) | State::Tunnel | State::Done => return Ok(Step::End),
        };
        if consumed < input.len() {
            // Bytes that nobody asked for: whatever they are, they are not the next answer.
            self.keep_alive = false;
        }
        Ok(if data > 0 {
            Step::Frame(Frame::data(Bytes::copy_from_slice(
                input.get(..data).unwrap_or_default(),
            )))
        } else if matches!(self.state, State::Done) {
            Step::End
        } else {
            Step::More
        })
    }

    fn end_of_stream(&mut self) -> Result<Step, Error> {
        match self.state {
            State::Close => {
                self.state = State::Done;
                Ok(Step::End)
            }
            State::Length(_) | State::Chunked(_) => Err(Error::ClosedInBody),
            State::Head | State::Trailers(_) | State::Tunnel | State::Done => Ok(Step::End),
        }
    }
}

/// The response body. Dropping it before its end closes the connection, by which vLLM learns that nobody is listening.
#[derive(Debug)]
pub struct UpstreamBody<B> {
    upstream: Rc<Upstream>,
    incoming: Incoming,
    sending: Sending<B>,
}

impl<B> UpstreamBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(upstream: Rc<Upstream>, incoming: Incoming, sending: Sending<B>) -> Self {
        let mut body = Self {
            upstream,
            incoming,
            sending,
        };
        body.settle();
        body
    }

    /// After a 101: the connection itself.
    #[must_use]
    pub fn into_tunnel(mut self) -> Option<Tunnel> {
        if !matches!(self.incoming.state, State::Tunnel) {
            return None;
        }
        Some(Tunnel {
            stream: self.incoming.stream.take()?,
            early: Bytes::from(std::mem::take(&mut self.incoming.carry)),
        })
    }

    /// Whether the request has been sent to its end.
    #[must_use]
    pub fn is_request_sent(&self) -> bool {
        self.sending.is_done()
    }

    /// Closes the connection now: whatever upstream is doing is no longer wanted.
    pub fn abandon(&mut self) {
        self.incoming.stream = None;
        self.incoming.state = State::Done;
    }

    /// Gives the connection back once both directions are complete; closes it if it cannot be used again.
    fn settle(&mut self) {
        if !matches!(self.incoming.state, State::Done) {
            return;
        }
        if let Some(stream) = self.incoming.stream.take()
            && self.incoming.keep_alive
            && self.incoming.carry.is_empty()
            && self.sending.is_done()
        {
            self.upstream.keep(stream);
        }
    }
}

impl<B> Body for UpstreamBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if !this.sending.is_done()
            && let Some(stream) = &mut this.incoming.stream
            && let Poll::Ready(Err(SendError::Body(error))) = this.sending.poll(cx, stream)
        {
            this.incoming.stream = None;
            this.incoming.state = State::Done;
            return Poll::Ready(Some(Err(Error::RequestBody(error))));
        }
        let frame = ready!(
            this.incoming
                .poll_frame(cx, &mut this.upstream.scratch.borrow_mut())
        );
        this.settle();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.incoming.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self.incoming.state {
            State::Length(left) => SizeHint::with_exact(left),
            State::Done => SizeHint::with_exact(0),
            State::Head | State::Chunked(_) | State::Close | State::Trailers(_) | State::Tunnel => {
                SizeHint::default()
            }
        }
    }
}
