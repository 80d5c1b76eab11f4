//! The ground truth is what was sent, and leaving clients are noticed.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::client::{CHAT, events, request, send, sim, stream};
use crate::sim::{Behaviour, Config, Fault, Listen, Server, TruthEnd};

#[tokio::test]
async fn counts_and_times_of_a_stream() {
    let server = sim();
    let answer = stream(
        &server,
        r#"{"ttft_ms":20,"itl_ms":5,"prompt_tokens":7,"reasoning_tokens":2}"#,
    )
    .await;
    let entry = server.truth().find("r1").unwrap();
    assert_eq!(entry.frames as usize, events(answer.as_bytes()).len());
    assert_eq!(
        (
            entry.token_frames,
            entry.output_tokens,
            entry.reasoning_tokens
        ),
        (8, 8, 2)
    );
    assert_eq!((entry.prompt_tokens, entry.usage_sent), (7, false));
    assert_eq!(entry.finish_reasons, ["length"]);
    assert_eq!(
        (entry.end, entry.model.as_str()),
        (TruthEnd::Complete, "tiny")
    );
    let ttft = entry.ttft().unwrap();
    assert!(ttft >= Duration::from_millis(20), "{ttft:?}");
    // Frames keep to their schedule, so a late first token makes the gap behind it shorter.
    let last = entry.last_token_sent.unwrap() - entry.received;
    assert!(last >= Duration::from_millis(55), "{last:?}");
}

#[tokio::test]
async fn choices_and_frames_of_several_tokens() {
    let server = sim();
    let body = r#"{"model":"tiny","stream":true,"n":2,"stream_options":{"include_usage":true}}"#;
    let directive = r#"{"tokens_per_frame":3,"output_tokens":7}"#;
    let (answer, _) = send(&server, &request(CHAT, directive, body)).await;
    let entry = server.truth().find("r1").unwrap();
    assert_eq!(
        (entry.token_frames, entry.output_tokens, entry.n),
        (6, 14, 2)
    );
    assert_eq!(entry.finish_reasons, ["stop", "stop"]);
    assert!(entry.usage_sent);
    assert!(String::from_utf8_lossy(&answer).contains(r#""completion_tokens":14"#));
}

async fn leaves(directive: &str, read_first: bool) -> (Server, Duration) {
    let server = sim();
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    let body = r#"{"model":"tiny","stream":true}"#;
    let ask = request(CHAT, directive, body);
    socket.write_all(ask.as_bytes()).await.unwrap();
    if read_first {
        let mut seen = String::new();
        while !seen.contains("content\":\"The") {
            let mut buf = [0; 1024];
            let read = socket.read(&mut buf).await.unwrap();
            seen.push_str(&String::from_utf8_lossy(&buf[..read]));
        }
    } else {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = Instant::now();
    drop(socket);
    assert!(server.truth().wait_for(1, Duration::from_secs(2)).await);
    let entry = server.truth().find("r1").unwrap();
    assert_eq!(entry.end, TruthEnd::ClientGone);
    let noticed = entry.client_gone_at.unwrap() - left;
    (server, noticed)
}

#[tokio::test]
async fn a_leaving_client_is_noticed_while_we_wait() {
    for (directive, read_first) in [
        (r#"{"head_delay_ms":2000}"#, false),
        (r#"{"ttft_ms":2000}"#, false),
        (r#"{"itl_ms":2000}"#, true),
    ] {
        let (server, noticed) = leaves(directive, read_first).await;
        // A machine with other things to do needs slack; the notice itself takes microseconds.
        assert!(
            noticed < Duration::from_millis(500),
            "{directive}: {noticed:?}"
        );
        let entry = server.truth().find("r1").unwrap();
        assert_eq!(entry.output_tokens, u32::from(read_first));
        assert_eq!(entry.head_sent.is_some(), !directive.contains("head"));
    }
}

#[tokio::test]
async fn a_leaving_client_is_noticed_at_full_speed() {
    let (_server, noticed) = leaves(r#"{"output_tokens":100000000}"#, true).await;
    assert!(noticed < Duration::from_secs(1), "{noticed:?}");
}

#[tokio::test]
async fn default_faults_are_drawn_by_their_probabilities_and_the_seed() {
    let run = async || {
        let behaviour = Behaviour {
            faults: vec![
                (0.25, Fault::CloseBeforeHead),
                (0.25, Fault::Truncate { after: 1 }),
            ],
            ..Behaviour::default()
        };
        let server = Server::start(Config {
            behaviour,
            ..Config::default()
        })
        .unwrap();
        for _ in 0..40 {
            stream(&server, "{}").await;
        }
        let name = |e: crate::sim::Entry| e.fault.map_or("ok", |f| f.name());
        server
            .truth()
            .entries()
            .into_iter()
            .map(name)
            .collect::<Vec<_>>()
    };
    let (first, second) = (run().await, run().await);
    assert_eq!(first, second);
    let ok = first.iter().filter(|name| **name == "ok").count();
    assert!((10..30).contains(&ok), "{first:?}");
}

#[tokio::test]
async fn keep_alive_chunked_requests_and_expect() {
    let server = sim();
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    for _ in 0..2 {
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut buf = [0; 4096];
        let read = socket.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..read], b"HTTP/1.1 100 Continue\r\n\r\n");
        socket
            .write_all(b"9\r\n{\"model\":\r\n7\r\n\"tiny\"}\r\n0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        while !answer.contains("metrics\":null}") {
            let read = socket.read(&mut buf).await.unwrap();
            answer.push_str(&String::from_utf8_lossy(&buf[..read]));
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!((server.connections_seen(), server.requests_seen()), (1, 2));
}

#[tokio::test]
async fn unix_sockets_metrics_and_shutdown() {
    let path = std::env::temp_dir().join(format!("loadtest-sim-{}.sock", std::process::id()));
    let config = Config {
        listen: Listen::Unix(path.clone()),
        ..Config::default()
    };
    let server = Server::start(config).unwrap();
    let mut answer = String::new();
    let ask = request(CHAT, "{}", r#"{"model":"tiny","max_tokens":5}"#);
    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket.write_all(ask.as_bytes()).await.unwrap();
    socket.read_to_string(&mut answer).await.unwrap();
    let mut socket = UnixStream::connect(&path).await.unwrap();
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut buf = [0; 4096];
    let read = socket.read(&mut buf).await.unwrap();
    let metrics = String::from_utf8_lossy(&buf[..read]);
    let line = r#"vllm:generation_tokens_total{engine="0",model_name="tiny"} 5.0"#;
    assert!(metrics.contains(line), "{metrics}");
    server.shutdown().await;
    assert_eq!(socket.read(&mut buf).await.unwrap_or(0), 0);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_websocket_handshake_and_echo() {
    let server = sim();
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    let ask = b"GET /v1/realtime HTTP/1.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    socket.write_all(ask).await.unwrap();
    let mut buf = [0; 1024];
    let read = socket.read(&mut buf).await.unwrap();
    let head = String::from_utf8_lossy(&buf[..read]).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    socket.write_all(b"hello").await.unwrap();
    let read = socket.read(&mut buf).await.unwrap();
    assert_eq!(&buf[..read], b"hello");
}
