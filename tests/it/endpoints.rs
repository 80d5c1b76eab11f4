//! Endpoints whose measuring needs more than the body: a method, a form around a file.

use std::path::PathBuf;
use std::time::Duration;

use loadtest::scripted::{RawServer, Step};

use crate::support::{Proxy, exchange, runtime};

const LIMIT: Duration = Duration::from_secs(10);

fn recording(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    std::fs::read(path.join(name)).unwrap()
}

/// A stored response that is streamed again has its outcome and its usage, and no token times.
#[test]
fn what_is_replayed_is_not_timed() {
    let runtime = runtime();
    for (name, timed) in [("responses-stream", true), ("responses-get-stream", false)] {
        // In two reads, so that there is a time between tokens.
        let mut answer = recording(&format!("{name}.resp"));
        let end = answer.split_off(answer.len() / 2);
        let steps = vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(answer.into()),
            Step::Sleep(50),
            Step::Write(end.into()),
            Step::Close,
        ];
        let upstream = runtime.block_on(async { RawServer::start(steps) }).unwrap();
        let proxy = Proxy::start(upstream.addr());
        exchange(proxy.addr(), &recording(&format!("{name}.req")), LIMIT);
        let metrics = proxy.wait_metrics("it is counted", |m| m.outcomes() == (1, 0, 0));
        let labels = [r#"endpoint="responses""#, r#"stream="true""#];
        assert_eq!(metrics.count("vllm_request_success_total", &labels), 1);
        for family in [
            "vllm_request_time_to_first_token_seconds",
            "vllm_request_time_to_first_answer_seconds",
            "vllm_request_inter_token_latency_seconds",
            "vllm_request_time_per_output_token_seconds",
            "vllm_request_longest_stall_seconds",
        ] {
            let count = metrics.count(&format!("{family}_count"), &[]);
            assert_eq!(count > 0, timed, "{name}: {family}");
        }
        assert_eq!(
            metrics.count("vllm_output_tokens_per_request_count", &[]),
            1
        );
    }
}

/// The model of a form is known by its name, however large the file is and wherever the field stands.
#[test]
fn audio_is_asked_for_by_form() {
    let chunk = "data: {\"object\":\"transcription.chunk\",\"model\":\"whisper\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
                 data: [DONE]\n\n";
    let good = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{chunk}",
        chunk.len()
    );
    let error = r#"{"error":{"message":"m","type":"InternalServerError","code":500}}"#;
    let bad = format!(
        "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{error}",
        error.len()
    );
    let runtime = runtime();
    let file = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n{}\r\n",
        "RIFF".repeat(200_000)
    );
    let field = |name: &str, value: &str| {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields = field("model", "whisper") + &field("stream", "true");
    for body in [
        format!("{fields}{file}--xyz--\r\n"),
        format!("{file}{fields}--xyz--\r\n"),
    ] {
        let request = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary=xyz\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let steps = [good.clone(), bad.clone()].into_iter().flat_map(|answer| {
            [
                Step::ReadHead,
                Step::ReadDeclaredBody,
                Step::Write(answer.into()),
            ]
        });
        let steps = steps.chain([Step::WaitClose(LIMIT)]).collect();
        let upstream = runtime.block_on(async { RawServer::start(steps) }).unwrap();
        let proxy = Proxy::with(upstream.addr(), |config| {
            config.observe.max_request_body = 1024;
        });
        exchange(proxy.addr(), request.as_bytes(), LIMIT);
        proxy.wait_metrics("the first is counted", |m| m.outcomes() == (1, 0, 0));
        exchange(proxy.addr(), request.as_bytes(), LIMIT);
        let metrics = proxy.wait_metrics("both are counted", |m| m.outcomes() == (1, 1, 0));
        let labels = [
            r#"model="whisper""#,
            r#"endpoint="audio""#,
            r#"stream="true""#,
        ];
        assert_eq!(metrics.count("vllm_request_success_total", &labels), 1);
        assert_eq!(metrics.count("vllm_request_error_total", &labels), 1);
        assert_eq!(metrics.count("tokenglass_observer_faults_total", &[]), 0);
    }
}
