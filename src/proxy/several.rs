//! A request on its way to one of several upstreams, and to another if that cannot do anything twice.
//!
//! Sent again is what no upstream has seen (no connection, no byte written), what one has refused with 503 before it began,
//! and a GET or HEAD whose connection broke; never once the client has got anything, and a body only as far as it is
//! kept (`gateway.max_head`). A head that does not come is waited for: it may be a long prefill.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};

use super::body::ProxyBody;
use super::client_body::ClientBody;
use super::forward::{Asked, Proxy, Relay};
use super::reply::Reply;
use super::tee::RequestBody;
use crate::gateway::scan::{Found, Scanner};
use crate::gateway::{Balance, Pick, Place, Want};
use crate::metrics::upstreams::Rejected;
use crate::outcome::{ErrorType, Outcome};
use crate::track::RequestWatch;
use crate::upstream::{Error, Outgoing};

/// What a client that was turned away is told to wait, in seconds.
const RETRY_AFTER: u32 = 1;

/// A request as far as it has come.
pub(super) struct Received {
    pub(super) head: request::Parts,
    /// What of the body has been read.
    pub(super) front: VecDeque<Bytes>,
    pub(super) body: ClientBody,
    /// There may be more of it.
    pub(super) unread: bool,
    pub(super) watch: Option<Rc<RefCell<RequestWatch>>>,
}

impl Proxy {
    /// Serves a request by one of several upstreams.
    pub(super) async fn share_out(
        &self,
        balance: &Balance,
        mut asked: Asked,
        mut received: Received,
        is_http11: bool,
    ) -> Response<ProxyBody> {
        if let Some(models) = models(balance, &received.head) {
            return models;
        }
        let mut want = Want::default();
        if asked.upgrade.is_none() {
            match received.model(balance.settings().max_head).await {
                Ok(model) => want.model = model,
                Err(error) => return self.fail(&Error::RequestBody(error), asked),
            }
        }
        if let Some(name) = &balance.settings().affinity
            && let Some(value) = received.head.headers.get(name)
        {
            want.session(value.as_bytes());
        }
        let mut place = match first(balance, &want).await {
            Ok(place) => Box::new(place),
            Err(why) => return self.turn_away(balance, why, asked),
        };
        let method = received.head.method.clone();
        let body = RequestBody::new(received.front, received.body, received.watch);
        let request = Request::from_parts(received.head, body);
        let mut outgoing = match Outgoing::new(request, balance.settings().max_head) {
            Ok(outgoing) => outgoing,
            Err(error) => return self.fail(&error, asked),
        };
        let mut relay = Relay {
            shared: is_http11.then_some(&asked.serving),
            spoke: false,
        };
        let mut left = balance.settings().retries;
        loop {
            if let (Some(track), Some(books)) = (&mut asked.track, place.books()) {
                track.toward(books);
            }
            place.sending();
            let result = place.upstream().attempt(&mut outgoing, &mut relay).await;
            let again = match &result {
                Ok(answered) => {
                    let sent = outgoing.head_sent().unwrap_or(answered.received());
                    let waited = answered.received().saturating_duration_since(sent);
                    place.answered(&answered.head, waited);
                    answered.head.status == StatusCode::SERVICE_UNAVAILABLE
                }
                Err(error) => {
                    place.broke(error);
                    may_repeat(error, &method, outgoing.has_written())
                }
            };
            if again && left > 0 && !relay.spoke && outgoing.is_whole() {
                left -= 1;
                want.tried.push(place.id());
                if let Pick::Place(next) = balance.pick(&want, Instant::now()) {
                    outgoing.rewind();
                    place.retried();
                    *place = next;
                    continue;
                }
            }
            return match result {
                Ok(answered) => {
                    let upstream = Rc::clone(place.upstream());
                    self.answer(answered.with(&upstream, outgoing), asked, Some(place))
                }
                Err(error) => self.fail(&error, asked),
            };
        }
    }

