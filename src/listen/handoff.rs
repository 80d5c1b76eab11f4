//! Streams that are taken from hyper once their head is there.
//!
//! hyper holds two buffers of 8 KiB as long as a connection lives, and copies of both heads. What is left to do for a
//! stream over HTTP/1.1 is to write chunks, and to see whether the client is still there; [`Streaming`] does that with
//! nothing in hand while nothing comes. Only what is plain is taken: the request has been read to its end, the answer is
//! a 200 of unknown length, and no trailers were asked for. All else stays with hyper.
//!
//! [`Streaming`]: super::streaming::Streaming

use std::cell::RefCell;
use std::rc::Rc;

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use crate::proxy::body::{ForwardBody, ProxyBody};

/// Where an answer waits that hyper is not to write. One per connection.
#[derive(Debug, Default)]
pub struct Handoff(RefCell<Option<Box<Taken>>>);

/// Such an answer.
#[derive(Debug)]
pub(super) struct Taken {
    /// All but what says how the connection goes on, and the empty line.
    pub(super) head: Vec<u8>,
    pub(super) body: Box<ForwardBody>,
    /// The client wants the connection closed behind it.
    pub(super) close: bool,
}

/// A request whose answer may be taken.
#[derive(Debug)]
pub struct Wish {
    handoff: Rc<Handoff>,
    close: bool,
}

// === impl Handoff ===

impl Handoff {
    /// Whether a request's answer may be taken, as far as its head tells.
    #[must_use]
    pub fn wish<B>(self: &Rc<Self>, request: &Request<B>) -> Option<Wish> {
        let headers = request.headers();
        if request.version() != Version::HTTP_11
            || matches!(*request.method(), Method::HEAD | Method::CONNECT)
            || headers.contains_key(TE)
        {
            return None;
        }
        let tokens = headers.get_all(CONNECTION).into_iter();
        let close = tokens
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
        Some(Wish {
            handoff: Rc::clone(self),
            close,
        })
    }

    /// Whether an answer waits.
    pub(super) fn is_full(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// The answer that waits.
    pub(super) fn take(&self) -> Option<Box<Taken>> {
        self.0.take()
    }
}

// === impl Wish ===

impl Wish {
    /// Takes the answer, and then never returns: hyper's connection is dropped. Returns one that is hyper's to write.
    pub async fn grant(self, response: Response<ProxyBody>) -> Response<ProxyBody> {
        if !is_plain(&response) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let body = match body {
            ProxyBody::Forward(body) if body.is_request_sent() => body,
            body => return Response::from_parts(parts, body),
        };
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        for (name, value) in &parts.headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        drop(parts);
        self.handoff.0.replace(Some(Box::new(Taken {
            head,
            body,
            close: self.close,
        })));
        std::future::pending().await
    }
}

/// Whether hyper would write it in chunks and find nothing to put right.
fn is_plain(response: &Response<ProxyBody>) -> bool {
    let body = response.body();
    response.status() == StatusCode::OK
        && response.version() == Version::HTTP_11
        && !body.is_end_stream()
        && body.size_hint().exact().is_none()
        && !response
            .headers()
            .keys()
            .any(|name| [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TRAILER].contains(name))
        && response.extensions().get::<ReasonPhrase>().is_none()
}
