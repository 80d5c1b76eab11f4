//! What measuring costs: the observer, the record and the metrics, without a socket and on a clock of our own.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokenglass::classify::{Route, classify};
use tokenglass::config::{Config, Tenants as TenantConfig};
use tokenglass::metrics::Metrics;
use tokenglass::metrics::polled::Books;
use tokenglass::observe::{HeadFacts, Limits, RequestFacts, ResponseObserver};
use tokenglass::outcome::End;
use tokenglass::tenants::Tenants;
use tokenglass::track::{Recorder, Track};
use tokenglass::upstream::OpenConnections;

use crate::capture::Capture;

/// Between two frames: the time that a token takes.
const PACE: Duration = Duration::from_millis(20);

/// What the frames have in them that bring a chat's text.
pub(crate) const TEXT: &str = "\"delta\":{\"content\":";

/// Metrics with nothing in them.
pub(crate) fn metrics(config: &Config) -> Arc<Metrics> {
    let registry = prometheus::Registry::new();
    let tenants = Tenants::new(&TenantConfig::default()).unwrap();
    Arc::new(Metrics::new(&registry, OpenConnections::default(), config, tenants).unwrap())
}

/// A recorder without an estimator, which counts on a thread of its own, when it comes to it.
pub(crate) fn recorder(config: &Config, metrics: &Arc<Metrics>) -> Rc<Recorder> {
    Recorder::new(config, Arc::clone(metrics), None)
}

/// Those of an upstream.
pub(crate) fn books(metrics: &Metrics) -> Books {
    let upstream = metrics.polled.add("http://127.0.0.1:8000".to_owned());
    upstream.books(0).unwrap()
}

/// One exchange after the other on one recorder.
pub(crate) struct Replay {
    recorder: Rc<Recorder>,
    books: Books,
    now: Instant,
}

impl Replay {
    pub(crate) fn new() -> Self {
        let config = Config::default();
        Self::on(recorder(&config, &metrics(&config)))
    }

    pub(crate) fn on(recorder: Rc<Recorder>) -> Self {
        Self {
            books: books(recorder.metrics()),
            recorder,
            now: Instant::now(),
        }
    }

    /// One request whose answer comes in these reads.
    pub(crate) fn exchange<'a>(
        &mut self,
        path: &str,
        capture: &Capture,
        reads: impl Iterator<Item = &'a [u8]>,
    ) {
        let Route::Model(endpoint) = classify(&Method::POST, path) else {
            unreachable!("{path} generates nothing");
        };
        let recorder = Rc::clone(&self.recorder);
        let headers = HeaderMap::new();
        let mut track = Track::new(recorder, endpoint, &Method::POST, &headers, self.now);
        let request = track.request();
        request.borrow_mut().push(&capture.asked);
        request.borrow_mut().end();
        track.toward(&self.books);
        track.head(&capture.head);
        for read in reads {
            self.now += PACE;
            track.data(read, self.now);
        }
        track.finish(End::Complete, self.now);
    }
}

/// A stream of `frames` frames: those of the events that hold `mark`, over and over. What comes before and behind them
/// comes once.
pub(crate) fn frames(events: &[Bytes], mark: &str, frames: usize) -> Vec<Bytes> {
    let marked = |event: &Bytes| {
        let text = std::str::from_utf8(event).unwrap();
        text.contains(mark) && !text.contains("\"finish_reason\":\"")
    };
    let first = events.iter().position(marked).unwrap();
    let (before, rest) = events.split_at(first);
    let tokens: Vec<_> = rest.iter().filter(|event| marked(event)).collect();
    let behind = rest.iter().filter(|event| !marked(event));
    let mut stream = before.to_vec();
    stream.extend(tokens.into_iter().cycle().take(frames).cloned());
    stream.extend(behind.cloned());
    stream
}

/// Every frame a read of its own.
pub(crate) fn stream(path: &str, name: &str, mark: &str, n: usize) {
    let capture = Capture::read(name);
    let stream = frames(&capture.events(), mark, n);
    Replay::new().exchange(path, &capture, stream.iter().map(|frame| &frame[..]));
}

/// Several frames in one read, or one frame in several: reads of `size` bytes.
pub(crate) fn reads(size: usize, n: usize) {
    let capture = Capture::read("chat-stream-usage");
    let stream = frames(&capture.events(), TEXT, n).concat();
    Replay::new().exchange("/v1/chat/completions", &capture, stream.chunks(size));
}

/// No usage is promised, so the text is kept to be counted.
pub(crate) fn kept_text(n: usize) {
    let capture = Capture::read("chat-stream");
    let head = HeadFacts {
        status: 200,
        content_type: Some(b"text/event-stream"),
        content_encoding: None,
    };
    let limits = Limits {
        event: 1 << 20,
        body: 1 << 20,
        text: 256 << 10,
    };
    let facts = RequestFacts::default();
    let Route::Model(endpoint) = classify(&Method::POST, "/v1/chat/completions") else {
        return;
    };
    let mut now = Instant::now();
    let mut observer = ResponseObserver::new(endpoint, facts, &head, limits, now, true);
    for frame in frames(&capture.events(), TEXT, n) {
        now += PACE;
        observer.data(&frame, now, &mut |_| {});
    }
    let record = observer.finish(End::Complete, now);
    assert!(record.text.is_some_and(|text| text.len() > n));
}

/// Whole exchanges as they were recorded, their answers in one read.
pub(crate) fn requests(path: &str, name: &str, n: usize) {
    let capture = Capture::read(name);
    let mut replay = Replay::new();
    for _ in 0..n {
        replay.exchange(path, &capture, std::iter::once(&capture.body[..]));
    }
}

/// A prompt of 100 KiB in pieces of 16 KiB, and a short answer.
pub(crate) fn prompts(n: usize) {
    let mut capture = Capture::read("chat-nonstream");
    let words = "Tell me what this is about. ".repeat(100 * 1024 / 28);
    let asked = std::str::from_utf8(&capture.asked).unwrap();
    let (before, behind) = asked.split_once("Hello").unwrap();
    let asked = format!("{before}{words}{behind}");
    assert!(asked.len() > 100_000);
    capture.asked = asked.into();
    let mut replay = Replay::new();
    for _ in 0..n {
        replay.exchange(
            "/v1/chat/completions",
            &capture,
            std::iter::once(&capture.body[..]),
        );
    }
}
