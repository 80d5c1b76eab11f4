//! Tenant labels, their bounds, and the end of series that nobody uses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use http::header::HeaderName;
use tokenglass::config::{Config, Secret};
use tokenglass::tenants::{TenantLabel, TenantSource};

use crate::child::Child;
use crate::support::{Message, Proxy, read_message};

/// Answers each request with 200 and the model that it named, on as many connections as come.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    addr
}

fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let answer = serde_json::json!({
            "object": "chat.completion", "model": asked["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        })
        .to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if writer
            .write_all(format!("{head}{answer}").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

fn ask(client: &mut TcpStream, model: &str, headers: &str) -> Message {
    let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).unwrap();
    read_message(client)
}

fn by_team_and_key(config: &mut Config) {
    config.tenants.labels = vec![
        TenantLabel {
            name: "team".to_owned(),
            source: TenantSource::Header(HeaderName::from_static("x-team")),
        },
        TenantLabel {
            name: "key".to_owned(),
            source: TenantSource::ApiKey,
        },
    ];
    config.tenants.hash_key = Some(Secret::new("a pinch of salt"));
}

#[test]
fn requests_and_tokens_by_tenant_and_no_raw_value_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("tenants.toml");
    std::fs::write(&table, "[team]\n\"1\" = \"search\"\n").unwrap();
    let proxy = Proxy::with(echo(), |config| {
        by_team_and_key(config);
        config.tenants.map_file = Some(table.clone());
    });
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    for _ in 0..3 {
        ask(
            &mut client,
            "m",
            "x-team: 1\r\nauthorization: Bearer sk-very-secret-one\r\n",
        );
    }
    ask(
        &mut client,
        "m",
        "x-team: raw-team\r\nx-api-key: sk-very-secret-two\r\n",
    );
    let metrics = proxy.wait_metrics("4 requests", |m| m.outcomes().0 == 4);
    let search = [r#"team="search""#];
    assert_eq!(metrics.count("vllm_request_success_total", &search), 3);
    assert_eq!(
        metrics.count("vllm_output_tokens_per_request_sum", &search),
        6
    );
    assert_eq!(
        metrics.count("vllm_input_tokens_per_request_sum", &search),
        9
    );
    assert_eq!(metrics.count("vllm_output_tokens_per_request_sum", &[]), 8);
    for raw in ["very-secret", "raw-team", "pinch"] {
        assert!(!metrics.0.contains(raw), "{raw} is in /metrics");
    }
    // The table is read again when it changes; a broken one changes nothing.
    std::fs::write(&table, "[team]\n\"raw-team\" = \"ads\"\n").unwrap();
    proxy.wait_metrics("reloaded", |m| {
        m.count("tokenglass_config_reloads_total", &[r#"result="success""#]) == 1
    });
    ask(&mut client, "m", "x-team: raw-team\r\n");
    let metrics = proxy.wait_metrics("5 requests", |m| m.outcomes().0 == 5);
    assert_eq!(
        metrics.count(
            "vllm_request_success_total",
            &[r#"team="ads""#, r#"key="none""#]
        ),
        1
    );
    std::fs::write(&table, "nonsense").unwrap();
    proxy.wait_metrics("refused", |m| {
        m.count("tokenglass_config_reloads_total", &[r#"result="failure""#]) == 1
    });
    ask(&mut client, "m", "x-team: raw-team\r\n");
    proxy.wait_metrics("6 requests", |m| {
        m.count("vllm_request_success_total", &[r#"team="ads""#]) == 2
    });
}

/// 125 000 distinct names for model, team and key: what upstream serves under each name is a label up to the cap.
#[test]
fn a_hundred_thousand_names_leave_memory_flat() {
    const STEP: usize = 25_000;
    const STEPS: usize = 5;
    const NAMES: usize = STEP * STEPS;
    const CLIENTS: usize = 4;
    let _turn = crate::turns::take();
    let proxy = Child::start(
        echo(),
        "[observe]\nmax_models = 20\n[tenants]\nlabels = [\"team=header:x-team\", \"key=api_key\"]\nmax_values = 10\n\
         hash_key = \"a pinch of salt\"\n",
    );
    let addr = proxy.addr();
    let throw = |from: usize, to: usize| {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || {
                    let mut socket = TcpStream::connect(addr).unwrap();
                    for index in (from + client..to).step_by(CLIENTS) {
                        let headers =
                            format!("x-team: t{index}\r\nauthorization: Bearer sk-{index}\r\n");
                        let answer = ask(&mut socket, &format!("model-{index}"), &headers);
                        assert_eq!(answer.status, 200);
                    }
                });
            }
        });
    };
    // A scrape needs memory as well: it comes before each look.
    let mut lines = Vec::new();
    let mut resident = Vec::new();
    for step in 0..STEPS {
        throw(step * STEP, (step + 1) * STEP);
        lines.push(proxy.metrics().0.lines().count());
        resident.push(proxy.resident_kib());
    }
    let metrics = proxy.metrics();
    assert_eq!(metrics.outcomes(), (NAMES as u64, 0, 0));
    let models: std::collections::HashSet<_> = metrics
        .0
        .lines()
        .filter_map(|line| line.split(r#"model=""#).nth(1)?.split('"').next())
        .collect();
    assert_eq!(models.len(), 21, "20 and other");
    assert!(
        lines.iter().all(|count| *count == lines[0]),
        "no series came after the first names: {lines:?}"
    );
    // The allocator moves in steps of megabytes, now and then and either way. What is kept of each name shows in every
    // step: 21 bytes a name are too much.
    let smallest = resident
        .windows(2)
        .map(|pair| i64::try_from(pair[1]).unwrap() - i64::try_from(pair[0]).unwrap())
        .min();
    assert!(
        smallest < Some(512),
        "resident memory grew with every step: {resident:?} KiB"
    );
    let overflow = |label: &str| {
        metrics.count(
            "tokenglass_label_overflow_total",
            &[&format!(r#"label="{label}""#)],
        )
    };
    assert_eq!(overflow("model"), NAMES as u64 - 20);
    assert_eq!(overflow("team"), NAMES as u64 - 10);
    assert_eq!(overflow("key"), NAMES as u64 - 10);
    assert!(!metrics.0.contains("sk-"));
    println!(
        "{} lines, resident {resident:?} KiB after each {STEP} names",
        lines[0]
    );
}

#[test]
fn series_that_nobody_uses_expire_and_make_room() {
    let proxy = Proxy::with(echo(), |config| {
        by_team_and_key(config);
        config.observe.max_models = 1;
        config.observe.expire_after = Some(Duration::from_millis(300));
    });
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    ask(&mut client, "first", "x-team: a\r\n");
    ask(&mut client, "second", "x-team: a\r\n");
    let metrics = proxy.metrics();
    assert_eq!(
        metrics.count("vllm_request_success_total", &[r#"model="first""#]),
        1
    );
    assert_eq!(
        metrics.count("vllm_request_success_total", &[r#"model="other""#]),
        1
    );
    let metrics = proxy.wait_metrics("gone", |m| !m.0.contains("vllm_request_success_total{"));
    assert!(!metrics.0.contains("first"), "{}", metrics.non_zero());
    // Counting goes on, from 0, and the place under the cap is free.
    ask(&mut client, "second", "x-team: b\r\n");
    let metrics = proxy.metrics();
    assert_eq!(
        metrics.count("vllm_request_success_total", &[r#"model="second""#]),
        1
    );
    assert_eq!(metrics.sum("vllm_requests_in_flight", &[]), 0.0);
}
