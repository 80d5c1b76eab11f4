//! Streams by hand: the shapes that the recordings do not hold.

use super::super::strip::EVENT_LIMIT;
use super::*;

const ROLE: &str =
    r#"data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}"#;
const LAST: &str = r#"data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USED: &str = r#"data: {"id":"a","choices":[],"usage":{"prompt_tokens":1},"system_fingerprint":"f","metrics":{}}"#;
const PRINTED: &str = r#"data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"system_fingerprint":"f"}"#;
const DONE: &str = "data: [DONE]";

fn stream(events: &[&str]) -> String {
    events.iter().map(|event| format!("{event}\n\n")).collect()
}

/// Each event by itself, whole and in bytes.
#[track_caller]
fn gives(added: Added, with: &[&str], without: &[&str]) {
    let (with, without) = (stream(with), stream(without));
    same(added, &with, &without);
    same(
        added,
        &with.replace('\n', "\r\n"),
        &without.replace('\n', "\r\n"),
    );
}

#[track_caller]
fn same(added: Added, with: &str, without: &str) {
    let events: Vec<&[u8]> = with.split_inclusive("\n\n").map(str::as_bytes).collect();
    for got in [
        whole(added, with.as_bytes()),
        bytewise(added, with.as_bytes()),
        stripped(added, &events),
    ] {
        assert_eq!(String::from_utf8(got).unwrap(), without);
    }
}

#[track_caller]
fn passes(added: Added, events: &[&str]) {
    gives(added, events, events);
}

