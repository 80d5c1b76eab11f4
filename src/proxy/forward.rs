//! The service behind every client connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderName, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{ForwardBody, ProxyBody};
use super::client_body::{ClientBody, Limits};
use super::reply::Reply;
use super::several::Received;
use super::tee::RequestBody;
use super::usage::{Injection, Restore};
use super::{error, guard, tunnel};
use crate::classify::{Endpoint, Route, classify};
use crate::config::Config;
use crate::gateway::{Balance, Place};
use crate::inject::Added;
use crate::listen::{Handoff, Serving, Shared};
use crate::log_limit::LogLimit;
use crate::metrics::polled::Books;
use crate::outcome::{ErrorType, Outcome};
use crate::task::Tasks;
use crate::track::{Recorder, Track};
use crate::upstream::{Answer, Error, Events, Informational, Upstream};

/// One worker's proxy.
#[derive(Debug)]
pub struct Proxy {
    backend: Backend,
    /// `None`: forwards blind.
    recorder: Option<Rc<Recorder>>,
    tasks: Rc<Tasks>,
    limits: Limits,
    injection: Option<Rc<Injection>>,
    stall_after: Duration,
    idle_timeout: Option<Duration>,
    upstream_errors: LogLimit,
}

/// Where requests go.
#[derive(Debug)]
pub enum Backend {
    /// All to this one.
    One {
        /// It.
        upstream: Rc<Upstream>,
        /// Where its requests are booked.
        books: Option<Books>,
    },
    /// Each to one of several.
    Several(Balance),
}

/// What is known of a request until its answer comes.
pub(super) struct Asked {
    pub(super) track: Option<Track>,
    pub(super) serving: Serving,
    pub(super) upgrade: Option<OnUpgrade>,
    added: Added,
    endpoint: Option<Endpoint>,
    started: Instant,
}

impl Proxy {
    /// A proxy in front of what `backend` says.
    #[must_use]
    pub fn new(
        config: &Config,
        backend: Backend,
        recorder: Option<Rc<Recorder>>,
        tasks: Rc<Tasks>,
    ) -> Rc<Self> {
        Rc::new(Self {
            backend,
            recorder,
            tasks,
            limits: Limits {
                bytes: config.server.max_body_bytes,
                read_timeout: config.server.body_read_timeout,
            },
            injection: Injection::new(config).map(Rc::new),
            stall_after: config.observe.stall_after,
            idle_timeout: config.upstream.idle_timeout,
            upstream_errors: LogLimit::default(),
        })
    }

    /// Closes upstream connections that have idled too long.
    pub fn reap(&self) {
        match &self.backend {
            Backend::One { upstream, .. } => upstream.reap(),
            Backend::Several(balance) => balance.reap(),
        }
    }

