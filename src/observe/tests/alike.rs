//! What is read by the shape of an earlier document is what a parser would have read.

use super::quick::tests::without;
use super::shape::{self, Form};
use super::templates::{number, text, with_numbers};
use super::*;

/// Documents of one engine: `@` is a text, `#` a number.
const DOCUMENTS: [&str; 14] = [
    r#"{"id":"@","object":"c","created":#,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"@"},"finish_reason":"stop"}],"usage":{"prompt_tokens":#,"total_tokens":#,"completion_tokens":#,"prompt_tokens_details":null},"metrics":null}"#,
    r#"{"id":"@","object":"c","created":#,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"@"},"finish_reason":"length"}],"usage":{"prompt_tokens":#,"total_tokens":#,"completion_tokens":#,"prompt_tokens_details":null},"metrics":null}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"prompt_token_ids":null}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[{"index":0,"delta":{"content":"@"},"finish_reason":null}]}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[{"index":1,"delta":{"reasoning":"@"},"finish_reason":null}]}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[{"index":0,"delta":{"content":"@"},"finish_reason":"stop"}]}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[{"index":0,"delta":{"content":"@"},"finish_reason":"stop"}],"usage":{"prompt_tokens":#,"total_tokens":#,"completion_tokens":#}}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[],"usage":{"prompt_tokens":#,"total_tokens":#,"completion_tokens":#},"x":"@"}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[],"usage":{"prompt_tokens":#,"completion_tokens":#,"prompt_tokens_details":{"cached_tokens":#}}}"#,
    r#"{"model":"m","id":"@","id":#,"created":"@","choices":[{"index":#,"text":"@","usage":{"prompt_tokens":#}}],"usage":{"prompt_tokens":#,"completion_tokens":#}}"#,
    r#"{"id":"@","created":#,"model":"@","choices":[{"text":"@","reasoning":"@","token_ids":null}],"usage":null}"#,
    r#"{"id":"@","created":#,"model":"m","choices":[{"text":"@","token_ids":[#]}],"usage":{"prompt_tokens":#,"completion_tokens":#}}"#,
    r#"{"id":"@","created":#,"error":{"message":"@","code":#},"model":"m","choices":[{"text":"@"}],"usage":{"prompt_tokens":#,"completion_tokens":#}}"#,
    r#"{"id":"@","created":#,"model":"m","data":[#],"usage":{"prompt_tokens":#,"total_tokens":#}}"#,
];

fn document() -> impl Strategy<Value = Vec<u8>> {
    let which = prop_oneof![3 => 0..8_usize, 1 => 8..DOCUMENTS.len()];
    let texts = proptest::collection::vec(text(), 4);
    let numbers = proptest::collection::vec(number(), 6);
    (which, texts, numbers).prop_map(|(which, texts, numbers)| {
        let document = with_numbers(DOCUMENTS[which], &numbers);
        let mut new = Vec::new();
        for (at, part) in document.split('@').enumerate() {
            if at > 0 {
                new.extend_from_slice(&texts[at % texts.len()]);
            }
            new.extend_from_slice(part.as_bytes());
        }
        new
    })
}

fn observer(form: Form, echo: bool, keep: bool, now: Instant) -> ResponseObserver {
    let head = HeadFacts {
        status: 200,
        content_type: Some(match form {
            Form::Event => b"text/event-stream",
            Form::Body => b"application/json",
        }),
        content_encoding: None,
    };
    let facts = RequestFacts {
        echo,
        ..RequestFacts::default()
    };
    ResponseObserver::new(Endpoint::Completions, facts, &head, LIMITS, now, keep)
}

fn record(form: Form, reads: &[Vec<u8>], echo: bool, keep: bool, now: Instant) -> (Record, u32) {
    let mut observer = observer(form, echo, keep, now);
    let mut gaps = 0;
    for read in reads {
        observer.data(read, now, &mut |gap| gaps += gap.count);
    }
    (observer.finish(End::UpstreamCut, now), gaps)
}

#[test]
fn what_differs_in_nothing_that_counts_is_known() {
    let mut progress = super::progress::Progress::new(
        crate::observe::timing::Timing::new(Instant::now()),
        super::progress::Echo::None,
        1,
        None,
    );
    let body = Capture::read("chat-nonstream").body;
    let body = String::from_utf8(body).unwrap();
    record(
        Form::Body,
        &[body.clone().into_bytes()],
        false,
        false,
        Instant::now(),
    );
    let other = body
        .replace("chatcmpl-", "chatcmpl-0123")
        .replace("eningrection", "a\\n\\\"b\\\"")
        .replace("\"created\":1", "\"created\":9")
        .replace("\"completion_tokens\":8", "\"completion_tokens\":4711");
    assert_ne!(body, other);
    assert!(shape::looks_known(
        Form::Body,
        other.as_bytes(),
        &mut progress
    ));
    let tokens = progress.tokens(true);
    assert_eq!(tokens.input.map(|(count, _)| count), Some(17));
    assert_eq!(tokens.output.map(|(count, _)| count), Some(4711));
    for (from, to) in [
        ("\"length\"", "\"stop\""),
        ("\"tiny\"", "\"huge\""),
        ("\"content\":\"", "\"content\":\"\\u0061"),
        ("\"index\":0", "\"index\":1"),
        ("\"completion_tokens\":8", "\"completion_tokens\":08"),
        ("\"completion_tokens\":8", "\"completion_tokens\":8.0"),
        ("\"metrics\":null", "\"metrics\":{}"),
        ("}]", "},{}]"),
    ] {
        let other = body.replacen(from, to, 1);
        assert_ne!(body, other);
        let known = shape::looks_known(Form::Body, other.as_bytes(), &mut progress);
        assert!(!known, "{other}");
    }
    assert!(!shape::looks_known(
        Form::Event,
        body.as_bytes(),
        &mut progress
    ));
}

#[test]
fn captures_read_the_same_the_second_time() {
    for _ in 0..3 {
        for (capture, _) in expected() {
            let now = Instant::now();
            let read = || {
                let mut observer = capture.observer(now);
                observer.data(&capture.body, now, &mut |_| {});
                observer.finish(End::Complete, now)
            };
            assert_eq!(read(), without(read), "{}", capture.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn documents_read_the_same(documents in proptest::collection::vec(document(), 1..20), echo: bool, keep: bool) {
        let now = Instant::now();
        let events: Vec<_> = documents
            .iter()
            .map(|document| [b"data: ", &document[..], b"\n\n"].concat())
            .collect();
        let read = || record(Form::Event, &events, echo, keep, now);
        assert_eq!(read(), without(read));
        for document in documents {
            let read = || record(Form::Body, std::slice::from_ref(&document), echo, keep, now);
            assert_eq!(read(), without(read), "{}", document.escape_ascii());
        }
    }
}
