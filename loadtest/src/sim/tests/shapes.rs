//! The default answers have the shapes that a real vLLM's have.

use serde_json::Value;

use super::client::{CHAT, events, header_lines, request, send, sim, stream};

/// Keys with their values' kinds, whatever the values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), shape(value)))
            .collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => "string".into(),
        Value::Number(_) => 0.into(),
        other => other.clone(),
    }
}

fn shapes(answer: &[u8]) -> Vec<Value> {
    events(answer)
        .iter()
        .map(|data| serde_json::from_str(data).map_or_else(|_| data.as_str().into(), |v| shape(&v)))
        .collect()
}

/// The order of keys too, which `Value` forgets: the events with every value of a string or number blanked.
fn blanked(answer: &[u8]) -> Vec<String> {
    let blank = |data: &String| {
        let (mut out, mut text, mut escaped, mut pending) =
            (String::new(), false, false, String::new());
        for c in data.chars() {
            if text {
                if escaped {
                    escaped = false;
                } else if c == '\\' {
                    escaped = true;
                } else if c == '"' {
                    text = false;
                }
                pending.push(c);
            } else if c == '"' {
                text = true;
                pending = "\"".to_owned();
            } else {
                if !pending.is_empty() {
                    out.push_str(if c == ':' { &pending } else { "\"\"" });
                    pending.clear();
                }
                if !c.is_ascii_digit() {
                    out.push(c);
                }
            }
        }
        out
    };
    events(answer).iter().map(blank).collect()
}

async fn same(path: &str, directive: &str, body: &str, recorded: &[u8]) {
    let server = sim();
    let (answer, end) = send(&server, &request(path, directive, body)).await;
    end.unwrap();
    assert_eq!(shapes(&answer), shapes(recorded));
    assert_eq!(blanked(&answer), blanked(recorded));
    let without_date = |answer| {
        let mut lines = header_lines(answer);
        lines.retain(|line| !line.starts_with("date: ") && !line.starts_with("content-length: "));
        lines
    };
    assert_eq!(without_date(&answer), without_date(recorded));
    assert_eq!(
        answer.ends_with(b"0\r\n\r\n"),
        recorded.ends_with(b"0\r\n\r\n")
    );
}