    /// Serves one request.
    ///
    /// What must not be missed happens at once, not when the future is first polled: hyper drops one unpolled if the
    /// client has left by then. The future is boxed, since hyper keeps room for it as long as the connection lives, while
    /// it is over once the answer begins. With a `handoff` a stream may be left there, and the future never ends.
    ///
    /// # Errors
    /// Never: what fails becomes an answer.
    pub fn serve(
        self: Rc<Self>,
        shared: &Arc<Shared>,
        handoff: Option<&Rc<Handoff>>,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<ProxyBody>, Infallible>>>> {
        let started = Instant::now();
        let serving = shared.begin_request(request.version());
        let wish = handoff.and_then(|handoff| handoff.wish(&request));
        let endpoint = match classify(request.method(), request.uri().path()) {
            Route::Model(endpoint) => Some(endpoint),
            Route::Plumbing => None,
        };
        let track = endpoint
            .zip(self.recorder.as_ref())
            .map(|(endpoint, recorder)| {
                let (method, headers) = (request.method(), request.headers());
                Track::new(Rc::clone(recorder), endpoint, method, headers, started)
            });
        Box::pin(async move {
            let asked = Asked {
                track,
                serving,
                upgrade: None,
                added: Added::default(),
                endpoint,
                started,
            };
            let response = self.handle(asked, request).await;
            Ok(match wish {
                Some(wish) => wish.grant(response).await,
                None => response,
            })
        })
    }

    async fn handle(&self, mut asked: Asked, request: Request<Incoming>) -> Response<ProxyBody> {
        let (mut head, body) = request.into_parts();
        if let Err(reply) = guard::check(
            &mut head,
            asked.serving.has_content_length(),
            self.limits.bytes,
        ) {
            return asked.refuse(Outcome::Error(ErrorType::ProxyRejected), &reply);
        }
        let is_http11 = head.version == Version::HTTP_11;
        if is_http11 && head.headers.contains_key(UPGRADE) {
            asked.upgrade = head.extensions.remove::<OnUpgrade>();
        }
        let watch = asked.track.as_ref().map(Track::request);
        let mut body = ClientBody::new(body, self.limits);
        let mut front = VecDeque::new();
        let mut unread = true;
        let injection = self.injection.as_ref();
        if let Some(injection) =
            injection.filter(|injection| injection.applies(asked.endpoint, &head))
        {
            match injection.read(&mut head.headers, &mut body).await {
                Ok(read) => (front, asked.added, unread) = (read.front, read.added, read.unread),
                Err(error) => return self.fail(&Error::RequestBody(error), asked),
            }
        }
        match &self.backend {
            Backend::One { upstream, books } => {
                let mut relay = Relay {
                    shared: is_http11.then_some(&asked.serving),
                    spoke: false,
                };
                let request = Request::from_parts(head, RequestBody::new(front, body, watch));
                if let (Some(track), Some(books)) = (&mut asked.track, books) {
                    track.toward(books);
                }
                match upstream.send(request, &mut relay).await {
                    Ok(answer) => self.answer(answer, asked, None),
                    Err(failure) => self.fail(&failure, asked),
                }
            }
            Backend::Several(balance) => {
                let received = Received {
                    head,
                    front,
                    body,
                    unread,
                    watch,
                };
                // Boxed, or every request would have room for it.
                Box::pin(self.share_out(balance, asked, received, is_http11)).await
            }
        }
    }

    pub(super) fn fail(&self, failure: &Error, asked: Asked) -> Response<ProxyBody> {
        self.log(failure);
        asked.refuse(error::outcome(failure), &error::reply(failure))
    }

    /// `place`: at the upstream that answers, if it is one of several.
    pub(super) fn answer(
        &self,
        answer: Answer<RequestBody>,
        mut asked: Asked,
        place: Option<Box<Place>>,
    ) -> Response<ProxyBody> {
        let Answer {
            mut head,
            body,
            head_sent,
            head_received,
        } = answer;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(upgrade), Some(upstream)) = (asked.upgrade.take(), body.into_tunnel()) else {
                let message = "the upstream server switched protocols unasked";
                let reply = Reply::new(StatusCode::BAD_GATEWAY, message);
                return asked.refuse(Outcome::Error(ErrorType::UpstreamReset), &reply);
            };
            if let Some(track) = &mut asked.track {
                track.head(&head);
            }
            self.tasks
                .spawn(tunnel::run(upgrade, upstream, asked.track, place));
            return Response::from_parts(head, ProxyBody::Local(Full::default()));
        }
        if let Some(track) = &mut asked.track {
            track.head(&head);
        }
        let injection = self.injection.as_ref();
        let restore =
            injection.and_then(|injection| Restore::new(injection, asked.added, &mut head));
        let (stall_after, limit) = (self.stall_after, self.idle_timeout);
        let body = ForwardBody::new(
            body,
            asked.track,
            place,
            restore,
            asked.serving,
            stall_after,
            limit,
        );
        let response = Response::from_parts(head, ProxyBody::Forward(Box::new(body)));
        if let Some(recorder) = &self.recorder {
            let overhead =
                head_sent.saturating_duration_since(asked.started) + head_received.elapsed();
            recorder.metrics().overhead.observe(overhead.as_secs_f64());
        }
        response
    }

    fn log(&self, failure: &Error) {
        if matches!(failure, Error::RequestBody(_)) {
            tracing::debug!(error = %failure, "a request broke off");
        } else if let Some(suppressed) = self.upstream_errors.permit() {
            tracing::warn!(error = %failure, suppressed, "a request failed at upstream");
        }
    }
}

impl Asked {
    /// Answers in upstream's place.
    pub(super) fn refuse(self, outcome: Outcome, reply: &Reply) -> Response<ProxyBody> {
        if let Some(track) = self.track {
            track.fail(outcome);
        }
        reply
            .response(self.endpoint)
            .map(|body| ProxyBody::Local(Full::new(body)))
    }
}

/// Passes interim responses on. HTTP/1.0 has none, and hyper's HTTP/2 cannot send them.
pub(super) struct Relay<'a> {
    pub(super) shared: Option<&'a Shared>,
    /// The client has got something.
    pub(super) spoke: bool,
}

impl Events for Relay<'_> {
    fn informational(&mut self, head: &Informational) {
        let Some(shared) = self.shared else {
            return;
        };
        let mut out = format!(
            "HTTP/1.1 {} {}\r\n",
            head.status.as_str(),
            head.status.canonical_reason().unwrap_or_default()
        )
        .into_bytes();
        for (name, value) in &head.headers {
            let name: &HeaderName = name;
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        self.spoke = true;
        shared.send_informational(out);
    }
}
