use std::sync::mpsc::channel;

use proptest::prelude::*;
use smallvec::smallvec;

mod exact;
mod learning;
mod measured;

use super::count::Encoding;
use super::counter::Counter;
use super::*;
use crate::outcome::Outcome;
use crate::record::EstimateText;

fn text(output: &str) -> EstimateText {
    let mut text = EstimateText::default();
    text.push(0, output);
    text
}

fn config(queue: usize) -> config::Tokens {
    config::Tokens {
        queue,
        ..config::Config::default().tokens
    }
}

fn record(output: &str) -> Record {
    Record {
        stream: true,
        served_model: Some("tiny".into()),
        text: Some(text(output)),
        ..Record::bare(Endpoint::ChatCompletions, Outcome::Success)
    }
}

#[test]
fn the_prompt_is_counted_before_its_request_ends() {
    let (sender, records) = channel();
    let sink = move |done: Estimated| sender.send(done.record).unwrap();
    let estimator = Estimator::start(&config(8), sink).unwrap();
    let cell = Arc::new(PromptCell::default());
    assert_eq!(cell.get(), None);
    let body =
        br#"{"model":"tiny","messages":[{"role":"user","content":"Hello, how are you today?"}]}"#;
    assert!(estimator.prompt(
        Endpoint::ChatCompletions,
        Bytes::from_static(body),
        Arc::clone(&cell),
    ));
    let job = Job {
        record: record("Fine, thank you."),
        prompt: Some(Arc::clone(&cell)),
        ticket: None,
    };
    estimator.finish(job).unwrap();
    drop(estimator);
    let done = records.recv().unwrap();
    assert_eq!(done.output_tokens, Some((5, TokenSource::Estimate)));
    assert_eq!(done.input_tokens, Some((7 + 4 + 3, TokenSource::Estimate)));
    assert_eq!(cell.get(), Some(14));
    assert_eq!(done.text, None);
    assert!(
        records.recv().is_err(),
        "the thread ends with the last handle"
    );
}

#[test]
fn exact_counts_stand() {
    let mut record = record("Fine, thank you.");
    record.output_tokens = Some((99, TokenSource::Usage));
    record.input_tokens = Some((98, TokenSource::Partial));
    let cell = Arc::new(PromptCell::default());
    cell.0.set(PromptCount::Exact(1)).unwrap();
    let prompt = Some(cell);
    let (sender, records) = channel();
    let sink = Box::new(move |done: Estimated| sender.send(done.record).unwrap());
    Counter::new(&[], sink).finish(Job {
        record,
        prompt,
        ticket: None,
    });
    let done = records.recv().unwrap();
    assert_eq!(done.output_tokens, Some((99, TokenSource::Usage)));
    assert_eq!(done.input_tokens, Some((98, TokenSource::Partial)));
}

#[test]
fn there_are_no_fewer_tokens_than_pieces_came() {
    // "unhappily" is three tokens to tiktoken; this model said it in five.
    let mut record = record("");
    let mut text = EstimateText::default();
    for piece in ["un", "hap", "p", "i", "ly"] {
        text.push(0, piece);
    }
    record.text = Some(text);
    let (sender, records) = channel();
    let sink = Box::new(move |done: Estimated| sender.send(done.record).unwrap());
    Counter::new(&[], sink).finish(Job {
        record,
        prompt: None,
        ticket: None,
    });
    let done = records.recv().unwrap();
    assert_eq!(done.output_tokens, Some((5, TokenSource::Estimate)));
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let (held, hold) = channel::<()>();
    let (took, taken) = channel();
    let sink = move |_: Estimated| {
        took.send(()).unwrap();
        let _ = hold.recv();
    };
    let estimator = Estimator::start(&config(1), sink).unwrap();
    let job = || Job {
        record: record("x"),
        prompt: None,
        ticket: None,
    };
    estimator.finish(job()).unwrap();
    taken.recv().unwrap();
    estimator.finish(job()).unwrap();
    let back = estimator.finish(job()).unwrap_err();
    assert_eq!(back.record, record("x"));
    assert!(!estimator.prompt(Endpoint::Completions, Bytes::new(), Arc::default()));
    assert_eq!(estimator.dropped(), 2);
    drop(held);
}

