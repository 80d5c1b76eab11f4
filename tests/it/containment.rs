//! A body that the observer cannot read reaches the client as it is: the same bytes, the same end. What could not be
//! measured is counted, once.

use std::time::Duration;

use loadtest::scripted::{RawServer, Step};

use crate::support::{Message, Metrics, Proxy, STREAM, chat, exchange, runtime};

const LIMIT: Duration = Duration::from_secs(20);
const DONE: &[u8] = b"data: [DONE]\n\n";
const TOKEN: &[u8] = b"data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";

/// Bytes that nobody can read, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

fn head(extra: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{extra}\r\n").into_bytes()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in body.chunks(10_000) {
        wire.extend(format!("{:x}\r\n", piece.len()).bytes());
        wire.extend(piece);
        wire.extend(b"\r\n");
    }
    wire.extend(b"0\r\n\r\n");
    wire
}

/// Sends `body` under these headers through a proxy, checks that the client gets it as it is, and gives the counts.
#[track_caller]
fn through(headers: &str, body: &[u8], sizes: &[usize]) -> Metrics {
    let runtime = runtime();
    let headers = format!("{headers}transfer-encoding: chunked\r\n");
    let wire = [head(&headers), chunked(body)].concat();
    let upstream = runtime
        .block_on(async {
            RawServer::start(vec![
                Step::ReadHead,
                Step::ReadDeclaredBody,
                Step::WriteSplit {
                    bytes: wire.into(),
                    sizes: sizes.to_vec(),
                },
                Step::Close,
            ])
        })
        .unwrap();
    let proxy = Proxy::start(upstream.addr());
    let request = chat("connection: close\r\n", STREAM);
    let (bytes, tidy) = exchange(proxy.addr(), &request, LIMIT);
    let message = Message::parse(&bytes).expect("an answer");
    assert!(tidy && message.complete, "the end is tidy");
    assert!(
        message.body == body,
        "{} bytes of {}",
        message.body.len(),
        body.len()
    );
    proxy.wait_metrics("it is counted", |m| {
        let (success, error, cancelled) = m.outcomes();
        success + error + cancelled == 1
    })
}

fn faults(metrics: &Metrics, reason: &str) -> u64 {
    let label = format!(r#"reason="{reason}""#);
    metrics.count("tokenglass_observer_faults_total", &[&label])
}

/// Counted as a success, with so many faults, and with so many first tokens seen.
#[track_caller]
fn assert_success(metrics: &Metrics, unreadable: u64, ttft: u64) {
    assert_eq!(metrics.outcomes(), (1, 0, 0), "{}", metrics.non_zero());
    assert_eq!(
        faults(metrics, "unreadable"),
        unreadable,
        "{}",
        metrics.non_zero()
    );
    assert_eq!(faults(metrics, "panic"), 0);
    let seen = metrics.count("vllm_request_time_to_first_token_seconds_count", &[]);
    assert_eq!(seen, ttft, "{}", metrics.non_zero());
    assert_eq!(metrics.sum("vllm_requests_in_flight", &[]), 0.0);
}

const SSE: &str = "content-type: text/event-stream\r\n";

#[test]
fn a_compressed_stream_is_forwarded_unread() {
    let headers = format!("{SSE}content-encoding: gzip\r\n");
    // The magic of gzip and noise: nobody on the way may try to unpack it.
    let body = [&[0x1f, 0x8b, 8, 0][..], &noise(100_000)].concat();
    assert_success(&through(&headers, &body, &[]), 1, 0);
    let headers = format!("{SSE}content-encoding: identity\r\n");
    let body = [TOKEN, DONE].concat();
    assert_success(&through(&headers, &body, &[]), 0, 1);
}

#[test]
fn an_event_that_is_no_utf_8_is_one_fault() {
    let bad = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\xc3\x28\"}}]}\n\n";
    let body = [TOKEN, bad, TOKEN, DONE].concat();
    for sizes in [vec![], vec![1; 1000]] {
        let metrics = through(SSE, &body, &sizes);
        assert_success(&metrics, 1, 1);
        let gaps = metrics.count("vllm_request_inter_token_latency_seconds_count", &[]);
        assert_eq!(gaps, 1, "the events around it are read");
    }
}

#[test]
fn an_event_of_five_mebibytes_passes() {
    let text = "x".repeat(5 << 20);
    let big = format!(
        "data: {{\"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    );
    let body = [TOKEN, big.as_bytes(), TOKEN, DONE].concat();
    let metrics = through(SSE, &body, &[]);
    assert_success(&metrics, 1, 1);
}

/// Deep nesting must not end in a stack overflow, which nothing contains: what is of no interest is skipped, however
/// deep, and what is not of the expected shape counts as not there.
#[test]
fn json_as_deep_as_it_likes_passes() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        for json in [
            format!("{{\"choices\":{deep}}}"),
            format!("{{\"choices\":[{{\"delta\":{{\"content\":{deep}}}}}]}}"),
            format!("{{\"usage\":{deep}}}"),
            format!("{{\"model\":{deep}}}"),
            format!("{{\"pad\":{deep}}}"),
        ] {
            let event = format!("data: {json}\n\n");
            let metrics = through(SSE, &[event.as_bytes(), DONE].concat(), &[]);
            assert_success(&metrics, 0, 0);
            let metrics = through("content-type: application/json\r\n", json.as_bytes(), &[]);
            assert_success(&metrics, 0, 0);
        }
    }
    // An error of whatever inside is an error.
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let event = format!("data: {{\"error\":{deep}}}\n\n");
    let metrics = through(SSE, event.as_bytes(), &[]);
    assert_eq!(metrics.outcomes(), (0, 1, 0));
    assert_eq!(faults(&metrics, "panic"), 0);
}

