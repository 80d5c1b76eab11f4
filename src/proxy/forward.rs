//! The service behind every client connection.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderName, UPGRADE};
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{ForwardBody, ProxyBody};
use super::reply::Reply;
use super::tee::RequestBody;
use super::{error, guard, tunnel};
use crate::classify::{Endpoint, Route, classify};
use crate::config::Config;
use crate::listen::Shared;
use crate::log_limit::LogLimit;
use crate::outcome::{ErrorType, Outcome};
use crate::task::Tasks;
use crate::track::{Recorder, Track};
use crate::upstream::{Answer, Error, Events, Informational, Upstream};

/// One worker's proxy.
#[derive(Debug)]
pub struct Proxy {
    upstreams: Vec<Rc<Upstream>>,
    next: Cell<usize>,
    /// `None`: forwards blind.
    recorder: Option<Rc<Recorder>>,
    tasks: Rc<Tasks>,
    max_body: u64,
    stall_after: Duration,
    idle_timeout: Option<Duration>,
    upstream_errors: LogLimit,
}

impl Proxy {
    /// A proxy over at least one upstream.
    #[must_use]
    pub fn new(
        config: &Config,
        upstreams: Vec<Rc<Upstream>>,
        recorder: Option<Rc<Recorder>>,
        tasks: Rc<Tasks>,
    ) -> Rc<Self> {
        Rc::new(Self {
            upstreams,
            next: Cell::new(0),
            recorder,
            tasks,
            max_body: config.server.max_body_bytes,
            stall_after: config.observe.stall_after,
            idle_timeout: config.upstream.idle_timeout,
            upstream_errors: LogLimit::default(),
        })
    }

    /// Its upstreams, for the reaper.
    #[must_use]
    pub fn upstreams(&self) -> &[Rc<Upstream>] {
        &self.upstreams
    }

    /// Serves one request.
    ///
    /// # Errors
    /// Never: what fails becomes an answer.
    pub async fn serve(
        self: Rc<Self>,
        shared: Arc<Shared>,
        request: Request<Incoming>,
    ) -> Result<Response<ProxyBody>, Infallible> {
        let started = Instant::now();
        let length_line = shared.begin_request();
        let route = classify(request.method(), request.uri().path());
        let endpoint = match route {
            Route::Model(endpoint) => Some(endpoint),
            Route::Plumbing => None,
        };
        let track = endpoint
            .zip(self.recorder.as_ref())
            .map(|(endpoint, recorder)| {
                let (method, headers) = (request.method(), request.headers());
                Track::new(Rc::clone(recorder), endpoint, method, headers, started)
            });
        let (mut head, body) = request.into_parts();
        if let Err(reply) = guard::check(&mut head, length_line, self.max_body) {
            if let Some(track) = track {
                track.fail(Outcome::Error(ErrorType::ProxyRejected));
            }
            return Ok(local(&shared, &reply, endpoint));
        }
        let version = head.version;
        let upgrade = (version == Version::HTTP_11 && head.headers.contains_key(UPGRADE))
            .then(|| head.extensions.remove::<OnUpgrade>())
            .flatten();
        let body = RequestBody::new(body, track.as_ref().map(Track::request), self.max_body);
        let request = Request::from_parts(head, body);
        let mut relay = Relay {
            shared: (version == Version::HTTP_11).then_some(&*shared),
        };
        match self.upstream().send(request, &mut relay).await {
            Ok(answer) => Ok(self.answer(answer, track, shared, upgrade, started)),
            Err(failure) => {
                self.log(&failure);
                if let Some(track) = track {
                    track.fail(error::outcome(&failure));
                }
                Ok(local(&shared, &error::reply(&failure), endpoint))
            }
        }
    }

    fn answer(
        &self,
        answer: Answer<RequestBody>,
        mut track: Option<Track>,
        shared: Arc<Shared>,
        upgrade: Option<OnUpgrade>,
        started: Instant,
    ) -> Response<ProxyBody> {
        let Answer {
            head,
            body,
            head_sent,
            head_received,
        } = answer;
        if let Some(track) = &mut track {
            track.head(&head);
        }
        if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            let (Some(upgrade), Some(upstream)) = (upgrade, body.into_tunnel()) else {
                let reply = Reply::new(
                    http::StatusCode::BAD_GATEWAY,
                    "the upstream server switched protocols unasked",
                );
                return local(&shared, &reply, None);
            };
            self.tasks.spawn(tunnel::run(upgrade, upstream, track));
            return Response::from_parts(head, ProxyBody::Local(Full::default()));
        }
        let body = ForwardBody::new(body, track, shared, self.stall_after, self.idle_timeout);
        let response = Response::from_parts(head, ProxyBody::Forward(Box::new(body)));
        if let Some(recorder) = &self.recorder {
            let overhead = head_sent.saturating_duration_since(started) + head_received.elapsed();
            recorder.metrics().overhead.observe(overhead.as_secs_f64());
        }
        response
    }

    /// In turn. (Choosing by load and health is the gateway's business, which wraps this.)
    fn upstream(&self) -> &Rc<Upstream> {
        let index = self.next.get();
        self.next.set(index.wrapping_add(1));
        #[expect(
            clippy::indexing_slicing,
            reason = "taken modulo the length; the configuration has at least one"
        )]
        &self.upstreams[index % self.upstreams.len()]
    }

    fn log(&self, failure: &Error) {
        if matches!(failure, Error::RequestBody(_)) {
            tracing::debug!(error = %failure, "a request broke off");
        } else if let Some(suppressed) = self.upstream_errors.permit() {
            tracing::warn!(error = %failure, suppressed, "a request failed at upstream");
        }
    }
}

fn local(shared: &Shared, reply: &Reply, endpoint: Option<Endpoint>) -> Response<ProxyBody> {
    shared.end_request();
    reply
        .response(endpoint)
        .map(|body| ProxyBody::Local(Full::new(body)))
}

/// Passes interim responses on. HTTP/1.0 has none, and hyper's HTTP/2 cannot send them.
struct Relay<'a> {
    shared: Option<&'a Shared>,
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
        shared.send_informational(out);
    }
}