#[test]
fn prompts_of_every_shape() {
    let cases: [(Endpoint, &str, Option<u64>); 15] = [
        (
            Endpoint::Completions,
            r#"{"prompt":"The license is"}"#,
            Some(3),
        ),
        (Endpoint::Completions, r#"{"prompt":[5,6,7]}"#, Some(3)),
        (
            Endpoint::Completions,
            r#"{"prompt":[[5,6,7],[1]]}"#,
            Some(4),
        ),
        (Endpoint::Completions, r#"{"prompt":["a","b"]}"#, Some(3)),
        (Endpoint::Completions, r#"{"prompt":null}"#, None),
        (Endpoint::Completions, r#"{"prompt":{"a":1}}"#, None),
        (Endpoint::Completions, "{}", None),
        (Endpoint::Completions, "no json", None),
        (
            Endpoint::Embeddings,
            r#"{"input":"The license is"}"#,
            Some(3),
        ),
        (Endpoint::Generate, r#"{"token_ids":[1,2]}"#, Some(2)),
        (
            Endpoint::Responses,
            r#"{"input":"The license is"}"#,
            Some(3 + 7),
        ),
        (Endpoint::ChatCompletions, r#"{"messages":[]}"#, Some(3)),
        (Endpoint::ChatCompletions, r#"{"messages":7}"#, None),
        (
            Endpoint::ChatCompletions,
            r#"{"messages":[{"content":[{"type":"text","text":"The license is"},
                {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAA"}}]},7,null]}"#,
            Some(3 + 3 * 4 + 3),
        ),
        (
            Endpoint::Messages,
            r#"{"model":3,"system":"The license is","messages":[{"content":[{"type":"tool_use","input":{}}]}]}"#,
            Some(3 + 7 + 1 + 1),
        ),
    ];
    for (endpoint, body, want) in cases {
        let got = prompt::count(endpoint, body.as_bytes()).map(PromptCount::plain);
        // A joint may cost or save a token.
        let near = got
            .zip(want)
            .is_some_and(|(got, want)| got.abs_diff(want) <= 1);
        assert!(near || got == want, "{body}: {got:?}, not {want:?}");
    }
}

#[test]
fn models_have_their_encodings() {
    for (model, want) in [
        ("openai/gpt-oss-120b", Encoding::O200kHarmony),
        ("gpt-4o-mini", Encoding::O200k),
        ("GPT-4.1", Encoding::O200k),
        ("meta-llama/Llama-3.1-8B", Encoding::Cl100k),
        ("", Encoding::Cl100k),
    ] {
        assert_eq!(Encoding::of_model(model), want, "{model}");
    }
}

#[test]
fn special_tokens_are_text() {
    let count = Encoding::Cl100k.count("<|endoftext|><|im_start|>").unwrap();
    assert!(count > 6, "{count}");
}

#[test]
fn long_runs_neither_panic_nor_take_forever() {
    for text in [
        "a".repeat(1 << 20),
        " ".repeat(1 << 20),
        "\n".repeat(1 << 18),
        "é ".repeat(1 << 17),
    ] {
        assert!(
            Encoding::Cl100k.count(&text).is_some(),
            "{:?}",
            text.get(..4)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_body_is_survived(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
        prompt::count(Endpoint::ChatCompletions, &body);
        let json = serde_json::json!({"messages": [{"content": text}], "prompt": text}).to_string();
        assert!(prompt::count(Endpoint::ChatCompletions, json.as_bytes()).is_some());
        assert!(prompt::count(Endpoint::Completions, json.as_bytes()).is_some());
    }
}
