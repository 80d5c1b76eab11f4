//! The request body on its way to upstream, read by the observer as it passes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::track::RequestWatch;

/// A client's body, watched and limited.
#[derive(Debug)]
pub struct RequestBody {
    /// What has been read of it already.
    front: VecDeque<Bytes>,
    inner: Incoming,
    watch: Option<Rc<RefCell<RequestWatch>>>,
    left: u64,
    limit: u64,
}

/// A chunked body went past `server.max_body_bytes`. (One with a length is refused before it is read.)
#[derive(Debug, thiserror::Error)]
#[error("the request body is larger than {0} bytes")]
pub struct TooLarge(u64);

impl RequestBody {
    /// `limit` 0 is none.
    #[must_use]
    pub fn new(inner: Incoming, watch: Option<Rc<RefCell<RequestWatch>>>, limit: u64) -> Self {
        Self::behind(VecDeque::new(), inner, watch, limit)
    }

    /// `inner` behind what has been read of it.
    #[must_use]
    pub fn behind(
        front: VecDeque<Bytes>,
        inner: Incoming,
        watch: Option<Rc<RefCell<RequestWatch>>>,
        limit: u64,
    ) -> Self {
        let body = Self {
            front,
            inner,
            watch,
            left: if limit == 0 { u64::MAX } else { limit },
            limit,
        };
        if body.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&self) {
        if let Some(watch) = &self.watch {
            watch.borrow_mut().end();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = match self.front.pop_front() {
            Some(data) => Some(Ok(Frame::data(data))),
            None => ready!(Pin::new(&mut self.inner).poll_frame(cx)),
        };
        let frame = match next {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => {
                self.end();
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return Poll::Ready(Some(Err(TooLarge(self.limit).into())));
            };
            self.left = left;
            if let Some(watch) = &self.watch {
                watch.borrow_mut().push(data);
            }
        }
        if self.is_end_stream() {
            self.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.front.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.front.is_empty() {
            self.inner.size_hint()
        } else {
            SizeHint::default()
        }
    }
}
