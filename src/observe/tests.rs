//! The observer against real bytes of vLLM (`tests/captures`), whole, byte by byte, and cut anywhere.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use proptest::prelude::*;

use super::*;
use crate::classify::{Endpoint, Route, classify};
use crate::outcome::{End, Outcome, Phase};

mod alike;
mod errors;
mod forms;
mod outcomes;
mod requests;
mod shapes;
mod streams;
mod templates;
mod timing;

pub(super) const LIMITS: Limits = Limits {
    event: 1 << 20,
    body: 1 << 20,
    text: 1 << 16,
};

struct Capture {
    name: String,
    endpoint: Endpoint,
    facts: RequestFacts,
    status: u16,
    content_type: Option<Vec<u8>>,
    body: Vec<u8>,
}

/// What `expected.tsv` says of a capture. It was made by a separate reading of the bytes, not by this code.
struct Expected {
    outcome: String,
    stream: bool,
    fields: Vec<String>,
}

fn file(name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "captures", name]
        .iter()
        .collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn split_head(message: &[u8]) -> (String, &[u8]) {
    let end = memchr::memmem::find(message, b"\r\n\r\n").unwrap();
    (
        String::from_utf8(message[..end].to_vec()).unwrap(),
        &message[end + 4..],
    )
}

fn dechunk(mut chunked: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = memchr::memmem::find(chunked, b"\r\n") {
        let size = std::str::from_utf8(&chunked[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let rest = &chunked[end + 2..];
        // A recording that was cut ends within a chunk.
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        if size == 0 || rest.len() < size + 2 {
            break;
        }
        chunked = &rest[size + 2..];
    }
    body
}

impl Capture {
    fn read(name: &str) -> Self {
        let request = file(&format!("{name}.req"));
        let (head, body) = split_head(&request);
        let mut words = head.split(' ');
        let method: Method = words.next().unwrap().parse().unwrap();
        let endpoint = match classify(&method, words.next().unwrap()) {
            Route::Model(endpoint) => endpoint,
            Route::Plumbing => Endpoint::Other,
        };
        let mut tee = RequestTee::new(endpoint, 1 << 20);
        tee.push(&Bytes::copy_from_slice(body));
        let (mut facts, _) = tee.finish();
        facts.replay = endpoint == Endpoint::Responses && method == Method::GET;
        let response = file(&format!("{name}.resp"));
        let (head, body) = split_head(&response);
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|line| line.0 == name).map(|line| line.1)
        };
        Self {
            name: name.to_owned(),
            endpoint,
            facts,
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            content_type: header("content-type").map(|value| value.as_bytes().to_vec()),
            body: match header("transfer-encoding") {
                Some("chunked") => dechunk(body),
                _ => body.to_vec(),
            },
        }
    }

    fn observer(&self, started: Instant) -> ResponseObserver {
        let head = HeadFacts {
            status: self.status,
            content_type: self.content_type.as_deref(),
            content_encoding: None,
        };
        let facts = self.facts.clone();
        ResponseObserver::new(self.endpoint, facts, &head, LIMITS, started, true)
    }

    fn streams(&self) -> bool {
        let kind = self.content_type.as_deref();
        kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
    }

    /// Which of the events with data is the first that the observer takes for a token.
    fn first_token_frame(&self) -> Option<usize> {
        let now = Instant::now();
        let mut observer = self.observer(now);
        let ends = memchr::memmem::find_iter(&self.body, b"\n\n").map(|at| at + 2);
        let mut from = 0;
        let frames = ends.map(|end| &self.body[std::mem::replace(&mut from, end)..end]);
        let mut frames = frames.filter(|frame| !frame.starts_with(b":"));
        let streams = self.streams() && self.status < 400;
        streams.then(|| {
            frames.position(|frame| {
                observer.data(frame, now, &mut |_| {});
                observer.first_token_seen()
            })
        })?
    }

    fn observe<'a>(&self, reads: impl IntoIterator<Item = &'a [u8]>, end: End) -> (Record, u32) {
        let started = Instant::now();
        let mut observer = self.observer(started);
        let mut gaps = 0;
        // One time for all reads: what depends on the clock has tests of its own.
        let now = started + Duration::from_millis(7);
        for read in reads {
            observer.data(read, now, &mut |gap| gaps += gap.count);
        }
        let mut record = observer.finish(end, now);
        record.longest_stall = None;
        (record, gaps)
    }

    fn check(&self, expected: &Expected, record: &Record, gaps: u32) {
        let dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let reasons: Vec<&str> = record
            .finish_reasons
            .iter()
            .map(|reason| reason.as_label())
            .collect();
        let got = [
            dash(record.served_model.as_deref().map(str::to_owned)),
            dash(record.input_tokens.map(|(count, _)| count.to_string())),
            dash(record.output_tokens.map(|(count, _)| count.to_string())),
            dash(
                record
                    .output_tokens
                    .map(|(_, source)| source.as_label().to_owned()),
            ),
            dash(record.cached_tokens.map(|count| count.to_string())),
            dash(record.reasoning_tokens.map(|count| count.to_string())),
            dash(Some(reasons.join(",")).filter(|reasons| !reasons.is_empty())),
            gaps.to_string(),
            dash(self.first_token_frame().map(|frame| frame.to_string())),
        ];
        assert_eq!(got.as_slice(), expected.fields, "{}", self.name);
        assert_eq!(record.stream, expected.stream, "{}", self.name);
        assert_eq!(record.faults, 0, "{}", self.name);
        let streamed = gaps > 0 && record.stream;
        assert!(
            !streamed || record.ttft == Some(Duration::from_millis(7)),
            "{}",
            self.name
        );
        // What is read again has been estimated before, and has no times of its own.
        assert!(!self.facts.replay || record.ttft.is_none(), "{}", self.name);
        let wants_text = record.output_tokens.is_none() && record.ttft.is_some();
        assert_eq!(record.text.is_some(), wants_text, "{}", self.name);
    }
}

