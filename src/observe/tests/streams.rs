//! What counts as a token, as usage, as text: the traps that the captures do not hold.

use std::time::Instant;

use super::outcomes::{Answer, BODY, STREAM};
use super::*;
use crate::outcome::TokenSource;
use crate::record::FinishReason;

fn chat(choice: &str) -> String {
    format!("data: {{\"model\":\"m\",\"choices\":[{choice}]}}\n\n")
}

fn run(answer: &Answer, facts: RequestFacts, stream: &str, end: End) -> (Record, u32) {
    let mut observer = answer.observer(facts);
    let mut gaps = 0;
    observer.data(stream.as_bytes(), Instant::now(), &mut |gap| {
        gaps += gap.count
    });
    (observer.finish(end, Instant::now()), gaps)
}

fn plain(stream: &str, end: End) -> (Record, u32) {
    run(&STREAM, RequestFacts::default(), stream, end)
}

#[test]
fn what_is_a_token_and_what_is_an_answer() {
    for (choice, token, answer) in [
        (
            r#"{"delta":{"role":"assistant","content":""}}"#,
            false,
            false,
        ),
        (r#"{"delta":{"role":"assistant"}}"#, false, false),
        (r#"{"delta":{"content":null}}"#, false, false),
        (r#"{"delta":{},"finish_reason":"stop"}"#, false, false),
        (r#"{"delta":{"content":" "}}"#, true, true),
        (r#"{"delta":{"content":"\n\"é\ud83d\ude00"}}"#, true, true),
        (r#"{"delta":{"refusal":"no"}}"#, true, true),
        (r#"{"delta":{"reasoning":"hm"}}"#, true, false),
        (r#"{"delta":{"reasoning_content":"hm"}}"#, true, false),
        (r#"{"delta":{"reasoning":"","content":"a"}}"#, true, true),
        (
            r#"{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}}"#,
            true,
            true,
        ),
        (
            r#"{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\""}}]}}"#,
            true,
            true,
        ),
        (
            r#"{"delta":{"tool_calls":[{"index":0,"function":{"name":"","arguments":""}}]}}"#,
            false,
            false,
        ),
        (r#"{"delta":{"tool_calls":[]}}"#, false, false),
        (r#"{"delta":{"tool_calls":null}}"#, false, false),
        (r#"{"delta":{"function_call":{"name":"f"}}}"#, true, true),
        (r#"{"text":"a"}"#, true, true),
        (r#"{"text":""}"#, false, false),
        (r#"{"token_ids":[5]}"#, true, true),
        (r#"{"token_ids":[]}"#, false, false),
        (r#"{"delta":{"content":""},"token_ids":[5]}"#, true, false),
        (
            r#"{"delta":{"reasoning":"hm"},"token_ids":[5]}"#,
            true,
            false,
        ),
        (r#"{"delta":{"content":7}}"#, false, false),
        (r#"{"delta":"what"}"#, false, false),
        ("7", false, false),
    ] {
        let (record, _) = plain(&chat(choice), End::ClientGone);
        if choice == "7" {
            assert_eq!(record.faults, 1);
            continue;
        }
        assert_eq!(record.faults, 0, "{choice}");
        assert_eq!(record.ttft.is_some(), token, "{choice}");
        assert_eq!(record.first_answer.is_some(), answer, "{choice}");
    }
    let comments =
        ": keep-alive\n\n".repeat(3) + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    assert_eq!(plain(&comments, End::ClientGone).0.ttft, None);
}

#[test]
fn gaps_are_counted_by_choice() {
    let stream: String = [0, 1, 0, 1, 2, 0]
        .map(|index| chat(&format!(r#"{{"index":{index},"delta":{{"content":"a"}}}}"#)))
        .concat();
    assert_eq!(plain(&stream, End::ClientGone).1, 2 + 1);
}

#[test]
fn finish_reasons_are_one_a_choice() {
    let stream = chat(r#"{"index":1,"delta":{},"finish_reason":"length"}"#)
        + &chat(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#)
        + &chat(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#)
        + &chat(r#"{"index":2,"delta":{},"finish_reason":"???"}"#);
    let reasons = plain(&stream, End::Complete).0.finish_reasons;
    assert_eq!(
        reasons.as_slice(),
        [
            FinishReason::Length,
            FinishReason::Stop,
            FinishReason::Other
        ]
    );
}

#[test]
fn continuous_usage_is_taken_last_and_added_up_over_choices_only() {
    let chunk = |index: u32, tokens: u32| {
        format!(
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"a\"}}}}],\
             \"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":{tokens}}}}}\n\n"
        )
    };
    let stream = chunk(0, 1) + &chunk(1, 1) + &chunk(0, 2) + &chunk(0, 4);
    let (cut, _) = plain(&stream, End::UpstreamCut);
    assert_eq!(cut.output_tokens, Some((5, TokenSource::Partial)));
    assert_eq!(cut.input_tokens, Some((5, TokenSource::Partial)));
    assert_eq!(cut.text, None);
    let (done, _) = plain(&(stream.clone() + "data: [DONE]\n\n"), End::Complete);
    assert_eq!(done.output_tokens, Some((5, TokenSource::Usage)));
    let last = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6}}\n\n";
    let (cut, _) = plain(&(stream + last), End::ClientGone);
    assert_eq!(cut.output_tokens, Some((6, TokenSource::Usage)));
}

fn texts(text: &crate::record::EstimateText) -> Vec<&str> {
    text.choices().map(|kept| kept.text.as_str()).collect()
}

#[test]
fn text_is_kept_until_usage_makes_it_needless() {
    let stream = chat(r#"{"delta":{"reasoning":"a","reasoning_content":"a"}}"#)
        + &chat(r#"{"delta":{"content":"b\n"}}"#)
        + &chat(r#"{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}"#)
        + &chat(r#"{"index":1,"text":"é"}"#);
    // A promise of usage is none until it is kept: the cut stream needs the estimate all the same.
    let promised = RequestFacts {
        include_usage: true,
        ..RequestFacts::default()
    };
    let (record, _) = run(&STREAM, promised, &stream, End::UpstreamCut);
    let text = record.text.unwrap();
    assert_eq!(
        (texts(&text), text.truncated),
        (vec!["ab\nf{}", "é"], false)
    );
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6}}\n\n";
    assert_eq!(
        plain(&(stream.clone() + usage), End::UpstreamCut).0.text,
        None
    );
    let small = Answer {
        limits: Limits { text: 7, ..LIMITS },
        ..STREAM
    };
    let text = run(&small, RequestFacts::default(), &stream, End::UpstreamCut)
        .0
        .text
        .unwrap();
    assert_eq!((texts(&text), text.truncated), (vec!["ab\nf{}"], true));
    let (body, _) = run(
        &BODY,
        RequestFacts::default(),
        r#"{"choices":[{"message":{"content":"hi"}}]}"#,
        End::Complete,
    );
    assert_eq!(texts(&body.text.unwrap()), ["hi"]);
}

#[test]
fn text_is_kept_beside_usage_to_learn_from() {
    let usage = r#","usage":{"prompt_tokens":5,"completion_tokens":2}"#;
    let body = format!(r#"{{"choices":[{{"message":{{"content":"hi"}}}}]{usage}}}"#);
    let stream = chat(r#"{"delta":{"content":"a"}}"#)
        + &chat(r#"{"delta":{"content":"b"}}"#)
        + &format!("data: {{\"choices\":[]{usage}}}\n\n");
    for (content_type, body, want) in [
        ("text/event-stream", stream, "ab"),
        ("application/json", body, "hi"),
    ] {
        let head = HeadFacts {
            status: 200,
            content_type: Some(content_type.as_bytes()),
            content_encoding: None,
        };
        let now = std::time::Instant::now();
        let endpoint = Endpoint::ChatCompletions;
        let facts = RequestFacts::default();
        let observer = ResponseObserver::new(endpoint, facts, &head, LIMITS, now, true);
        let mut observer = observer.learning(true);
        observer.data(body.as_bytes(), now, &mut |_| ());
        let record = observer.finish(End::Complete, now);
        assert_eq!(record.output_tokens, Some((2, TokenSource::Usage)));
        assert_eq!(texts(&record.text.unwrap()), [want]);
    }
}

#[test]
fn an_echoed_prompt_is_no_token() {
    let echo = |max_tokens| RequestFacts {
        echo: true,
        max_tokens,
        ..RequestFacts::default()
    };
    // Chat: a frame of its own for each choice.
    let chunk = |index: u32, text: &str| {
        chat(&format!(
            r#"{{"index":{index},"delta":{{"content":"{text}"}}}}"#
        ))
    };
    let stream = chunk(0, "prompt") + &chunk(1, "prompt") + &chunk(0, "a") + &chunk(0, "b");
    let (record, gaps) = run(&STREAM, echo(None), &stream, End::ClientGone);
    assert_eq!((gaps, texts(&record.text.unwrap())), (1, vec!["ab"]));
    assert_eq!(
        run(&STREAM, echo(None), &chunk(0, "prompt"), End::ClientGone)
            .0
            .ttft,
        None
    );
    // Completions: vLLM sends the prompt and the first token in one frame.
    let completions = Answer {
        endpoint: Endpoint::Completions,
        ..STREAM
    };
    let stream = chat(r#"{"text":"The license is numbers"}"#) + &chat(r#"{"text":" a"}"#);
    let (record, gaps) = run(&completions, echo(Some(8)), &stream, End::ClientGone);
    assert!(record.ttft.is_some());
    assert_eq!((gaps, texts(&record.text.unwrap())), (1, vec![" a"]));
    assert_eq!(
        run(&completions, echo(Some(0)), &stream, End::ClientGone)
            .0
            .ttft,
        None
    );
}

#[test]
fn what_cannot_be_read_is_counted_and_passed_over() {
    let deep = "[".repeat(10_000);
    let stream = format!(
        "data: {{\"choices\":\n\ndata: \u{0}\n\ndata: {deep}\n\ndata: {{\"model\":\"a\",\"model\":\"b\"}}\n\n{}data: [DONE]\n\n",
        chat(r#"{"delta":{"content":"a"}}"#)
    );
    let (record, _) = plain(&stream, End::Complete);
    assert_eq!(record.faults, 4);
    assert_eq!(label(record.outcome), "success");
    assert_eq!(record.served_model.as_deref(), Some("m"));
    let mut observer = STREAM.observer(RequestFacts::default());
    observer.data(
        b"data: {\"choices\":[{\"delta\":{\"content\":\"\xFF\"}}]}\n\n",
        Instant::now(),
        &mut |_| {},
    );
    assert_eq!(observer.faults(), 1);
    assert!(!observer.first_token_seen() && !observer.done());
}

#[test]
fn an_event_over_the_limit_is_a_fault() {
    let answer = Answer {
        limits: Limits {
            event: 100,
            ..LIMITS
        },
        ..STREAM
    };
    let mut observer = answer.observer(RequestFacts::default());
    let big = format!(
        "data: {{\"prompt_logprobs\":\"{}\"}}\n\ndata: [DONE]\n\n",
        "x".repeat(500)
    );
    for read in big.as_bytes().chunks(50) {
        observer.data(read, Instant::now(), &mut |_| {});
    }
    assert_eq!(observer.faults(), 1);
    assert!(observer.done());
    assert_eq!(
        label(observer.finish(End::Complete, Instant::now()).outcome),
        "success"
    );
}

#[test]
fn metrics_and_usage_details_are_taken_where_they_pass() {
    let stream = "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\
        \"prompt_tokens_details\":{\"cached_tokens\":8},\"completion_tokens_details\":null},\
        \"metrics\":{\"queue_time_ms\":1.5,\"speculative_decoding\":{}}}\n\n";
    let (record, _) = plain(stream, End::ClientGone);
    assert_eq!(record.queue, Some(Duration::from_micros(1500)));
    assert_eq!(
        (record.cached_tokens, record.reasoning_tokens),
        (Some(8), None)
    );
    for odd in ["-1", "1e300", "\"x\"", "null", "[]"] {
        let stream = format!(
            "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{odd}}},\"metrics\":{{\"queue_time_ms\":{odd}}}}}\n\n"
        );
        let (record, _) = plain(&stream, End::ClientGone);
        assert_eq!(
            (record.queue, record.input_tokens, record.faults),
            (None, None, 0),
            "{odd}"
        );
    }
}

#[test]
fn many_choices_stay_bounded() {
    let stream: String = (0..3000)
        .map(|index| {
            chat(&format!(
                r#"{{"index":{index},"text":"a","finish_reason":"stop"}}"#
            ))
        })
        .collect();
    let (record, _) = plain(&stream, End::ClientGone);
    assert_eq!(record.finish_reasons.len(), 1024);
    let empty = format!("data: {{\"choices\":[{}{{}}]}}\n\n", "{},".repeat(100_000));
    assert_eq!(plain(&empty, End::ClientGone).0.faults, 0);
}
