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

/// One change to a document, anywhere.
fn change(
    document: &mut Vec<u8>,
    at: prop::sample::Index,
    kind: u8,
    byte: u8,
    other: prop::sample::Index,
) {
    const BYTES: &[u8] = b"\"\\{}[],:0123456789eE.-+ \n\t\0aunbx/\xff\xc3\xa9";
    const WORDS: [&str; 22] = [
        "null",
        "{}",
        "[]",
        "0",
        "-0",
        "01",
        "1e2",
        "1.0",
        "12345678901234567890",
        "99999999999999999999999",
        "\"\"",
        "\"\\u0061\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "true",
        "{\"cached_tokens\":1}",
        "[1]",
        "\"x\"",
        "[{\"index\":0,\"delta\":{\"content\":\"y\"}}]",
        "{\"prompt_tokens\":5,\"completion_tokens\":6}",
        "1E400",
        "{\"message\":\"m\",\"code\":503}",
    ];
    const FIELDS: [&str; 12] = [
        "\"model\":\"n\",",
        "\"usage\":null,",
        "\"error\":{\"message\":\"m\"},",
        "\"error\":null,",
        "\"id\":1,",
        "\"created\":{},",
        "\"choices\":[],",
        "\"prompt_token_ids\":[1],",
        "\"metrics\":{\"queue_time_ms\":5},",
        "\"\\u0069d\":2,",
        "\"usage\":{},",
        "\"text\":\"z\",",
    ];
    if document.is_empty() {
        return;
    }
    let here = at.index(document.len());
    match kind % 7 {
        0 => document[here] = BYTES[usize::from(byte) % BYTES.len()],
        1 => document.insert(here, BYTES[usize::from(byte) % BYTES.len()]),
        2 => drop(document.remove(here)),
        3 => document.truncate(here),
        // A value for another: from behind a colon to what may end it.
        4 => {
            let colons: Vec<_> = (0..document.len())
                .filter(|at| document[*at] == b':')
                .collect();
            if colons.is_empty() {
                return;
            }
            let from = colons[at.index(colons.len())] + 1;
            let quoted = document.get(from) == Some(&b'"');
            let mut end = from + usize::from(quoted);
            while document.get(end).is_some_and(|byte| {
                if quoted {
                    *byte != b'"'
                } else {
                    !b",}]".contains(byte)
                }
            }) {
                end += 1;
            }
            end = (end + usize::from(quoted)).min(document.len());
            document.splice(from..end, WORDS[other.index(WORDS.len())].bytes());
        }
        // A field more.
        5 => {
            let places: Vec<_> = (0..document.len())
                .filter(|at| document[*at] == b'{' || document[*at] == b',')
                .collect();
            if !places.is_empty() {
                let from = places[at.index(places.len())] + 1;
                document.splice(from..from, FIELDS[other.index(FIELDS.len())].bytes());
            }
        }
        // A part again.
        _ => {
            let end = other.index(document.len());
            let (from, end) = (here.min(end), here.max(end));
            let part = document[from..end].to_vec();
            document.splice(end..end, part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_documents_read_the_same(
        base in document(),
        changes in proptest::collection::vec(
            proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>(), any::<prop::sample::Index>()), 0..3), 1..12),
        echo: bool, keep: bool, learning: bool,
    ) {
        let now = Instant::now();
        let mut documents = vec![base.clone(), base.clone()];
        for changes in changes {
            let mut new = base.clone();
            for (at, kind, byte, other) in changes {
                change(&mut new, at, kind, byte, other);
            }
            documents.push(new);
        }
        let events: Vec<_> = documents
            .iter()
            .map(|document| [b"data: ", &document[..], b"\n\n"].concat())
            .collect();
        let run = |form, reads: &[Vec<u8>], all: bool| {
            let mut observer = observer(form, echo, keep, now).learning(learning && keep);
            if all {
                observer.parse_all();
            }
            for read in reads {
                observer.data(read, now, &mut |_| {});
            }
            let done = observer.done();
            (observer.finish(End::Complete, now), done)
        };
        for _ in 0..2 {
            prop_assert_eq!(run(Form::Event, &events, false), without(|| run(Form::Event, &events, true)));
            // Each alone too: what ends a stream hides what is behind it.
            for event in &events {
                let both = [events[0].clone(), event.clone()];
                prop_assert_eq!(run(Form::Event, &both, false), without(|| run(Form::Event, &both, true)), "{}", event.escape_ascii());
            }
            for document in &documents {
                let body = std::slice::from_ref(document);
                prop_assert_eq!(run(Form::Body, body, false), without(|| run(Form::Body, body, true)), "{}", document.escape_ascii());
            }
        }
    }
}
