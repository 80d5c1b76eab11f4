//! The response body on its way to the client: forwarded as it comes, observed in passing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tokio::time::Sleep;

use super::tee::RequestBody;
use super::usage::Restore;
use crate::gateway::Place;
use crate::listen::Serving;
use crate::metrics::Fault;
use crate::outcome::End;
use crate::track::Track;
use crate::upstream::{Error, UpstreamBody};

/// How long HTTP/2 frames get to leave before their stream is reset.
const MOMENT: Duration = Duration::from_millis(10);

/// What hyper's server is given.
#[derive(Debug)]
pub enum ProxyBody {
    /// An answer of our own.
    Local(Full<Bytes>),
    /// Upstream's.
    Forward(Box<ForwardBody>),
}

/// Upstream's body, and what is known of it.
#[derive(Debug)]
pub struct ForwardBody {
    upstream: UpstreamBody<RequestBody>,
    track: Option<Track>,
    /// Where there are several upstreams: at the one that answers.
    place: Option<Box<Place>>,
    /// Gives the client the bytes that it would have got without `tokens.usage = "inject"`.
    restore: Option<Box<Restore>>,
    serving: Serving,
    silence: Silence,
    /// Upstream has cut the body; hyper is told once the client has what came before.
    cut: Option<Cut>,
    /// Comes last, behind what was restored.
    trailers: Option<Frame<Bytes>>,
}

/// An error from a response body makes hyper drop what it still has of it. A client is to see all that upstream sent
/// before the cut, so hyper is told only once that is on its way.
#[derive(Debug)]
struct Cut {
    error: Error,
    /// HTTP/1.1: the flush was asked for.
    asked: bool,
    /// HTTP/2: a reset overtakes the stream's frames, and the connection's flush tells nothing of them; a moment is
    /// what they get.
    moment: Option<Pin<Box<Sleep>>>,
}

/// How long upstream has said nothing.
///
/// One timer that is looked at when it fires, not moved with every frame.
#[derive(Debug)]
struct Silence {
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    stall_after: Duration,
    limit: Option<Duration>,
}

impl ForwardBody {
    /// `limit` ends a silent body; `track` is `None` for what is not measured.
    #[must_use]
    pub fn new(
        upstream: UpstreamBody<RequestBody>,
        track: Option<Track>,
        place: Option<Box<Place>>,
        restore: Option<Restore>,
        serving: Serving,
        stall_after: Duration,
        limit: Option<Duration>,
    ) -> Self {
        let mut body = Self {
            upstream,
            track,
            place,
            restore: restore.map(Box::new),
            serving,
            silence: Silence {
                since: Instant::now(),
                timer: None,
                stall_after,
                limit,
            },
            cut: None,
            trailers: None,
        };
        if body.upstream.is_end_stream() {
            body.finish(End::Complete, Instant::now());
        }
        body
    }

    /// Whether upstream has all of the request, so that nothing of it is to be read any more.
    #[must_use]
    pub fn is_request_sent(&self) -> bool {
        self.upstream.is_request_sent()
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.cut.is_none()
            && self.trailers.is_none()
            && self.upstream.is_end_stream()
            && self
                .restore
                .as_ref()
                .is_none_or(|restore| restore.is_empty())
    }

    fn finish(&mut self, end: End, now: Instant) {
        self.place = None;
        if let Some(restore) = &mut self.restore {
            restore.finish();
        }
        if let Some(mut track) = self.track.take() {
            if self
                .restore
                .as_ref()
                .is_some_and(|restore| restore.gave_up())
            {
                track.fault(Fault::NotRestored);
            }
            track.finish(end, now);
        }
    }

    /// The next frame.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if let Some(piece) = self.restore.as_mut().and_then(|restore| restore.pop()) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(trailers)));
            }
            if let Some(cut) = &mut self.cut {
                match &mut cut.moment {
                    Some(moment) => ready!(moment.as_mut().poll(cx)),
                    None => ready!(self.serving.poll_flushed(cx, &mut cut.asked)),
                }
                return Poll::Ready(self.cut.take().map(|cut| Err(cut.error)));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.upstream).poll_frame(cx) else {
                ready!(self.poll_silence(cx));
                self.upstream_is_silent();
                continue;
            };
            let now = Instant::now();
            match frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.silence.since = now;
                        if let Some(track) = &mut self.track {
                            track.data(data, now);
                        }
                        if let Some(place) = &mut self.place {
                            place.data(data);
                        }
                    }
                    let complete = self.upstream.is_end_stream();
                    let Some(restore) = &mut self.restore else {
                        if complete {
                            // hyper does not ask again once a length is reached.
                            self.finish(End::Complete, now);
                        }
                        return Poll::Ready(Some(Ok(frame)));
                    };
                    match frame.into_data() {
                        Ok(data) => restore.push(&data),
                        Err(trailers) => self.trailers = Some(trailers),
                    }
                    if complete {
                        self.finish(End::Complete, now);
                    }
                }
                Some(Err(error)) => {
                    let end = if matches!(error, Error::RequestBody(_)) {
                        End::ClientGone
                    } else {
                        End::UpstreamCut
                    };
                    tracing::debug!(%error, "a response body was cut");
                    if let Some(place) = &mut self.place {
                        place.broke(&error);
                    }
                    self.finish(end, now);
                    self.cut(error);
                }
                None => {
                    self.finish(End::Complete, now);
                    if self
                        .restore
                        .as_ref()
                        .is_none_or(|restore| restore.is_empty())
                    {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }

    /// The idle limit is reached. Closing tells both sides that the stream is dead: a client gets the cut, vLLM aborts.
    fn upstream_is_silent(&mut self) {
        self.finish(End::Stalled, Instant::now());
        self.upstream.abandon();
        self.cut(Error::BrokenInBody(std::io::ErrorKind::TimedOut.into()));
    }

    fn cut(&mut self, error: Error) {
        self.cut = Some(Cut {
            error,
            asked: false,
            moment: self
                .serving
                .is_http2()
                .then(|| Box::pin(tokio::time::sleep(MOMENT))),
        });
    }

    /// Ready when the idle limit is reached; on the way there it marks a stall.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let silence = &mut self.silence;
        let can_stall = self.track.as_ref().is_some_and(Track::can_stall);
        if !can_stall && silence.limit.is_none() {
            return Poll::Pending;
        }
        loop {
            let silent = silence.since.elapsed();
            if silence.limit.is_some_and(|limit| silent >= limit) {
                return Poll::Ready(());
            }
            let stalled = can_stall && silent >= silence.stall_after;
            if let Some(track) = &mut self.track
                && stalled
            {
                track.set_stalled(true);
            }
            let next = match silence.limit {
                Some(limit) if stalled || !can_stall => limit,
                Some(limit) => limit.min(silence.stall_after),
                None if stalled => return Poll::Pending,
                None => silence.stall_after,
            };
            let deadline = tokio::time::Instant::from_std(silence.since + next);
            let timer = silence
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // A timer that fires too early is looked at then; only one that would fire too late must be moved.
            if timer.is_elapsed() || timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Local(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Forward(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(body) => body.is_end_stream(),
            Self::Forward(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            Self::Forward(body) if body.restore.is_some() => SizeHint::default(),
            Self::Forward(body) => body.upstream.size_hint(),
        }
    }
}
