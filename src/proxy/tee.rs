//! The request body on its way to upstream, read by the observer as it passes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::client_body::ClientBody;
use crate::track::RequestWatch;

/// A request's body, watched.
#[derive(Debug)]
pub struct RequestBody {
    /// What has been read of it already.
    front: VecDeque<Bytes>,
    inner: ClientBody,
    watch: Option<Rc<RefCell<RequestWatch>>>,
}

impl RequestBody {
    /// `inner` behind what has been read of it.
    #[must_use]
    pub fn new(
        front: VecDeque<Bytes>,
        inner: ClientBody,
        watch: Option<Rc<RefCell<RequestWatch>>>,
    ) -> Self {
        let body = Self {
            front,
            inner,
            watch,
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
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                self.end();
                return Poll::Ready(None);
            }
        };
        if let (Some(data), Some(watch)) = (frame.data_ref(), &self.watch) {
            watch.borrow_mut().push(data);
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
