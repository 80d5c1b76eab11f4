//! Shapes that no capture has: vLLM's Rust frontend, its older and rarer answers, ids instead of usage, replays.

use super::outcomes::{Answer, BODY, STREAM};
use super::*;
use crate::outcome::TokenSource;

const DONE: &str = "data: [DONE]\n\n";

fn run(answer: &Answer, facts: RequestFacts, body: &str, end: End) -> (Record, u32) {
    let mut observer = answer.observer(facts);
    let mut gaps = 0;
    observer.data(body.as_bytes(), Instant::now(), &mut |gap| {
        gaps += gap.count
    });
    (observer.finish(end, Instant::now()), gaps)
}

fn chunk(choices: &str, more: &str) -> String {
    format!("data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{choices}]{more}}}\n\n")
}

#[test]
fn the_rust_frontend_leaves_out_what_is_unset() {
    let chat = chunk(r#"{"index":0,"delta":{"role":"assistant"}}"#, "")
        + &chunk(r#"{"index":0,"delta":{"reasoning":"hm"}}"#, "")
        + &chunk(r#"{"index":0,"delta":{"content":"a"}}"#, "")
        + &chunk(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#, "")
        + &chunk(
            "",
            r#","usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2}"#,
        )
        + DONE;
    let (record, gaps) = run(&STREAM, RequestFacts::default(), &chat, End::Complete);
    assert_eq!(
        (label(record.outcome), gaps, record.faults),
        ("success", 1, 0)
    );
    assert_eq!(record.output_tokens, Some((2, TokenSource::Usage)));
    assert_eq!(record.finish_reasons.len(), 1);
    let role = chunk(r#"{"index":0,"delta":{"role":"assistant"}}"#, "");
    let (record, _) = run(&STREAM, RequestFacts::default(), &role, End::ClientGone);
    assert_eq!(label(record.outcome), "before_first_token");
    let completions = Answer {
        endpoint: Endpoint::Completions,
        ..STREAM
    };
    let stream = chunk(r#"{"index":0,"text":"a"}"#, "")
        + &chunk(r#"{"index":0,"text":"b","finish_reason":"length"}"#, "")
        + DONE;
    let (record, gaps) = run(
        &completions,
        RequestFacts::default(),
        &stream,
        End::Complete,
    );
    assert_eq!((label(record.outcome), gaps), ("success", 1));
    let refused = Answer {
        endpoint: Endpoint::Messages,
        status: 501,
        ..BODY
    };
    let body = r#"{"error":{"message":"not here","type":"NotImplementedError","code":501}}"#;
    assert_eq!(
        label(refused.ends(body, End::Complete).outcome),
        "not_implemented"
    );
}

#[test]
fn ids_count_a_stream_that_was_cut_if_none_are_missing() {
    let first = chunk(
        r#"{"index":0,"delta":{"role":"assistant","content":""}}"#,
        r#","prompt_token_ids":[1,2,3]"#,
    );
    let ids = |text: &str, ids: &str| {
        chunk(
            &format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"token_ids":{ids}}}"#),
            "",
        )
    };
    let stream = first + &ids("ab", "[7,8]") + &ids("", "[9]") + &ids("c", "[]");
    let (record, _) = run(&STREAM, RequestFacts::default(), &stream, End::ClientGone);
    assert_eq!(record.input_tokens, Some((3, TokenSource::Partial)));
    assert_eq!(record.output_tokens, Some((3, TokenSource::Partial)));
    assert_eq!(record.text, None);
    let whole = stream.clone() + DONE;
    let (record, _) = run(&STREAM, RequestFacts::default(), &whole, End::Complete);
    assert_eq!(record.output_tokens, Some((3, TokenSource::Usage)));
    for lacking in [
        ids("d", "null"),
        chunk(r#"{"index":0,"delta":{"content":"d"}}"#, ""),
    ] {
        let stream = stream.clone() + &lacking + &ids("e", "[4]");
        let (record, _) = run(&STREAM, RequestFacts::default(), &stream, End::ClientGone);
        assert_eq!(record.output_tokens, None);
        assert_eq!(
            record
                .text
                .unwrap()
                .choices()
                .map(|kept| kept.text.as_str())
                .collect::<String>(),
            "abcde"
        );
    }
    // Usage knows better.
    let usage = chunk("", r#","usage":{"prompt_tokens":5,"completion_tokens":6}"#);
    let (record, _) = run(
        &STREAM,
        RequestFacts::default(),
        &(stream + &usage),
        End::UpstreamCut,
    );
    assert_eq!(record.input_tokens, Some((5, TokenSource::Usage)));
    assert_eq!(record.output_tokens, Some((6, TokenSource::Usage)));
}

#[test]
fn each_prompt_of_several_counts_once() {
    let answer = Answer {
        endpoint: Endpoint::Completions,
        ..STREAM
    };
    let facts = RequestFacts {
        n: 2,
        ..RequestFacts::default()
    };
    let first = |index: u32, prompt: &str| {
        chunk(
            &format!(
                r#"{{"index":{index},"text":"a","token_ids":[5],"prompt_token_ids":{prompt}}}"#
            ),
            "",
        )
    };
    let stream =
        first(2, "[1,2,3]") + &first(0, "[1,2]") + &first(3, "[1,2,3]") + &first(1, "[1,2]");
    let (record, _) = run(&answer, facts, &stream, End::UpstreamCut);
    assert_eq!(record.input_tokens, Some((5, TokenSource::Partial)));
    assert_eq!(record.output_tokens, Some((4, TokenSource::Partial)));
}

#[test]
fn what_is_read_again_has_no_token_times() {
    let answer = Answer {
        endpoint: Endpoint::Responses,
        ..STREAM
    };
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n";
    let end = "data: {\"type\":\"response.completed\",\"response\":{\"model\":\"m\",\"status\":\"completed\",\
               \"usage\":{\"input_tokens\":3,\"output_tokens\":2}}}\n\n";
    for replay in [false, true] {
        let facts = RequestFacts {
            replay,
            ..RequestFacts::default()
        };
        let stream = delta.repeat(2) + end;
        let (record, gaps) = run(&answer, facts.clone(), &stream, End::Complete);
        assert_eq!((record.ttft.is_none(), gaps), (replay, u32::from(!replay)));
        assert_eq!(record.first_answer.is_none(), replay);
        assert_eq!(record.output_tokens, Some((2, TokenSource::Usage)));
        assert!(record.stream);
        let (cut, _) = run(&answer, facts, delta, End::Complete);
        assert_eq!(label(cut.outcome), "stream_truncated");
        assert_eq!(cut.text.is_none(), replay);
    }
}

#[test]
fn the_frontends_time_is_what_the_engine_does_not_account_for() {
    let name = "chat-stream-metrics";
    let capture = Capture::read(name);
    let (record, _) = capture.observe([capture.body.as_slice()], End::Complete);
    // As the recording has them: 2.134325000042736 and 0.011467000149423257 ms; the test's TTFT is 7 ms.
    assert_eq!(record.engine_ttft, Some(Duration::from_nanos(2_134_325)));
    assert_eq!(record.queue, Some(Duration::from_nanos(11_467)));
    assert_eq!(
        record.frontend(),
        Some(Duration::from_nanos(7_000_000 - 2_134_325 - 11_467))
    );
    let slow = Record {
        queue: Some(Duration::from_secs(9)),
        ..record
    };
    assert_eq!(slow.frontend(), Some(Duration::ZERO));
    let body = Capture::read("chat-nonstream-metrics");
    let (record, _) = body.observe([body.body.as_slice()], End::Complete);
    assert!(record.queue.is_some() && record.engine_ttft.is_some());
    assert_eq!(record.frontend(), None);
    let responses = Capture::read("responses-stream-metrics");
    let (record, _) = responses.observe([responses.body.as_slice()], End::Complete);
    assert!(record.frontend().is_some());
}

#[test]
fn answers_that_generate_nothing() {
    let other = |endpoint| Answer { endpoint, ..BODY };
    for (endpoint, body, input) in [
        (
            Endpoint::Tokenize,
            r#"{"count":3,"max_model_len":9,"tokens":[1,2,3]}"#,
            None,
        ),
        (Endpoint::Tokenize, r#"{"input_tokens":3}"#, None),
        (
            Endpoint::Rerank,
            r#"{"id":"r","model":"m","usage":{"prompt_tokens":3,"total_tokens":3},"results":[]}"#,
            Some(3),
        ),
        (
            Endpoint::Embeddings,
            r#"{"id":"e","embeddings":{"float":[[0.5]]},"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":3,"image_tokens":4}}}"#,
            Some(7),
        ),
        (
            Endpoint::Embeddings,
            r#"{"meta":{"billed_units":null}}"#,
            None,
        ),
        (
            Endpoint::Other,
            r#"{"id":"d","usage":{"input_tokens":3,"output_tokens":0}}"#,
            Some(3),
        ),
    ] {
        let record = other(endpoint).ends(body, End::Complete);
        assert_eq!(
            (label(record.outcome), record.faults),
            ("success", 0),
            "{body}"
        );
        assert_eq!(record.input_tokens.map(|count| count.0), input, "{body}");
    }
    let long = format!(
        r#"{{"embeddings":{{"float":[[{}1]]}},"meta":{{"billed_units":{{"input_tokens":3,"image_tokens":0}}}}}}"#,
        "0.25,".repeat(30_000)
    );
    let record = other(Endpoint::Embeddings).ends(&long, End::Complete);
    assert_eq!(record.input_tokens.map(|count| count.0), Some(3));
    let bytes = Answer {
        content_type: "application/octet-stream",
        ..other(Endpoint::Embeddings)
    };
    let record = bytes.ends("{\"usage\":{\"prompt_tokens\":9", End::Complete);
    assert_eq!((record.input_tokens, record.faults), (None, 0));
    assert_eq!(label(bytes.ends("{", End::ClientGone).outcome), "streaming");
    assert_eq!(
        label(bytes.ends("{", End::UpstreamCut).outcome),
        "upstream_reset"
    );
}

#[test]
fn invocations_are_read_by_their_shape() {
    let read = |body: &str| {
        let mut tee = RequestTee::new(Endpoint::Other, 1 << 20);
        tee.push(&Bytes::copy_from_slice(body.as_bytes()));
        tee.finish().0
    };
    let other = Answer {
        endpoint: Endpoint::Other,
        ..STREAM
    };
    let chat = read(
        r#"{"model":"m","stream":true,"echo":true,"messages":[{"role":"user"},{"role":"assistant"}]}"#,
    );
    assert!(chat.chat && chat.stream && chat.echo);
    let stream = chunk(r#"{"delta":{"content":"prompt"}}"#, "")
        + &chunk(r#"{"delta":{"content":"a"}}"#, "")
        + DONE;
    let (record, gaps) = run(&other, chat, &stream, End::Complete);
    assert_eq!(
        (
            gaps,
            record
                .text
                .unwrap()
                .choices()
                .map(|kept| kept.text.as_str())
                .collect::<String>()
                .as_str()
        ),
        (0, "a")
    );
    let completions = read(r#"{"model":"m","stream":true,"echo":true,"prompt":"x"}"#);
    assert!(!completions.chat && completions.echo);
    let stream = chunk(r#"{"text":"prompt a"}"#, "") + &chunk(r#"{"text":" b"}"#, "") + DONE;
    let (record, gaps) = run(&other, completions, &stream, End::Complete);
    assert_eq!(
        (
            gaps,
            record
                .text
                .unwrap()
                .choices()
                .map(|kept| kept.text.as_str())
                .collect::<String>()
                .as_str()
        ),
        (1, " b")
    );
    let nothing = read(r#"{"echo":true,"messages":[{"role":"user"}]}"#);
    assert!(!nothing.echo);
}
