//! Gaps, stalls and TPOT, by a clock that the test moves.

use std::time::{Duration, Instant};

use super::outcomes::{Answer, STREAM};
use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn tokens(indexes: &[u32]) -> String {
    let chunk = |index: &u32| {
        format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"a\"}}}}]}}\n\n")
    };
    indexes.iter().map(chunk).collect()
}

fn usage(tokens: u32) -> String {
    format!(
        "data: {{\"choices\":[],\"usage\":{{\"completion_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n"
    )
}

fn run(answer: &Answer, reads: &[(u64, String)]) -> (Record, Vec<(Duration, u32)>) {
    let started = Instant::now();
    let head = HeadFacts {
        status: answer.status,
        content_type: Some(answer.content_type.as_bytes()),
        content_encoding: None,
    };
    let facts = RequestFacts::default();
    let mut observer = ResponseObserver::new(answer.endpoint, facts, &head, LIMITS, started, true);
    let mut gaps = Vec::new();
    for (at, read) in reads {
        observer.data(read.as_bytes(), started + ms(*at), &mut |gap| {
            gaps.push((gap.length, gap.count))
        });
    }
    let end = reads.last().map_or(0, |read| read.0);
    (observer.finish(End::Complete, started + ms(end)), gaps)
}

#[test]
fn a_read_of_several_frames_shares_its_gap() {
    let (record, gaps) = run(
        &STREAM,
        &[
            (100, tokens(&[0])),
            (110, tokens(&[0])),
            (112, ": keep-alive\n\n".to_owned()),
            (140, tokens(&[0, 0, 0])),
            (141, usage(9)),
        ],
    );
    assert_eq!(gaps, [(ms(10), 1), (ms(10), 3)]);
    assert_eq!(record.ttft, Some(ms(100)));
    assert_eq!(record.first_answer, Some(ms(100)));
    assert_eq!(record.longest_stall, Some(ms(30)));
    assert_eq!(record.tpot, Some(ms(5)));
    assert_eq!(record.duration, ms(141));
}

#[test]
fn frames_that_came_with_the_first_have_no_gap_between_them() {
    let (record, gaps) = run(&STREAM, &[(50, tokens(&[0, 0, 0, 0])), (70, tokens(&[0]))]);
    assert_eq!(gaps, [(Duration::ZERO, 3), (ms(20), 1)]);
    assert_eq!(record.tpot, None, "no count is known");
    let (record, gaps) = run(&STREAM, &[(50, tokens(&[0, 0, 0, 0]) + &usage(4))]);
    assert_eq!(gaps, [(Duration::ZERO, 3)]);
    assert_eq!((record.tpot, record.longest_stall), (None, None));
}

#[test]
fn choices_have_gaps_of_their_own() {
    let (record, gaps) = run(
        &STREAM,
        &[
            (10, tokens(&[0])),
            (20, tokens(&[1])),
            (30, tokens(&[0, 1])),
            (40, tokens(&[1])),
            (40, usage(8)),
        ],
    );
    assert_eq!(gaps, [(ms(20), 1), (ms(10), 1), (ms(10), 1)]);
    // Any choice's token ends a stall, and each of the two has 4 tokens in the 30 ms.
    assert_eq!(record.longest_stall, Some(ms(10)));
    assert_eq!(record.tpot, Some(ms(10)));
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let (record, gaps) = run(
        &STREAM,
        &[(50, tokens(&[0])), (40, tokens(&[0])), (30, usage(2))],
    );
    assert_eq!(gaps, [(Duration::ZERO, 1)]);
    assert_eq!((record.tpot, record.duration), (None, ms(30)));
}

#[test]
fn the_answer_may_begin_later_than_the_tokens() {
    let thought = "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\n\n".to_owned();
    let (record, _) = run(&STREAM, &[(10, thought), (90, tokens(&[0]))]);
    assert_eq!(
        (record.ttft, record.first_answer),
        (Some(ms(10)), Some(ms(90)))
    );
}

#[test]
fn a_body_that_is_no_stream_has_no_token_times() {
    let answer = Answer {
        content_type: "application/json",
        ..STREAM
    };
    let body = r#"{"choices":[{"message":{"content":"a"}}],"usage":{"completion_tokens":9}}"#;
    let (record, gaps) = run(&answer, &[(10, body.to_owned())]);
    assert_eq!(
        (record.ttft, record.tpot, record.longest_stall),
        (None, None, None)
    );
    assert!(gaps.is_empty() && !record.stream);
}

/// Not a test of anything but speed: `cargo test --release --lib observe -- --ignored --nocapture cost`.
#[test]
#[ignore = "measures"]
fn cost_of_an_event() {
    let frame = |content: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-bd085b1066aee093\",\"object\":\"chat.completion.chunk\",\"created\":1795552004,\
             \"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"logprobs\":null,\
             \"finish_reason\":null,\"token_ids\":null}}]}}\n\n"
        )
    };
    let line = frame("rection");
    let json = line.trim_start_matches("data: ").trim().as_bytes();
    let time = |what: &str, call: &mut dyn FnMut()| {
        let timed = || {
            let began = Instant::now();
            (0..32_000).for_each(|_| call());
            began.elapsed() / 32_000
        };
        let best = std::iter::repeat_with(timed).take(20).min();
        eprintln!("{what}: {best:?}");
    };
    time("JSON passed over", &mut || {
        std::hint::black_box(
            serde_json::from_slice::<serde::de::IgnoredAny>(std::hint::black_box(json)).is_ok(),
        );
    });
    let mut splitter = super::super::sse::Splitter::new(1 << 20);
    time("splitter", &mut || {
        splitter.feed(std::hint::black_box(line.as_bytes()), |event| {
            std::hint::black_box(event);
        });
    });
    for (what, content, estimate) in [
        ("plain", "rection", false),
        ("plain, text kept", "rection", true),
        ("escaped", "a\\n", false),
        ("escaped, text kept", "a\\n", true),
    ] {
        let frame = frame(content);
        for a_read in [1_u32, 16] {
            let read = frame.repeat(a_read as usize);
            let mut best = Duration::MAX;
            for _ in 0..20 {
                let head = HeadFacts {
                    status: 200,
                    content_type: Some(b"text/event-stream"),
                    content_encoding: None,
                };
                let facts = RequestFacts::default();
                let began = Instant::now();
                let mut observer = ResponseObserver::new(
                    Endpoint::ChatCompletions,
                    facts,
                    &head,
                    LIMITS,
                    began,
                    estimate,
                );
                let reads = 32_000 / a_read;
                for _ in 0..reads {
                    observer.data(read.as_bytes(), began, &mut |gap| {
                        std::hint::black_box(gap);
                    });
                }
                best = best.min(began.elapsed() / (reads * a_read));
                std::hint::black_box(observer.finish(End::Complete, began));
            }
            eprintln!(
                "{what}, {a_read} frames of {} bytes a read: {best:?} each",
                frame.len()
            );
        }
    }
    eprintln!("observer: {} bytes", size_of::<ResponseObserver>());
}
