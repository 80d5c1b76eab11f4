//! The request body as the client sends it, within our limits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// A body that may be neither too long nor too slow.
#[derive(Debug)]
pub struct ClientBody {
    inner: Incoming,
    left: u64,
    limits: Limits,
    /// Since the client sends nothing.
    waiting: Option<Pin<Box<Sleep>>>,
}

/// What a client's body is held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes; 0 is no limit.
    pub bytes: u64,
    /// Until the next piece of it.
    pub read_timeout: Option<Duration>,
}

/// Why it is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Chunked, and past `server.max_body_bytes`. (One with a length is refused before it is read.)
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    /// Nothing came for `server.body_read_timeout`.
    #[error("no byte of the request body came for {0:?}")]
    TooSlow(Duration),
}

impl ClientBody {
    /// `inner` under `limits`.
    #[must_use]
    pub fn new(inner: Incoming, limits: Limits) -> Self {
        Self {
            inner,
            left: if limits.bytes == 0 {
                u64::MAX
            } else {
                limits.bytes
            },
            limits,
            waiting: None,
        }
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Refused> {
        let Some(limit) = self.limits.read_timeout else {
            return Poll::Pending;
        };
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        waiting.as_mut().poll(cx).map(|()| Refused::TooSlow(limit))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            return self
                .poll_patience(cx)
                .map(|refused| Some(Err(refused.into())));
        };
        self.waiting = None;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(Refused::TooLarge(self.limits.bytes).into()))),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