#[tokio::test]
async fn chat_streams() {
    let body = |options: &str| {
        format!(r#"{{"model":"tiny","messages":[],"stream":true,"max_tokens":8{options}}}"#)
    };
    let plain = include_bytes!("../../../tests-data/chat-stream.resp");
    same(CHAT, "{}", &body(""), plain).await;
    let usage = include_bytes!("../../../tests-data/chat-stream-usage.resp");
    let options = r#","stream_options":{"include_usage":true}"#;
    same(CHAT, "{}", &body(options), usage).await;
    let continuous = include_bytes!("../../../tests-data/chat-stream-usage-continuous.resp");
    let options = r#","stream_options":{"include_usage":true,"continuous_usage_stats":true}"#;
    same(CHAT, "{}", &body(options), continuous).await;
}

#[tokio::test]
async fn completion_streams() {
    let path = "/v1/completions";
    let body = |options: &str| {
        format!(r#"{{"model":"tiny","prompt":"x","stream":true,"max_tokens":8{options}}}"#)
    };
    let plain = include_bytes!("../../../tests-data/completions-stream.resp");
    same(path, "{}", &body(""), plain).await;
    let usage = include_bytes!("../../../tests-data/completions-stream-usage.resp");
    let options = r#","stream_options":{"include_usage":true}"#;
    same(path, "{}", &body(options), usage).await;
    let continuous = include_bytes!("../../../tests-data/completions-stream-usage-continuous.resp");
    let options = r#","stream_options":{"include_usage":true,"continuous_usage_stats":true}"#;
    same(path, "{}", &body(options), continuous).await;
}

#[tokio::test]
async fn tool_calls_and_errors_in_streams() {
    let options = r#""stream":true,"stream_options":{"include_usage":true}"#;
    let tools = format!(r#"{{"model":"tiny","tools":[{{}}],{options}}}"#);
    let recorded = include_bytes!("../../../tests-data/tools2-named-stream.resp");
    let frames = events(recorded).len() - 4;
    let directive = format!(r#"{{"output_tokens":{frames}}}"#);
    same(CHAT, &directive, &tools, recorded).await;
    let body = r#"{"model":"tiny","stream":true}"#;
    let directive = r#"{"fault":{"kind":"error_frame","after":0,"code":503}}"#;
    let overload = include_bytes!("../../../tests-data/overload-05.resp");
    same(CHAT, directive, body, overload).await;
    let server = sim();
    let (answer, _) = send(&server, &request(CHAT, directive, body)).await;
    assert_eq!(events(&answer), events(overload));
}

#[tokio::test]
async fn reasoning_with_forced_usage_as_when_the_engine_died() {
    let server = sim();
    let directive = r#"{"usage":"force","output_tokens":20,"reasoning_tokens":20,"fault":{"kind":"error_frame","after":5}}"#;
    let body = r#"{"model":"tiny","messages":[],"stream":true}"#;
    let (answer, _) = send(&server, &request(CHAT, directive, body)).await;
    // The recording is cut in its middle: five token frames, two more, the error, [DONE].
    let mut recorded = shapes(include_bytes!("../../../tests-data/enginekill-stream.resp"));
    recorded.remove(6);
    assert_eq!(shapes(&answer), recorded);
}

#[tokio::test]
async fn bodies_that_are_no_streams() {
    let json = |answer: &[u8]| {
        let start = memchr::memmem::find(answer, b"\r\n\r\n").unwrap() + 4;
        shape(&serde_json::from_slice::<Value>(&answer[start..]).unwrap())
    };
    let server = sim();
    for (path, body, recorded) in [
        (
            CHAT,
            r#"{"model":"tiny"}"#,
            include_bytes!("../../../tests-data/chat-nonstream.resp").as_slice(),
        ),
        (
            CHAT,
            r#"{"model":"tiny","n":2}"#,
            include_bytes!("../../../tests-data/chat-n2.resp"),
        ),
        (
            CHAT,
            r#"{"model":"nope"}"#,
            include_bytes!("../../../tests-data/err-model404.resp"),
        ),
        (
            "/v1/completions",
            r#"{"model":"tiny"}"#,
            include_bytes!("../../../tests-data/completions-nonstream.resp"),
        ),
    ] {
        let (answer, end) = send(&server, &request(path, "{}", body)).await;
        end.unwrap();
        assert_eq!(json(&answer), json(recorded));
        assert_eq!(header_lines(&answer)[0], header_lines(recorded)[0]);
    }
    let get = "GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n";
    let (answer, _) = send(&server, get).await;
    assert_eq!(
        json(&answer),
        json(include_bytes!("../../../tests-data/models.resp"))
    );
    let get = "GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n";
    let (answer, _) = send(&server, get).await;
    assert!(answer.ends_with(br#"{"detail":"Not Found"}"#));
}

#[tokio::test]
async fn every_split_gives_the_same_bytes() {
    let server = sim();
    let whole = events(stream(&server, "{}").await.as_bytes());
    assert_eq!(whole.len(), 10);
    for split in [
        r#""bytes""#,
        r#"{"every":7}"#,
        r#""random""#,
        r#""coalesce""#,
    ] {
        let directive = format!(r#"{{"split":{split}}}"#);
        let events = events(stream(&server, &directive).await.as_bytes());
        let strip = |events: &[String]| -> Vec<String> {
            let skip = |e: &String| e.split("\"created\"").next().unwrap_or_default().to_owned();
            events.iter().map(skip).collect()
        };
        assert_eq!(strip(&events), strip(&whole), "{split}");
    }
}

#[tokio::test]
async fn tool_call_fragments_are_one_json_object() {
    let server = sim();
    for tokens in [2, 3, 20] {
        let directive = format!(r#"{{"tool_call":true,"output_tokens":{tokens}}}"#);
        let body = r#"{"model":"tiny","stream":true}"#;
        let (answer, _) = send(&server, &request(CHAT, &directive, body)).await;
        let mut arguments = String::new();
        for event in events(&answer) {
            let event: Value = serde_json::from_str(&event).unwrap_or_default();
            let fragment = &event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"];
            arguments.push_str(fragment.as_str().unwrap_or_default());
        }
        assert!(
            serde_json::from_str::<Value>(&arguments)
                .unwrap()
                .is_object(),
            "{arguments}"
        );
        assert!(String::from_utf8_lossy(&answer).contains(r#""finish_reason":"tool_calls""#));
    }
}

#[tokio::test]
async fn crlf_comments_and_the_rust_frontend() {
    let server = sim();
    let answer = stream(&server, r#"{"crlf":true}"#).await;
    assert!(answer.contains("data: [DONE]\r\n\r\n\r\n0\r\n\r\n"));
    let answer = stream(&server, r#"{"ttft_ms":40,"keepalive_comment_ms":10}"#).await;
    assert!(answer.contains("e\r\n: keep-alive\n\n\r\n"), "{answer}");
    let answer = stream(&server, r#"{"rust_frontend":true}"#).await;
    assert!(
        answer.contains(r#""delta":{"role":"assistant"}}]}"#),
        "{answer}"
    );
    assert!(!answer.contains("null"));
}
