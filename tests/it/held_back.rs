//! `tokens.usage = "inject"` holds bytes back for a while: at the end of a body all that are the client's go on.

use std::time::Duration;

use tokenglass::config::UsageMode;

use crate::origin::{Bed, answering};
use crate::support::{Message, exchange};

const BODY: &str = r#"{"model":"tiny","messages":[],"stream":true}"#;
const TOKEN: &str = r#"data: {"model":"tiny","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}"#;
const FINISH: &str =
    r#"data: {"model":"tiny","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const SECOND: &str = r#"data: {"model":"tiny","choices":[{"index":1,"delta":{"content":"Ho"},"finish_reason":null}]}"#;
const USAGE: &str = r#"data: {"model":"tiny","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#;
const ERROR: &str = r#"data: {"error":{"message":"EngineCore died","code":500}}"#;

/// How a body says that it is over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Chunked,
    Close,
    Trailers,
}

fn answer(body: &str, end: End) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n", body.len());
    match end {
        End::Chunked => format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}\r\n"),
        End::Close => format!("{head}connection: close\r\n\r\n{body}"),
        End::Trailers => format!(
            "{head}trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n{chunk}x-sum: 42\r\n\r\n"
        ),
    }
    .into_bytes()
}

/// What the client gets of a body that ends so.
fn through(body: &str, end: End) -> Message {
    let mut script = answering(&answer(body, end));
    if end == End::Close {
        script.pop();
    }
    let bed = Bed::with(script, |config| config.tokens.usage = UsageMode::Inject);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nte: trailers\r\n\
         connection: close, te\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let (bytes, tidy) = exchange(
        bed.proxy.addr(),
        request.as_bytes(),
        Duration::from_secs(10),
    );
    let seen = String::from_utf8(bed.upstream.received()[0].bytes.clone()).unwrap();
    assert!(seen.contains("include_usage"), "not injected: {seen}");
    let message = Message::parse(&bytes).unwrap();
    assert!(tidy, "{body:?} {end:?}");
    if message.get("transfer-encoding").is_some() {
        assert!(message.complete, "{body:?} {end:?}");
    }
    message
}

#[track_caller]
fn check(body: &str, want: &str) {
    for end in [End::Chunked, End::Close, End::Trailers] {
        let message = through(body, end);
        assert_eq!(
            String::from_utf8(message.body).unwrap(),
            want,
            "{body:?} {end:?}"
        );
        if end == End::Trailers {
            assert_eq!(
                message.trailers,
                [("x-sum".to_owned(), b"42".to_vec())],
                "{body:?}"
            );
        }
    }
}

#[test]
fn an_event_without_a_blank_line_at_the_end_is_the_clients() {
    for last in [
        TOKEN,
        FINISH,
        "data: [DONE]",
        "data: [DONE]\n",
        ": ping",
        "data",
        "event: x",
        "\r",
        ERROR,
        r#"data: {"model":"ti"#,
    ] {
        let body = format!("{TOKEN}\n\n{last}");
        check(&body, &body);
        check(last, last);
    }
}

#[test]
fn behind_a_finish_too() {
    for last in ["data: [DONE]", "data: [DONE]\n", ": ping", ERROR, SECOND] {
        let body = format!("{TOKEN}\n\n{FINISH}\n\n{last}");
        check(&body, &body);
    }
}

/// It waits for a fingerprint that comes with the usage.
#[test]
fn a_finish_that_is_held_goes_on_when_nothing_follows() {
    let body = format!("{TOKEN}\n\n{FINISH}\n\n");
    check(&body, &body);
    check(&format!("{FINISH}\n\n"), &format!("{FINISH}\n\n"));
}

#[test]
fn only_the_usage_that_was_asked_for_is_kept() {
    let want = format!("{TOKEN}\n\n{FINISH}\n\n");
    for end in ["", "\n", "\n\n"] {
        check(&format!("{want}{USAGE}{end}"), &want);
    }
    let done = "data: [DONE]";
    check(
        &format!("{want}{USAGE}\n\n{done}"),
        &format!("{want}{done}"),
    );
}
