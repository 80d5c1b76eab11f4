//! What may become a label: only what upstream has served, never more than the cap, and nothing of anybody's content.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use loadtest::scripted::{RawServer, Step};
use loadtest::sim;

use crate::support::{Message, Metrics, Proxy, chat, exchange, read_message, runtime};

const LIMIT: Duration = Duration::from_secs(10);

fn simulator(models: Vec<String>) -> (tokio::runtime::Runtime, sim::Server) {
    let runtime = runtime();
    let config = sim::Config {
        models,
        ..sim::Config::default()
    };
    let sim = runtime
        .block_on(async { sim::Server::start(config) })
        .unwrap();
    (runtime, sim)
}

/// Every value of `model` in any series.
fn models(metrics: &Metrics) -> BTreeSet<String> {
    let values = metrics.0.lines().filter(|line| !line.starts_with('#'));
    values
        .filter_map(|line| {
            let (_, rest) = line.split_once("model=\"")?;
            Some(rest.split('"').next()?.to_owned())
        })
        .collect()
}

fn success(metrics: &Metrics, model: &str) -> u64 {
    let label = format!(r#"model="{model}""#);
    metrics.count("vllm_request_success_total", &[&label])
}

fn ask(client: &mut TcpStream, model: &str, more: &str) -> Message {
    let body = format!(r#"{{"model":"{model}","messages":[]{more}}}"#);
    client.write_all(&chat("", &body)).unwrap();
    read_message(client)
}

#[test]
fn a_model_that_upstream_does_not_know_is_other() {
    let (_runtime, sim) = simulator(vec!["tiny".to_owned()]);
    let proxy = Proxy::start(sim.addr());
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    for number in 0..50 {
        assert_eq!(
            ask(&mut client, &format!("made-up-{number}"), "").status,
            404
        );
    }
    let metrics = proxy.wait_metrics("all are counted", |m| m.outcomes() == (0, 50, 0));
    assert_eq!(models(&metrics), BTreeSet::from(["other".to_owned()]));
    // A name that was refused may be served later on, and is a label from then on: for failures too.
    assert_eq!(ask(&mut client, "tiny", "").status, 200);
    assert_eq!(ask(&mut client, "tiny", r#","stream":true"#).status, 200);
    let error = "x-sim: {\"fault\":{\"kind\":\"http\",\"status\":500}}\r\n";
    let body = r#"{"model":"tiny","messages":[]}"#;
    client.write_all(&chat(error, body)).unwrap();
    assert_eq!(read_message(&mut client).status, 500);
    let metrics = proxy.wait_metrics("all are counted", |m| m.outcomes() == (2, 51, 0));
    let tiny = [r#"model="tiny""#];
    assert_eq!(success(&metrics, "tiny"), 2);
    assert_eq!(metrics.count("vllm_request_error_total", &tiny), 1);
    assert_eq!(metrics.count("tokenglass_label_overflow_total", &[]), 0);
}

#[test]
fn more_models_than_the_cap_are_other_and_are_counted() {
    let names: Vec<_> = (0..300).map(|number| format!("adapter-{number}")).collect();
    let (_runtime, sim) = simulator(names.clone());
    let proxy = Proxy::with(sim.addr(), |config| config.observe.max_models = 5);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    for name in &names {
        assert_eq!(ask(&mut client, name, "").status, 200);
    }
    // Those that are known stay known.
    assert_eq!(ask(&mut client, &names[0], r#","stream":true"#).status, 200);
    let metrics = proxy.wait_metrics("all are counted", |m| m.outcomes() == (301, 0, 0));
    let mut expected: BTreeSet<_> = names[..5].iter().cloned().collect();
    expected.insert("other".to_owned());
    assert_eq!(models(&metrics), expected);
    assert_eq!(success(&metrics, "other"), 295);
    assert_eq!(success(&metrics, "adapter-0"), 2);
    assert_eq!(
        metrics.count("tokenglass_label_overflow_total", &[r#"label="model""#]),
        295
    );
    let gaps = "vllm_request_inter_token_latency_seconds_count";
    assert_eq!(
        metrics.count(gaps, &[r#"model="adapter-0""#]),
        metrics.count(gaps, &[])
    );
}

/// Tokens of a stream over the cap are counted under the same label as the stream itself, also by the estimator.
#[test]
fn a_stream_over_the_cap_is_other_in_every_family() {
    let (_runtime, sim) = simulator(vec!["first".to_owned(), "second".to_owned()]);
    let proxy = Proxy::with(sim.addr(), |config| config.observe.max_models = 1);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    ask(&mut client, "first", "");
    ask(&mut client, "second", r#","stream":true"#);
    let output = "vllm_output_tokens_per_request_count";
    let metrics = proxy.wait_metrics("both are counted", |m| m.count(output, &[]) == 2);
    let stream = [r#"model="other""#, r#"stream="true""#];
    for family in [
        "vllm_request_success_total",
        "vllm_request_time_to_first_token_seconds_count",
        output,
        "vllm_input_tokens_per_request_count",
    ] {
        assert_eq!(
            metrics.count(family, &stream),
            1,
            "{family}\n{}",
            metrics.non_zero()
        );
    }
    assert_eq!(
        metrics.count("vllm_request_inter_token_latency_seconds_count", &stream),
        15
    );
    assert_eq!(metrics.count("tokenglass_label_overflow_total", &[]), 1);
}

#[test]
fn nothing_of_a_request_is_in_the_metrics() {
    let (_runtime, sim) = simulator(vec!["tiny".to_owned()]);
    let proxy = Proxy::start(sim.addr());
    let secret = "s3cr3t";
    for (model, stream, how) in [
        ("tiny", true, ""),
        ("tiny", false, ""),
        ("s3cr3t-model", false, ""),
        (
            "tiny",
            false,
            "x-sim: {\"fault\":{\"kind\":\"http\",\"status\":400,\"message\":\"s3cr3t\"}}\r\n",
        ),
        (
            "tiny",
            true,
            "x-sim: {\"fault\":{\"kind\":\"error_frame\",\"message\":\"s3cr3t\"}}\r\n",
        ),
        ("tiny", true, "x-sim: {\"finish_reason\":\"s3cr3t\"}\r\n"),
    ] {
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"user","content":"{secret}"}}],"user":"{secret}","stream":{stream}}}"#
        );
        let headers = format!(
            "{how}authorization: Bearer sk-{secret}\r\nx-request-id: {secret}\r\ncookie: {secret}\r\nconnection: close\r\n"
        );
        let request = String::from_utf8(chat(&headers, &body)).unwrap();
        let request = request.replace("/completions", &format!("/completions?key={secret}"));
        exchange(proxy.addr(), request.as_bytes(), LIMIT);
    }
    let metrics = proxy.wait_metrics("all are counted", |m| {
        let (success, error, cancelled) = m.outcomes();
        success + error + cancelled == 6
    });
    assert!(metrics.outcomes().0 >= 3, "{}", metrics.non_zero());
    let found = metrics.0.lines().find(|line| line.contains(secret));
    assert_eq!(found, None);
}

/// A served name is upstream's word; it must still not break out of its quotes, nor be without end.
#[test]
fn an_odd_name_cannot_break_the_exposition() {
    let runtime = runtime();
    let long = "x".repeat(10_000);
    let script = |name: &str| {
        let body = format!(
            r#"{{"model":{},"choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}"#,
            serde_json::json!(name)
        );
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = head + &body;
        vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(answer.into()),
            Step::Close,
        ]
    };
    let any = loadtest::sim::Listen::Tcp(([127, 0, 0, 1], 0).into());
    let odd = "a\"} 1\nevil_total{x=\"\\";
    let upstream = runtime
        .block_on(async { RawServer::with(&any, vec![script(odd), script(&long)]) })
        .unwrap();
    let proxy = Proxy::start(upstream.addr());
    for _ in 0..2 {
        exchange(
            proxy.addr(),
            &chat("connection: close\r\n", r#"{"model":"a"}"#),
            LIMIT,
        );
    }
    let metrics = proxy.wait_metrics("both are counted", |m| m.outcomes() == (2, 0, 0));
    assert!(!metrics.0.lines().any(|line| line.starts_with("evil")));
    assert!(metrics.0.contains(r#"model="a\"} 1\nevil_total{x=\"\\""#));
    assert!(!metrics.0.contains(&long));
}
