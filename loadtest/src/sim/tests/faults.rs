//! Each fault does what it says, and the truth says which it was.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{CHAT, events, request, send, sim};
use crate::sim::{Entry, Server, TruthEnd};

const STREAM: &str = r#"{"model":"tiny","stream":true,"max_tokens":8}"#;
const WHOLE: &str = r#"{"model":"tiny","max_tokens":8}"#;
const LAST_CHUNK: &str = "0\r\n\r\n";

struct Seen {
    text: String,
    reset: bool,
    entry: Entry,
}

async fn play(body: &str, fault: &str) -> Seen {
    let server = sim();
    let directive = format!(r#"{{"fault":{fault}}}"#);
    let (answer, end) = send(&server, &request(CHAT, &directive, body)).await;
    Seen {
        text: String::from_utf8_lossy(&answer).into_owned(),
        reset: end.is_err(),
        entry: last(&server).await,
    }
}

async fn last(server: &Server) -> Entry {
    assert!(server.truth().wait_for(1, Duration::from_secs(2)).await);
    server.truth().entries().pop().unwrap()
}

#[tokio::test]
async fn http_errors_in_every_shape() {
    for (shape, part) in [
        (
            "nested",
            r#"{"error":{"message":"m","type":"t","param":null,"code":503}}"#,
        ),
        (
            "flat",
            r#"{"object":"error","message":"m","type":"t","param":null,"code":503}"#,
        ),
        ("string", r#"{"error":"m"}"#),
        (
            "anthropic",
            r#"{"type":"error","error":{"type":"t","message":"m"}}"#,
        ),
        ("detail", r#"{"detail":"m"}"#),
    ] {
        let fault =
            format!(r#"{{"kind":"http","status":503,"shape":"{shape}","type":"t","message":"m"}}"#);
        let seen = play(STREAM, &fault).await;
        assert!(
            seen.text
                .starts_with("HTTP/1.1 503 Service Unavailable\r\n")
        );
        assert!(seen.text.ends_with(part), "{}", seen.text);
        assert_eq!(
            (seen.entry.status, seen.entry.end),
            (503, TruthEnd::HttpError)
        );
    }
}

#[tokio::test]
async fn an_error_frame_ends_a_stream_with_done() {
    let seen = play(
        STREAM,
        r#"{"kind":"error_frame","after":3,"message":"m","type":"t","code":507}"#,
    )
    .await;
    let events = events(seen.text.as_bytes());
    assert_eq!(events.len(), 6);
    assert_eq!(
        events[4],
        r#"{"error": {"message": "m", "type": "t", "param": null, "code": 507}}"#
    );
    assert!(seen.text.ends_with(LAST_CHUNK));
    assert_eq!(
        (seen.entry.end, seen.entry.output_tokens),
        (TruthEnd::ErrorFrame, 3)
    );
    assert_eq!(seen.entry.frames, 6);
    let seen = play(WHOLE, r#"{"kind":"error_frame"}"#).await;
    assert!(seen.text.starts_with("HTTP/1.1 500 "));
}

#[tokio::test]
async fn cuts_of_a_stream() {
    for (kind, clean) in [
        ("cut_mid_frame", false),
        ("cut_no_done", true),
        ("truncate", false),
        ("bad_chunk", false),
    ] {
        for after in [0, 3, 99] {
            let seen = play(STREAM, &format!(r#"{{"kind":"{kind}","after":{after}}}"#)).await;
            let sent = after.min(8);
            assert!(!seen.reset && !seen.text.contains("data: [DONE]"), "{kind}");
            assert_eq!(seen.text.ends_with(LAST_CHUNK), clean, "{kind}");
            assert_eq!(!seen.text.ends_with("\r\n"), kind == "cut_mid_frame");
            let role = u32::from(after > 0);
            assert_eq!(events(seen.text.as_bytes()).len(), (sent + role) as usize);
            assert_eq!(seen.entry.frames, sent + role);
            assert_eq!(seen.entry.end, TruthEnd::Cut, "{kind}");
            assert_eq!(
                (seen.entry.output_tokens, seen.entry.token_frames),
                (sent, sent)
            );
            assert_eq!(seen.text.contains("xyzzy\r\n"), kind == "bad_chunk");
            if kind == "cut_no_done" {
                assert!(seen.entry.finish_reasons.is_empty() && !seen.text.contains("\"length\""));
            }
        }
    }
}

#[tokio::test]
async fn cuts_of_a_body() {
    for kind in [
        "cut_mid_frame",
        "cut_no_done",
        "truncate",
        "bad_chunk",
        "short_body",
    ] {
        let seen = play(WHOLE, &format!(r#"{{"kind":"{kind}"}}"#)).await;
        assert!(
            !seen.reset && seen.text.starts_with("HTTP/1.1 200 "),
            "{kind}"
        );
        assert!(!seen.text.contains("usage"), "{kind}");
        assert_eq!(
            (seen.entry.end, seen.entry.usage_sent),
            (TruthEnd::Cut, false),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn a_short_stream_promises_more_than_it_sends() {
    let seen = play(STREAM, r#"{"kind":"short_body"}"#).await;
    assert!(seen.text.contains("content-length: 1099511627776\r\n"));
    assert!(seen.text.ends_with("data: [DONE]\n\n"));
    assert_eq!(seen.entry.end, TruthEnd::Cut);
}

#[tokio::test]
async fn resets() {
    let seen = play(STREAM, r#"{"kind":"reset"}"#).await;
    assert!(seen.reset && seen.text.is_empty());
    assert_eq!((seen.entry.end, seen.entry.status), (TruthEnd::Reset, 0));
    let seen = play(STREAM, r#"{"kind":"reset","after":2}"#).await;
    assert!(seen.reset);
    assert_eq!(
        (seen.entry.end, seen.entry.token_frames),
        (TruthEnd::Reset, 2)
    );
    let seen = play(WHOLE, r#"{"kind":"reset","after":2}"#).await;
    assert!(seen.reset);
}

#[tokio::test]
async fn closes_and_delays_before_the_head() {
    let seen = play(STREAM, r#"{"kind":"close_before_head"}"#).await;
    assert!(!seen.reset && seen.text.is_empty());
    assert_eq!(
        (seen.entry.end, seen.entry.head_sent),
        (TruthEnd::Cut, None)
    );
    let seen = play(STREAM, r#"{"kind":"slow_head","ms":30}"#).await;
    let delay = seen.entry.head_sent.unwrap() - seen.entry.received;
    assert!(delay >= Duration::from_millis(30) && seen.entry.end == TruthEnd::Complete);
}

#[tokio::test]
async fn stalls_end_or_do_not() {
    let seen = play(STREAM, r#"{"kind":"stall","after":2,"ms":30}"#).await;
    assert!(seen.text.ends_with(LAST_CHUNK) && seen.entry.end == TruthEnd::Complete);
    let entry = seen.entry;
    let pause = entry.last_token_sent.unwrap() - entry.first_token_sent.unwrap();
    assert!(pause >= Duration::from_millis(30), "{pause:?}");

    let server = sim();
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    let directive = r#"{"fault":{"kind":"stall","after":2}}"#;
    socket
        .write_all(request(CHAT, directive, STREAM).as_bytes())
        .await
        .unwrap();
    assert!(!server.truth().wait_for(1, Duration::from_millis(30)).await);
    drop(socket);
    let entry = last(&server).await;
    assert_eq!((entry.end, entry.token_frames), (TruthEnd::Stalled, 2));
    assert!(entry.client_gone_at.is_some());
}

#[tokio::test]
async fn the_idle_close_race() {
    let server = sim();
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    let ask = request(CHAT, r#"{"fault":{"kind":"idle_close_race"}}"#, WHOLE)
        .replace("connection: close\r\n", "");
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut buf = vec![0; 8192];
    let mut seen = 0;
    while !String::from_utf8_lossy(&buf[..seen]).contains("metrics\":null}") {
        seen += socket.read(&mut buf[seen..]).await.unwrap();
    }
    assert_eq!(server.open_connections(), 1);
    socket.write_all(ask.as_bytes()).await.unwrap();
    // FIN or RST: the request lies unread there. Either way no byte of an answer.
    assert_eq!(socket.read(&mut buf).await.unwrap_or(0), 0);
    assert_eq!(server.requests_seen(), 1);
}

#[tokio::test]
async fn a_directive_that_is_not_understood_is_refused() {
    let server = sim();
    let (answer, _) = send(&server, &request(CHAT, r#"{"ttft":3}"#, STREAM)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("unknown field `ttft`"));
}
