//! The request body, lenient in every field.

use super::*;

fn read(endpoint: Endpoint, body: &str) -> RequestFacts {
    let mut tee = RequestTee::new(endpoint, 1 << 20);
    tee.push(&Bytes::copy_from_slice(body.as_bytes()));
    tee.finish().0
}

fn chat(body: &str) -> RequestFacts {
    read(Endpoint::ChatCompletions, body)
}

#[test]
fn all_fields() {
    let facts = chat(
        r#" {"model":"ti\u006ey","messages":[{"role":"user","content":[{"type":"text"}]}],"stream":true,"n":3,
        "max_tokens":5,"max_completion_tokens":7,"echo":true,"add_generation_prompt":false,
        "stream_options":{"include_usage":true,"continuous_usage_stats":true},"unknown":{"a":[1]}}"#,
    );
    let want = RequestFacts {
        model: Some("tiny".into()),
        stream: true,
        n: 3,
        max_tokens: Some(7),
        include_usage: true,
        continuous_usage: true,
        echo: true,
        searches: false,
        background: false,
        chat: true,
        replay: false,
    };
    assert_eq!(facts, want);
}

#[test]
fn what_usage_will_not_tell() {
    assert!(chat(r#"{"use_beam_search":true}"#).searches);
    assert!(chat(r#"{"n":2,"best_of":3}"#).searches);
    assert!(!chat(r#"{"n":2,"best_of":2}"#).searches);
    assert!(!chat(r#"{"best_of":1,"use_beam_search":false}"#).searches);
    assert!(chat(r#"{"background":true}"#).background);
}

#[test]
fn a_wrong_type_costs_its_field_alone() {
    let facts = chat(
        r#"{"max_tokens":"5","stream":null,"n":-1,"stream_options":7,"echo":"yes","messages":{"a":1},"model":"tiny"}"#,
    );
    let want = RequestFacts {
        model: Some("tiny".into()),
        ..RequestFacts::default()
    };
    assert_eq!(facts, want);
    assert_eq!(want.n, 1);
    assert_eq!(chat(r#"{"n":99999999999}"#).n, u32::MAX);
}

#[test]
fn chat_echoes_only_a_last_message_of_the_assistant() {
    let last = |role: &str, more: &str| {
        let body = format!(
            r#"{{"echo":true,{more}"messages":[{{"role":"assistant"}},{{"content":"x","role":"{role}"}}]}}"#
        );
        chat(&body).echo
    };
    assert!(last("assistant", ""));
    assert!(!last("user", ""));
    assert!(last("user", r#""add_generation_prompt":false,"#));
    assert!(read(Endpoint::Completions, r#"{"echo":true}"#).echo);
}

#[test]
fn other_endpoints_have_other_words() {
    assert_eq!(
        read(Endpoint::Responses, r#"{"max_output_tokens":9}"#).max_tokens,
        Some(9)
    );
    let generate = read(
        Endpoint::Generate,
        r#"{"sampling_params":{"n":2,"max_tokens":4}}"#,
    );
    assert_eq!((generate.n, generate.max_tokens), (2, Some(4)));
}

#[test]
fn a_body_in_one_frame_is_not_copied() {
    let frame = Bytes::from_static(b"{\"model\":\"tiny\"}");
    let mut tee = RequestTee::new(Endpoint::ChatCompletions, 100);
    tee.push(&Bytes::new());
    tee.push(&frame);
    let (facts, body) = tee.finish();
    assert_eq!(facts.model.as_deref(), Some("tiny"));
    assert_eq!(body.unwrap().as_ptr(), frame.as_ptr());
}

#[test]
fn frames_are_joined_up_to_the_limit() {
    let text = format!("{{\"model\":\"tiny\",\"pad\":\"{}\"}}", "x".repeat(1000));
    for size in [1, 10, 500, 2000] {
        for (limit, whole) in [(text.len(), true), (text.len() - 1, false), (0, false)] {
            let mut tee = RequestTee::new(Endpoint::ChatCompletions, limit);
            for frame in text.as_bytes().chunks(size) {
                tee.push(&Bytes::copy_from_slice(frame));
            }
            let (facts, body) = tee.finish();
            assert_eq!(facts.model.is_some(), whole, "{size} {limit}");
            assert_eq!(
                body.is_some_and(|body| body == text),
                whole,
                "{size} {limit}"
            );
        }
    }
}

#[test]
fn what_is_no_json_says_nothing() {
    for body in [
        "",
        "--boundary\r\n",
        "[1]",
        "{\"model\":\"tiny\"",
        "\u{feff}{}",
    ] {
        assert_eq!(chat(body), RequestFacts::default(), "{body}");
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 40, 5, |inner| {
        let key = proptest::sample::select(vec![
            "model",
            "choices",
            "delta",
            "message",
            "content",
            "tool_calls",
            "function",
            "name",
            "usage",
            "index",
            "prompt_tokens",
            "error",
            "code",
            "type",
            "stream",
            "n",
            "messages",
            "role",
            "stream_options",
            "text",
            "metrics",
            "queue_time_ms",
            "finish_reason",
            "response",
            "token_ids",
            "prompt_tokens_details",
        ]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((key, inner), 0..6).prop_map(|fields| {
                fields
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_by_everything(value in json()) {
        let text = value.to_string();
        let endpoints = [Endpoint::ChatCompletions, Endpoint::Messages, Endpoint::Responses, Endpoint::Embeddings];
        for endpoint in endpoints {
            let facts = read(endpoint, &text);
            let kinds: [(u16, &[u8], String); 3] = [
                (200, b"text/event-stream", format!("data: {text}\n\n")),
                (200, b"application/json", text.clone()),
                (500, b"application/json", text.clone()),
            ];
            for (status, content_type, body) in kinds {
                let head = HeadFacts { status, content_type: Some(content_type), content_encoding: None };
                let now = Instant::now();
                let mut observer = ResponseObserver::new(endpoint, facts.clone(), &head, LIMITS, now, true);
                observer.data(body.as_bytes(), now, &mut |_| {});
                let _ = observer.finish(End::Complete, now);
            }
        }
    }

    #[test]
    fn a_good_field_survives_any_neighbour(value in json()) {
        let body = serde_json::json!({
            "max_tokens": value, "stream": value, "n": value, "stream_options": value, "messages": value, "model": "tiny",
        });
        let facts = chat(&body.to_string());
        prop_assert_eq!(facts.model.as_deref(), Some("tiny"));
    }
}