#[test]
fn odd_json_is_read_for_what_it_has() {
    for (odd, unreadable) in [
        (
            "{\"choices\":[{\"index\":-1,\"delta\":{\"content\":\"x\"}}]}",
            None,
        ),
        ("{\"choices\":{\"index\":0}}", None),
        ("{\"choices\":null,\"usage\":[],\"model\":7}", None),
        ("{\"choices\":[null,1,\"\",[],{}]}", None),
        ("{\"usage\":{\"prompt_tokens\":1e400}}", None),
        (
            "{\"usage\":{\"prompt_tokens\":-3,\"completion_tokens\":99999999999999999999}}",
            None,
        ),
        (
            "{\"choices\":[{\"index\":4294967296,\"delta\":{\"content\":\"\\ud800\"}}]}",
            None,
        ),
        ("nonsense", Some(1)),
        ("{\"choices\":[", Some(1)),
        ("\u{0}", Some(1)),
    ] {
        let event = format!("data: {odd}\n\n");
        let metrics = through(SSE, &[event.as_bytes(), DONE].concat(), &[]);
        assert_eq!(metrics.outcomes(), (1, 0, 0), "{odd}");
        assert_eq!(faults(&metrics, "panic"), 0, "{odd}");
        if let Some(unreadable) = unreadable {
            assert_eq!(faults(&metrics, "unreadable"), unreadable, "{odd}");
        }
    }
}

#[test]
fn noise_as_a_stream_is_truncated_and_nothing_worse() {
    let body = noise(1 << 20);
    let metrics = through(SSE, &body, &[1, 2, 3, 5, 7, 1000, 1, 1, 40_000]);
    let truncated = [r#"error_type="stream_truncated""#];
    assert_eq!(metrics.outcomes(), (0, 1, 0));
    assert_eq!(metrics.count("vllm_request_error_total", &truncated), 1);
    assert_eq!(faults(&metrics, "panic"), 0);
    // The same, where each line is data.
    let mut body = Vec::new();
    for line in noise(200_000).chunks(50) {
        body.extend(b"data: ");
        body.extend(line);
        body.extend(b"\n\n");
    }
    body.extend(DONE);
    let metrics = through(SSE, &body, &[]);
    assert_eq!(metrics.outcomes(), (1, 0, 0));
    assert!(
        faults(&metrics, "unreadable") > 3000,
        "{}",
        metrics.non_zero()
    );
    assert_eq!(faults(&metrics, "panic"), 0);
}

#[test]
fn a_body_that_is_no_json_is_a_success_with_one_fault() {
    let json = "content-type: application/json\r\n";
    assert_success(&through(json, b"{\"model\":", &[]), 1, 0);
    assert_success(&through(json, &noise(3 << 20), &[]), 0, 0);
    // Of a long one the end is read, where usage is.
    let long = format!(
        "{{\"model\":\"tiny\",\"pad\":\"{}\",\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}}}",
        "x".repeat(3 << 20)
    );
    let metrics = through(json, long.as_bytes(), &[]);
    assert_success(&metrics, 0, 0);
    assert_eq!(
        metrics.sum("vllm_output_tokens_per_request_sum", &[r#"source="usage""#]),
        4.0
    );
}
