//! What is read by a template is what a parser would have read.

use super::outcomes::{Answer, STREAM};
use super::quick::tests::without;
use super::*;

fn read(observer: &mut ResponseObserver, stream: &[u8], now: Instant) -> (u32, u32, bool) {
    let mut gaps = 0;
    observer.data(stream, now, &mut |gap| gaps += gap.count);
    (gaps, observer.faults(), observer.done())
}

fn same(mut quick: ResponseObserver, mut slow: ResponseObserver, events: &[Vec<u8>], now: Instant) {
    slow.parse_all();
    for event in events {
        assert_eq!(
            read(&mut quick, event, now),
            without(|| read(&mut slow, event, now)),
            "{}",
            event.escape_ascii()
        );
    }
    assert_eq!(
        quick.finish(End::UpstreamCut, now),
        without(|| slow.finish(End::UpstreamCut, now))
    );
}

#[test]
fn captures_read_the_same() {
    for (capture, _) in expected() {
        let now = Instant::now();
        let (quick, slow) = (capture.observer(now), capture.observer(now));
        same(quick, slow, std::slice::from_ref(&capture.body), now);
    }
}

/// As they are, and over and over, so that most events have one like them before.
#[test]
fn captures_read_the_same_wherever_they_are_cut() {
    for (capture, _) in expected() {
        if !capture.body.starts_with(b"data: ") && !capture.body.starts_with(b"event: ") {
            continue;
        }
        let events = capture.body.split_inclusive(|byte| *byte == b'\n');
        let without_end = events.filter(|line| !line.ends_with(b"[DONE]\n"));
        let twice = without_end.collect::<Vec<_>>().concat().repeat(2);
        for size in [1, 7, 100, 333, 4096] {
            let now = Instant::now();
            let reads: Vec<_> = twice.chunks(size).map(<[u8]>::to_vec).collect();
            same(capture.observer(now), capture.observer(now), &reads, now);
        }
    }
}

#[test]
fn numbers_that_count_up_are_no_new_events() {
    let now = Instant::now();
    for (name, path) in [
        ("chat-stream-usage-continuous", Endpoint::ChatCompletions),
        ("responses-stream", Endpoint::Responses),
    ] {
        let capture = Capture::read(name);
        assert_eq!(capture.endpoint, path);
        let mut observer = capture.observer(now);
        observer.data(&capture.body, now, &mut |_| {});
        assert_eq!(observer.templates_used(), 1, "{name}");
    }
}

/// A number, or nearly.
pub(super) fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0..1000_u32).prop_map(|number| number.to_string()),
        1 => "[0-9]{0,22}",
        1 => proptest::sample::select(vec!["-1", "1.5", "1e3", "null", "\"7\"", "{}", "007", "0"])
            .prop_map(str::to_owned),
    ]
}