    fn turn_away(&self, balance: &Balance, why: Rejected, asked: Asked) -> Response<ProxyBody> {
        balance.rejected(why);
        let message = match why {
            Rejected::Full => "all upstream servers are busy",
            Rejected::Timeout => "no upstream server had a place in time",
            Rejected::NoUpstream => "there is no upstream server",
        };
        let reply = Reply::new(StatusCode::SERVICE_UNAVAILABLE, message).after(RETRY_AFTER);
        asked.refuse(Outcome::Error(ErrorType::ProxyRejected), &reply)
    }
}

impl Received {
    /// Reads the body until its model is known, and not further.
    async fn model(
        &mut self,
        limit: usize,
    ) -> Result<Option<Box<str>>, Box<dyn std::error::Error + Send + Sync>> {
        if self.head.headers.contains_key(CONTENT_ENCODING) {
            return Ok(None);
        }
        let mut scanner = Scanner::default();
        let mut left = limit;
        let mut look = |piece: &Bytes| {
            let near = piece.get(..left).unwrap_or(piece);
            left -= near.len();
            match scanner.push(near) {
                None if left == 0 => Some(Found::Nothing),
                found => found,
            }
        };
        for piece in &self.front {
            if let Some(found) = look(piece) {
                return Ok(found.model());
            }
        }
        while self.unread && !self.body.is_end_stream() {
            let Some(frame) = self.body.frame().await else {
                break;
            };
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let found = look(&data);
            self.front.push_back(data);
            if let Some(found) = found {
                return Ok(found.model());
            }
        }
        Ok(None)
    }
}

impl Found {
    fn model(self) -> Option<Box<str>> {
        match self {
            Self::Model(name) => Some(name),
            Self::Nothing => None,
        }
    }
}

/// A place for a request that has not been tried anywhere.
async fn first(balance: &Balance, want: &Want) -> Result<Place, Rejected> {
    let (at_once, later) = match balance.pick(want, Instant::now()) {
        Pick::Place(place) => return Ok(place),
        Pick::Busy => (Rejected::Full, Rejected::Timeout),
        Pick::Nobody => (Rejected::NoUpstream, Rejected::NoUpstream),
    };
    let waiting = balance.wait(want).ok_or(at_once)?;
    // What became free before it waited has not been handed to it.
    if let Pick::Place(place) = balance.pick(want, Instant::now()) {
        return Ok(place);
    }
    let seat = waiting.seat(balance.settings().queue_timeout).await;
    seat.map(|seat| balance.seated(seat)).ok_or(later)
}

/// Whether a request that failed so may be sent to another upstream.
fn may_repeat(error: &Error, method: &Method, written: bool) -> bool {
    match error {
        Error::Connect { .. } | Error::ConnectTimeout { .. } | Error::Tls { .. } => true,
        Error::ClosedBeforeHead { .. } | Error::BrokenBeforeHead { .. } => {
            !written || matches!(*method, Method::GET | Method::HEAD)
        }
        Error::HeadTimeout(_)
        | Error::BadHead(_)
        | Error::BadRequest(_)
        | Error::RequestBody(_)
        | Error::ClosedInBody
        | Error::BrokenInBody(_)
        | Error::BadBody(_) => false,
    }
}

/// The answer to `GET /v1/models`, if it is ours to give: what all upstreams list, to whoever may see it.
fn models(balance: &Balance, head: &request::Parts) -> Option<Response<ProxyBody>> {
    if head.method != Method::GET || head.uri.path() != "/v1/models" {
        return None;
    }
    // The lists may have been read with a key that the client does not have. Then an upstream says so.
    if let Some(key) = balance.registry().key()
        && !carries(&head.headers, key.expose())
    {
        return None;
    }
    let table = balance.table();
    let mut response = Response::new(ProxyBody::Local(Full::new(table.union()?.clone())));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Some(response)
}

/// Whether a client has the key, in a time that does not tell how much of it.
fn carries(headers: &HeaderMap, key: &str) -> bool {
    let value = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some(said) = value.and_then(|value| value.strip_prefix(b"Bearer ")) else {
        return false;
    };
    let differences = said
        .iter()
        .zip(key.as_bytes())
        .fold(0, |so_far, (a, b)| so_far | (a ^ b));
    said.len() == key.len() && differences == 0
}