fn expected() -> Vec<(Capture, Expected)> {
    let table = String::from_utf8(file("expected.tsv")).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let fields: Vec<String> = row.split('\t').map(str::to_owned).collect();
        let expected = Expected {
            outcome: fields[1].clone(),
            stream: fields[2] == "stream",
            fields: fields[3..].to_vec(),
        };
        (Capture::read(&fields[0]), expected)
    })
    .collect()
}

/// The bodies of all captures.
pub(super) fn bodies() -> impl Iterator<Item = Vec<u8>> {
    expected().into_iter().map(|(capture, _)| capture.body)
}

pub(super) fn label(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::Error(error) => error.as_label(),
        Outcome::Cancelled(phase) => phase.as_label(),
    }
}

#[test]
fn every_capture_is_read_for_what_it_is() {
    let captures = expected();
    assert!(captures.len() > 150);
    for (capture, expected) in captures {
        let (end, outcome) = match expected.outcome.as_str() {
            "cut" => (End::UpstreamCut, "stream_truncated"),
            other => (End::Complete, other),
        };
        let (record, gaps) = capture.observe([capture.body.as_slice()], end);
        assert_eq!(label(record.outcome), outcome, "{}", capture.name);
        capture.check(&expected, &record, gaps);
        let bytewise = capture.observe(capture.body.chunks(1), end);
        assert_eq!(bytewise, (record, gaps), "{} byte by byte", capture.name);
    }
}

#[test]
fn a_client_that_left_with_all_it_wanted_is_a_success() {
    for (capture, expected) in expected() {
        let (record, _) = capture.observe([capture.body.as_slice()], End::ClientGone);
        let want = match expected.outcome.as_str() {
            "cut" => Phase::Streaming.as_label(),
            "success" if !capture.streams() => Phase::Streaming.as_label(),
            other => other,
        };
        assert_eq!(label(record.outcome), want, "{}", capture.name);
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_before_its_end_is_truncated() {
    for name in [
        "chat-stream-usage-continuous",
        "completions-stream",
        "messages-stream",
        "responses-stream",
    ] {
        let capture = Capture::read(name);
        // The last line end may be missing: the event before it is dispatched by a blank line.
        for end in (0..capture.body.len() - 2).step_by(7) {
            for how in [End::UpstreamCut, End::Complete] {
                let (record, _) = capture.observe([&capture.body[..end]], how);
                assert_eq!(label(record.outcome), "stream_truncated", "{name} at {end}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn random_cuts_change_nothing(sizes in proptest::collection::vec(1_usize..900, 1..30)) {
        for (capture, expected) in expected() {
            let mut rest = capture.body.as_slice();
            let mut reads = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (read, tail) = rest.split_at(rest.len().min(*size));
                reads.push(read);
                rest = tail;
            }
            let (record, gaps) = capture.observe(reads, End::Complete);
            capture.check(&expected, &record, gaps);
        }
    }
}