#[test]
fn the_usage_event_goes_and_its_fingerprint_moves() {
    gives(USAGE, &[ROLE, LAST, USED, DONE], &[ROLE, PRINTED, DONE]);
    let used = USED.replace(r#","system_fingerprint":"f""#, "");
    gives(USAGE, &[ROLE, LAST, &used, DONE], &[ROLE, LAST, DONE]);
    let used = USED.replace(r#""f""#, "null");
    gives(USAGE, &[ROLE, LAST, &used, DONE], &[ROLE, LAST, DONE]);
}

#[test]
fn the_fingerprint_keeps_its_place_and_spelling() {
    let with =
        r#"data:{"choices": [{"finish_reason": "stop"}], "usage": {"a": {}}, "prompt_text": null}"#;
    let used = r#"data:{"choices": [ ], "usage": {}, "system_fingerprint": "\u0066"}"#;
    let want = r#"data:{"choices": [{"finish_reason": "stop"}], "system_fingerprint": "\u0066", "prompt_text": null}"#;
    gives(BOTH, &[with, used, DONE], &[want, DONE]);
}

#[test]
fn a_finish_chunk_with_a_fingerprint_of_its_own_does_not_wait() {
    gives(USAGE, &[PRINTED, USED, DONE], &[PRINTED, DONE]);
    let mut strip = Strip::new(USAGE);
    let mut out = Vec::new();
    strip.push(&Bytes::from(stream(&[PRINTED])), &mut out);
    assert_eq!(out.concat(), stream(&[PRINTED]).as_bytes());
}

#[test]
fn only_one_event_goes() {
    gives(USAGE, &[USED, USED, DONE], &[USED, DONE]);
}

#[test]
fn usage_that_the_client_asked_for_stays() {
    let chunk = r#"data: {"choices":[{}],"usage":{"b":2}}"#;
    gives(
        CONTINUOUS,
        &[chunk, USED, DONE],
        &[r#"data: {"choices":[{}]}"#, USED, DONE],
    );
}

#[test]
fn usage_is_cut_wherever_it_stands_but_first() {
    gives(
        BOTH,
        &[r#"data: {"a":1,"usage":{"b":2},"choices":[{}]}"#],
        &[r#"data: {"a":1,"choices":[{}]}"#],
    );
    gives(
        BOTH,
        &[r#"data: {"choices":[{}] , "usage" : {} }"#],
        &[r#"data: {"choices":[{}] }"#],
    );
    passes(BOTH, &[r#"data: {"usage":{"b":2},"choices":[{}]}"#]);
}

#[test]
fn null_usage_is_a_child_of_include_usage() {
    let chunk = r#"data: {"choices":[{}],"usage":null}"#;
    gives(
        USAGE,
        &[chunk, USED, DONE],
        &[r#"data: {"choices":[{}]}"#, DONE],
    );
    passes(CONTINUOUS, &[chunk, USED, DONE]);
}

#[test]
fn what_is_not_a_chunk_passes() {
    for added in [USAGE, CONTINUOUS, BOTH] {
        passes(
            added,
            &[
                ": keep-alive",
                "data:",
                "data",
                "",
                "event: usage\ndata: {\"choices\":[],\"usage\":{}}",
                "data: {\"choices\":[],\ndata: \"usage\":{}}",
                r#"data: "usage" "finish_reason":"stop""#,
                r#"data: {"error":{"message":"\"usage\"","usage":{}}}"#,
                r#"data: {"usage":{}}"#,
                r#"data: {"choices":{},"usage":{}}"#,
                r#"data: {"choices":[],"usage":[]}"#,
                r#"data: {"choices":[],"usage":{}"#,
                r#"data: {"choices":[{"delta":{"content":"\"usage\":{}","usage":{}}}]}"#,
                DONE,
            ],
        );
    }
}

#[test]
fn without_the_usage_event_the_finish_chunk_passes_as_it_is() {
    let error = r#"data: {"error":{"message":"m","code":500}}"#;
    passes(USAGE, &[ROLE, LAST, error, DONE]);
    passes(USAGE, &[ROLE, LAST]);
    passes(USAGE, &[ROLE, LAST, DONE]);
    // More than one answer, though none was asked for.
    passes(USAGE, &[LAST, ROLE, LAST, DONE]);
}

#[test]
fn a_comment_ends_the_wait() {
    let mut strip = Strip::new(USAGE);
    let mut out = Vec::new();
    strip.push(&Bytes::from(stream(&[ROLE, LAST])), &mut out);
    assert_eq!(out.concat(), stream(&[ROLE]).as_bytes());
    strip.push(&Bytes::from_static(b": keep-alive\n\n"), &mut out);
    assert_eq!(
        out.concat(),
        stream(&[ROLE, LAST, ": keep-alive"]).as_bytes()
    );
}

#[test]
fn a_stream_cut_in_the_usage_event_ends_before_it() {
    let with = stream(&[ROLE, LAST, USED]);
    let bare = stream(&[ROLE, LAST]);
    let printed = stream(&[ROLE, PRINTED]);
    for at in bare.len() + 7..with.len() {
        let got = String::from_utf8(whole(USAGE, &with.as_bytes()[..at])).unwrap();
        assert!(got == bare || got == printed, "{at}: {got}");
    }
    // No chunk has ended the answer, and still no choices.
    let with = stream(&[ROLE, USED]);
    let at = with.find("prompt_tokens").unwrap();
    assert_eq!(
        whole(USAGE, &with.as_bytes()[..at]),
        stream(&[ROLE]).as_bytes()
    );
}

#[test]
fn a_stream_cut_in_a_chunk_does_not_show_its_usage() {
    let chunk = r#"data: {"choices":[{}],"usage":{"b":2},"prompt_text":null}"#;
    let want = r#"data: {"choices":[{}],"prompt_text":null}"#;
    for at in 0..=chunk.len() {
        let got = String::from_utf8(whole(BOTH, &chunk.as_bytes()[..at])).unwrap();
        assert!(want.starts_with(&got), "{at}: {got}");
    }
}

#[test]
fn what_passes_is_lent() {
    let piece = Bytes::from(stream(&[ROLE, ROLE, LAST, USED, DONE]));
    let mut strip = Strip::new(USAGE);
    let mut out = Vec::new();
    strip.push(&piece, &mut out);
    let bounds = piece.as_ptr_range();
    let lent = out
        .iter()
        .filter(|bytes| bounds.contains(&bytes.as_ptr()))
        .count();
    // The two role chunks in one, the finish chunk around its fingerprint, the end.
    assert_eq!((out.len(), lent), (5, 4));
}

#[test]
fn an_endless_event_is_given_up_and_passes() {
    let long = format!("data: {}", "x".repeat(EVENT_LIMIT + 2000));
    let with = stream(&[LAST, &long, USED, DONE]);
    let mut strip = Strip::new(USAGE);
    let mut out = Vec::new();
    for piece in with.as_bytes().chunks(1000) {
        strip.push(&Bytes::copy_from_slice(piece), &mut out);
    }
    strip.finish(&mut out);
    assert!(strip.gave_up());
    assert_eq!(out.concat(), with.as_bytes());
}

#[test]
fn lines_that_end_with_cr_alone_are_given_up_and_pass() {
    let with = stream(&[ROLE, LAST, USED, DONE]).replace('\n', "\r");
    for piece in [1, 10, 10_000] {
        let mut strip = Strip::new(USAGE);
        let mut out = Vec::new();
        for piece in with.as_bytes().chunks(piece) {
            strip.push(&Bytes::copy_from_slice(piece), &mut out);
        }
        assert!(strip.gave_up());
        assert_eq!(out.concat(), with.as_bytes());
    }
}

#[test]
fn nothing_added_takes_nothing_out() {
    passes(Added::default(), &[ROLE, LAST, USED, DONE]);
}
