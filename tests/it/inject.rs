//! `tokens.usage = "inject"`: exact counts for streams that did not ask for them, and not a byte of it at the client.

use std::time::Duration;

use loadtest::scripted::{RawServer, Step};
use loadtest::sim;
use tokenglass::config::{Config, UsageMode};

use crate::support::{Message, Proxy, exchange, find, runtime};

const LONG: Duration = Duration::from_secs(10);

fn inject(continuous: bool) -> impl FnOnce(&mut Config) {
    move |config| {
        config.tokens.usage = UsageMode::Inject;
        config.tokens.continuous = continuous;
    }
}

fn request(path: &str, id: &str, directive: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nx-request-id: {id}\r\nx-sim: {directive}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Without the second in which it was made.
fn timeless(body: &[u8]) -> String {
    let text = String::from_utf8(body.to_vec()).unwrap();
    // The simulator makes a tool call's id of the second that it is in.
    ["\"created\":", "chatcmpl-tool-"]
        .into_iter()
        .fold(text, |text, before| {
            let mut pieces = text.split(before);
            let first = pieces.next().unwrap().to_owned();
            pieces.fold(first, |out, piece| {
                let rest = piece.trim_start_matches(|c: char| c.is_ascii_hexdigit());
                out + before + rest
            })
        })
}

const CHAT: &str = "/v1/chat/completions";
const BODIES: &[(&str, &str)] = &[
    (
        CHAT,
        r#"{"model":"tiny","messages":[],"max_tokens":6,"stream":true}"#,
    ),
    (
        CHAT,
        r#"{"model":"tiny","messages":[{"role":"user","content":"\"stream_options\": {"}],"max_tokens":6,"stream":true,"stream_options":null}"#,
    ),
    (
        CHAT,
        r#"{"stream_options" : { } ,"model":"tiny","messages":[],"max_tokens":6,"stream":true}"#,
    ),
    (
        CHAT,
        r#"{"model":"tiny","messages":[],"max_tokens":6,"stream":true,"stream_options":{"include_usage":false}}"#,
    ),
    (
        CHAT,
        r#"{"model":"tiny","messages":[],"max_tokens":6,"stream":true,"stream_options":{"include_usage":true}}"#,
    ),
    (
        CHAT,
        r#"{"model":"tiny","messages":[],"max_tokens":6,"stream":true,"tools":[{"type":"function","function":{"name":"f"}}]}"#,
    ),
    (
        "/v1/completions",
        r#"{"model":"tiny","prompt":"a","max_tokens":6,"stream":true}"#,
    ),
    (
        CHAT,
        r#"{"model":"tiny","messages":[],"max_tokens":6,"stream":false}"#,
    ),
    (CHAT, r#"{"model":"tiny","messages":[],"max_tokens":6}"#),
    (CHAT, "not json"),
];

#[test]
fn the_clients_bytes_are_those_it_would_have_got() {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    // The simulator counts a prompt by its length, which the edit changes.
    let splits = [
        r#"{"prompt_tokens":5}"#,
        r#"{"prompt_tokens":5,"split":"bytes"}"#,
        r#"{"prompt_tokens":5,"split":"coalesce"}"#,
        r#"{"prompt_tokens":5,"split":{"every":7}}"#,
        r#"{"prompt_tokens":5,"reasoning_tokens":2}"#,
    ];
    for continuous in [false, true] {
        let proxy = Proxy::with(sim.addr(), inject(continuous));
        for (index, (path, body)) in BODIES.iter().enumerate() {
            for (split, directive) in splits.iter().enumerate() {
                let raw = request(path, &format!("{index}-{split}"), directive, body);
                let ask = |to| Message::parse(&exchange(to, &raw, LONG).0).unwrap();
                let (direct, through) = (ask(sim.addr()), ask(proxy.addr()));
                assert_eq!(through.status, direct.status, "{body}");
                assert_eq!(
                    timeless(&through.body),
                    timeless(&direct.body),
                    "{body} {directive}"
                );
                assert_eq!(through.complete, direct.complete);
                assert_eq!(
                    through.all("content-length"),
                    direct.all("content-length"),
                    "{body}"
                );
            }
        }
        let streams = 7 * splits.len() as u64;
        let metrics = proxy.wait_metrics("usage of every stream", |m| {
            m.count(
                "vllm_output_tokens_per_request_count",
                &[r#"source="usage""#, r#"stream="true""#],
            ) == streams
        });
        assert_eq!(
            metrics.count(
                "vllm_output_tokens_per_request_sum",
                &[r#"source="usage""#, r#"stream="true""#]
            ),
            6 * streams
        );
        assert_eq!(
            metrics.count(
                "vllm_output_tokens_per_request_count",
                &[r#"source="estimate""#]
            ),
            0
        );
        assert_eq!(metrics.count("tokenglass_observer_faults_total", &[]), 0);
    }
}

#[test]
fn a_cut_stream_has_an_exact_partial_count() {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    let proxy = Proxy::with(sim.addr(), inject(true));
    let body = r#"{"model":"tiny","messages":[],"max_tokens":50,"stream":true}"#;
    let mut sent = 0;
    for after in [1, 5, 9] {
        let fault =
            format!(r#"{{"fault":{{"kind":"truncate","after":{after}}},"tokens_per_frame":2}}"#);
        let (bytes, _) = exchange(
            proxy.addr(),
            &request(CHAT, &after.to_string(), &fault, body),
            LONG,
        );
        let message = Message::parse(&bytes).unwrap();
        assert!(!message.complete && find(&message.body, b"usage").is_none());
        sent += u64::from(sim.truth().find(&after.to_string()).unwrap().output_tokens);
    }
    let metrics = proxy.wait_metrics("three partial counts", |m| {
        m.count(
            "vllm_output_tokens_per_request_count",
            &[r#"source="partial""#],
        ) == 3
    });
    assert!(sent >= 20, "{sent}");
    assert_eq!(
        metrics.count(
            "vllm_output_tokens_per_request_sum",
            &[r#"source="partial""#]
        ),
        sent
    );
}

#[test]
fn the_request_is_edited_in_one_place_with_its_length() {
    let runtime = runtime();
    // Said, so that no request is sent on a connection whose end is under way.
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let script = vec![
        Step::ReadHead,
        Step::ReadDeclaredBody,
        Step::Write(answer.into()),
        Step::Close,
    ];
    let upstream = runtime
        .block_on(async { RawServer::start(script) })
        .unwrap();
    let proxy = Proxy::with(upstream.addr(), |config| {
        inject(false)(config);
        config.observe.max_request_body = 4096;
    });
    let long = format!(
        r#"{{"model":"tiny","stream":true,"messages":[],"pad":"{}"}}"#,
        "x".repeat(8192)
    );
    let plain = r#"{"model":"tiny","stream":true,"messages":[]}"#;
    let chunked = format!(
        "{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        10,
        &plain[..10],
        plain.len() - 10,
        &plain[10..]
    );
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    exchange(proxy.addr(), &request(CHAT, "1", "{}", plain), LONG);
    exchange(proxy.addr(), &request(CHAT, "2", "{}", &long), LONG);
    exchange(
        proxy.addr(),
        format!("{head}transfer-encoding: chunked\r\n\r\n{chunked}").as_bytes(),
        LONG,
    );
    exchange(
        proxy.addr(),
        format!(
            "{head}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n{plain}",
            plain.len()
        )
        .as_bytes(),
        LONG,
    );
    let seen: Vec<_> = upstream
        .received()
        .iter()
        .map(|c| String::from_utf8(c.bytes.clone()).unwrap())
        .collect();
    let body = |index: usize| seen[index].split_once("\r\n\r\n").unwrap().1;
    let edited: serde_json::Value = serde_json::from_str(body(0)).unwrap();
    assert_eq!(edited["stream_options"]["include_usage"], true);
    assert!(seen[0].contains(&format!("content-length: {}\r\n", body(0).len())));
    assert_eq!(body(1), long, "over the limit: as it came");
    assert!(
        body(2).contains("include_usage") && seen[2].contains("transfer-encoding: chunked"),
        "{}",
        seen[2]
    );
    assert_eq!(body(3), plain, "coded: as it came");
}

/// `--enable-force-include-usage`: the usage is the client's, asked for or not, and the proxy stops asking.
#[test]
fn a_server_that_forces_usage_is_left_alone() {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    let proxy = Proxy::with(sim.addr(), inject(false));
    let (path, body) = BODIES[0];
    for id in ["1", "2", "3"] {
        let raw = request(path, id, r#"{"prompt_tokens":5,"usage":"force"}"#, body);
        let ask = |to| Message::parse(&exchange(to, &raw, LONG).0).unwrap();
        let (direct, through) = (ask(sim.addr()), ask(proxy.addr()));
        assert!(find(&direct.body, b"\"usage\":{").is_some());
        assert_eq!(timeless(&through.body), timeless(&direct.body));
    }
}