/// What may stand in a string, or break out of it.
pub(super) fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-z ]{1,6}".prop_map(String::into_bytes),
        2 => "\\PC{0,6}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..5),
        2 => proptest::sample::select(vec![
            "", "\\n", "\\", "\\\"", "\"", "\u{7f}", "\t", "\\ud83d\\ude00", "a\",\"b\":\"c", "\",\"content\":\"x",
            "\"},\"finish_reason\":\"stop\",\"a\":{\"b\":\"", "\"}}]}\n\ndata: {\"error\":\"x", "é", "[DONE]",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

/// Frames of a few kinds, so that those of one kind follow each other.
fn event() -> impl Strategy<Value = Vec<u8>> {
    let frames = [
        r#"{"model":"m","choices":[{"index":0,"delta":{"content":"#,
        r#"{"model":"m","choices":[{"index":1,"delta":{"content":"#,
        r#"{"model":"m","choices":[{"index":0,"delta":{"reasoning":"#,
        r#"{"model":"m","choices":[{"index":0,"delta":{"reasoning":"a","reasoning_content":"#,
        r#"{"model":"m","choices":[{"index":0,"delta":{"content":"","reasoning_content":"#,
        r#"{"model":"m","choices":[{"index":0,"delta":{"refusal":"no","content":"#,
        r#"{"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"function":{"arguments":"{}"}}],"content":"#,
        r#"{"model":"m","choices":[{"index":0,"token_ids":[4],"delta":{"content":"#,
        r#"{"model":"m","choices":[{"index":0,"finish_reason":"stop","delta":{"content":"#,
        r#"{"model":"m","usage":{"completion_tokens":3},"choices":[{"index":0,"delta":{"content":"#,
        r#"{"model":"m","metrics":{"queue_time_ms":1},"choices":[{"index":0,"delta":{"content":"#,
        r#"{"model":"m","error":{"message":"x"},"choices":[{"index":0,"delta":{"content":"#,
        r#"{"model":"m","choices":[{"index":0,"delta":{"other":"#,
    ];
    let after = proptest::sample::select(vec![
        "}}]}",
        "}}]}",
        "}}]}",
        "}},{}]}",
        "},\"text\":\"t\"}]}",
        "}]}",
        "}}],\"usage\":{\"prompt_tokens\":#,\"total_tokens\":#,\"completion_tokens\":#}}",
        "}}],\"usage\":{\"prompt_tokens\":#,\"total_tokens\":#,\"completion_tokens\":#}}",
        "}}],\"usage\":{\"prompt_tokens\":#,\"total_tokens\":#,\"completion_tokens\":#,\"x\":null}}",
        "}}],\"usage\":{\"prompt_tokens\":#,\"total_tokens\":#,\"completion_tokens\":#,\"prompt_tokens_details\":{\"cached_tokens\":#}}}",
        "},\"usage\":{\"prompt_tokens\":1,\"total_tokens\":2,\"completion_tokens\":#}}],\"usage\":{\"prompt_tokens\":#,\"total_tokens\":#,\"completion_tokens\":#}}",
        "},\"usage\":{\"prompt_tokens\":#,\"total_tokens\":#,\"completion_tokens\":#}}],\"us\\u0061ge\":{\"completion_tokens\":4}}",
        "},\"usage\":{\"prompt_tokens\":#,\"total_tokens\":#,\"completion_tokens\":#}}],\"usage\" :{\"completion_tokens\":4}}",
        "}}],\"usage\":{\"completion_tokens\":#,\"prompt_tokens\":#}}",
        "}}],\"sequence_number\":#}",
    ]);
    let frame =
        proptest::sample::select(vec![0, 0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let numbers = proptest::collection::vec(number(), 6);
    (frame, text(), after, numbers).prop_map(move |(frame, text, after, numbers)| {
        let after = with_numbers(after, &numbers);
        [
            b"data: ",
            frames[frame].as_bytes(),
            b"\"",
            &text,
            b"\"",
            after.as_bytes(),
            b"\n\n",
        ]
        .concat()
    })
}

pub(super) fn with_numbers(text: &str, numbers: &[String]) -> String {
    let mut numbers = numbers.iter().cycle();
    let mut new = String::new();
    for (at, part) in text.split('#').enumerate() {
        if at > 0 {
            new += numbers.next().unwrap();
        }
        new += part;
    }
    new
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn responses_read_the_same(texts in proptest::collection::vec((text(), 0..6_usize, number()), 1..30)) {
        let frames = [
            ("", r#"{"index":0,"delta":"@","item":"m","sequence_number":#,"type":"response.output_text.delta"}"#),
            ("", r#"{"index":0,"delta":"@","item":"m","sequence_number":#,"type":"response.reasoning_text.delta"}"#),
            ("", r#"{"type":"response.output_text.delta","delta":"@","sequence_number":#}"#),
            ("", r#"{"type":"response.output_text.delta","delta":"@","x":"\"sequence_number\":#,"}"#),
            ("event: response.output_text.delta\n", r#"{"delta":"@","sequence_number":#}"#),
            ("event: ping\n", r#"{"delta":"@","sequence_number":#}"#),
        ];
        let events: Vec<_> = texts.iter().map(|(text, frame, number)| {
            let (name, data) = frames[*frame];
            let (before, after) = data.split_once('@').unwrap();
            let after = with_numbers(after, std::slice::from_ref(number));
            [name.as_bytes(), b"data: ", before.as_bytes(), text, after.as_bytes(), b"\n\n"].concat()
        }).collect();
        let now = Instant::now();
        let head = HeadFacts { status: 200, content_type: Some(b"text/event-stream"), content_encoding: None };
        let observer = || {
            ResponseObserver::new(Endpoint::Responses, RequestFacts::default(), &head, LIMITS, now, true)
        };
        same(observer(), observer(), &events, now);
    }

    #[test]
    fn messages_read_the_same(texts in proptest::collection::vec((text(), 0..5_usize), 1..30)) {
        let frames: [(&str, &str); 5] = [
            ("", r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"#),
            ("", r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"#),
            ("", r#"{"type":"content_block_delta","delta":{"thinking":"","partial_json":"#),
            ("event: content_block_delta\n", r#"{"delta":{"text":"#),
            ("event: ping\n", r#"{"delta":{"text":"#),
        ];
        let events: Vec<_> = texts.iter().map(|(text, frame)| {
            let (name, data) = frames[*frame];
            [name.as_bytes(), b"data: ", data.as_bytes(), b"\"", text, b"\"}}\n\n"].concat()
        }).collect();
        let now = Instant::now();
        let head = HeadFacts { status: 200, content_type: Some(b"text/event-stream"), content_encoding: None };
        let observer = || {
            ResponseObserver::new(Endpoint::Messages, RequestFacts::default(), &head, LIMITS, now, true)
        };
        same(observer(), observer(), &events, now);
    }

    #[test]
    fn streams_read_the_same(events in proptest::collection::vec(event(), 1..30), echo: bool, small: bool) {
        let answer = Answer {
            limits: Limits { text: if small { 9 } else { 1 << 16 }, ..LIMITS },
            ..STREAM
        };
        let facts = RequestFacts { echo, ..RequestFacts::default() };
        let now = Instant::now();
        let head = HeadFacts { status: 200, content_type: Some(b"text/event-stream"), content_encoding: None };
        let observer = || ResponseObserver::new(answer.endpoint, facts.clone(), &head, answer.limits, now, true);
        same(observer(), observer(), &events, now);
    }
}
