//! A real vLLM with and without usage: `tests/captures-inject/record.py`.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use memchr::memmem;
use proptest::prelude::*;

use super::super::{What, edit};
use super::*;

const CASES: [&str; 17] = [
    "chat",
    "chat-logprobs",
    "chat-token-ids",
    "chat-echo",
    "chat-one",
    "chat-stop",
    "chat-tool-named",
    "chat-tool-required",
    "chat-tool-auto",
    "chat-reasoning",
    "chat-no-reasoning",
    "text",
    "text-echo",
    "text-logprobs",
    "text-token-ids",
    "text-stop",
    "chat-model404",
];
const MANY: [&str; 2] = ["chat-n2", "text-n2"];

fn file(folder: &str, name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", folder, name]
        .iter()
        .collect();
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn body(message: &[u8]) -> (&[u8], &[u8]) {
    let end = memmem::find(message, b"\r\n\r\n").expect("a head");
    (&message[..end], &message[end + 4..])
}

fn request(name: &str) -> Bytes {
    let message = file("captures-inject", &format!("{name}.req"));
    Bytes::copy_from_slice(body(&message).1)
}

fn response(folder: &str, name: &str) -> Vec<u8> {
    let message = file(folder, &format!("{name}.resp"));
    let (head, mut rest) = body(&message);
    if memmem::find(head, b"chunked").is_none() {
        return rest.to_vec();
    }
    let mut data = Vec::new();
    while let Some(end) = memmem::find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        data.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    data
}

/// Without what differs from one run to the next.
fn normal(stream: &[u8]) -> String {
    let mut text = String::from_utf8(stream.to_vec()).expect("text");
    for (before, until) in [
        (r#""id":"chatcmpl-tool-"#, '"'),
        (r#""id":"chatcmpl-"#, '"'),
        (r#""id":"cmpl-"#, '"'),
        (r#""created":1"#, ','),
        (r#""metrics":{"#, '}'),
    ] {
        let mut parts = text.split(before);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept.push_str(before);
            kept.push_str(&part[part.find(until).expect("an end")..]);
        }
        text = kept;
    }
    text
}

/// Name of the recording with usage, what was added to get there, name of the one without.
fn pairs() -> impl Iterator<Item = (String, Added, String)> {
    let one = CASES.iter().flat_map(|case| {
        [
            (format!("{case}.usage"), USAGE, format!("{case}.plain")),
            (format!("{case}.continuous"), BOTH, format!("{case}.plain")),
            (
                format!("{case}.continuous"),
                CONTINUOUS,
                format!("{case}.usage"),
            ),
        ]
    });
    let many = MANY.iter().map(|case| {
        (
            format!("{case}.continuous"),
            CONTINUOUS,
            format!("{case}.usage"),
        )
    });
    one.chain(many)
}

#[test]
fn the_client_gets_what_it_would_have_got() {
    for (with, added, without) in pairs() {
        let stream = response("captures-inject", &with);
        let want = normal(&response("captures-inject", &without));
        assert_eq!(normal(&whole(added, &stream)), want, "{with}");
        assert_eq!(normal(&bytewise(added, &stream)), want, "{with}");
        for piece in [7, 100, 256, 1000] {
            let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
            assert_eq!(normal(&stripped(added, &pieces)), want, "{with}");
        }
    }
}

#[test]
fn an_event_to_a_piece_is_not_held_longer_than_the_finish_chunk() {
    for (with, added, _) in pairs() {
        let stream = response("captures-inject", &with);
        let mut strip = Strip::new(added);
        if !stream.starts_with(b"data:") {
            continue;
        }
        let mut late = 0;
        for event in String::from_utf8(stream)
            .expect("text")
            .split_inclusive("\n\n")
        {
            let mut out = Vec::new();
            strip.push(&Bytes::copy_from_slice(event.as_bytes()), &mut out);
            late += usize::from(out.is_empty());
        }
        // The finish chunk comes one event late, in the place of the one that is dropped.
        assert!(late <= usize::from(added.usage), "{with}: {late}");
        assert!(!strip.gave_up() && !strip.saw_unasked_usage(), "{with}");
    }
}

#[test]
fn the_recorded_requests_are_edited_into_each_other() {
    for (with, added, without) in pairs() {
        let what = What {
            continuous: added.continuous,
        };
        let edited = edit(&request(&without), what).expect("an edit");
        assert_eq!(edited.added(), added, "{without}");
        let new = edited.pieces().concat();
        assert_eq!(new.len(), edited.content_length());
        let new: serde_json::Value = serde_json::from_slice(&new).expect("JSON");
        let want: serde_json::Value = serde_json::from_slice(&request(&with)).expect("JSON");
        assert_eq!(new, want, "{with}");
    }
}

#[test]
fn several_answers_are_not_asked_for_usage() {
    for case in MANY {
        let plain = request(&format!("{case}.plain"));
        for continuous in [false, true] {
            assert_eq!(edit(&plain, What { continuous }), None, "{case}");
        }
    }
}

#[test]
fn a_server_that_forces_usage_is_noticed_and_left_alone() {
    for (folder, name) in [
        ("captures", "forceusage-stream"),
        ("captures", "forceusage-completions"),
        ("captures-inject", "chat-forced.plain"),
        ("captures-inject", "chat-forced.usage"),
    ] {
        let stream = response(folder, name);
        let mut strip = Strip::new(USAGE);
        let mut out = Vec::new();
        strip.push(&Bytes::from(stream.clone()), &mut out);
        strip.finish(&mut out);
        if memmem::find(&stream, b"data:").is_some() {
            assert!(strip.saw_unasked_usage(), "{name}");
        }
        assert_eq!(out.concat(), stream, "{name}");
    }
}

/// Streams that hold no usage at all, errors among them.
#[test]
fn streams_without_usage_pass() {
    for name in [
        "chat-stream",
        "chat-stream-continuous-only",
        "chat-stream-echo",
        "completions-stream",
        "completions-stream-echo",
        "err-context-too-long-stream",
        "overload-00",
        "overload-03",
        "messages-stream",
        "responses-stream",
    ] {
        let stream = response("captures", name);
        for added in [USAGE, CONTINUOUS, BOTH] {
            assert_eq!(whole(added, &stream), stream, "{name}");
            assert_eq!(bytewise(added, &stream), stream, "{name}");
        }
    }
}

/// A stream cut anywhere is a beginning of the one without usage, but for the fingerprint that was still to come.
#[test]
fn a_cut_stream_is_a_beginning_of_the_other() {
    for (with, added, without) in pairs() {
        let with = normal(&response("captures-inject", &with));
        let without = normal(&response("captures-inject", &without));
        for at in (0..with.len()).step_by(7) {
            let got = whole(added, &with.as_bytes()[..at]);
            let got = String::from_utf8(got).expect("text");
            let bare = without.rfind(r#","system_fingerprint""#).unwrap_or(0);
            assert!(
                without.starts_with(&got) || (added.usage && got.starts_with(&without[..bare])),
                "{at} of {with}: {got}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(case in 0..CASES.len(), at in indices()) {
        let plain = response("captures-inject", &format!("{}.plain", CASES[case]));
        for (mode, added) in [("usage", USAGE), ("continuous", BOTH)] {
            let stream = response("captures-inject", &format!("{}.{mode}", CASES[case]));
            prop_assert_eq!(normal(&stripped(added, &cut(&stream, &at))), normal(&plain));
        }
    }
}
