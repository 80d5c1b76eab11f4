//! The eight promises of transparency, each a test named after it.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use loadtest::scripted::{RawServer, Step};

use crate::support::{Message, Proxy, STREAM, chat, exchange, find, read_to_end, runtime};

const LONG: Duration = Duration::from_secs(10);

fn upstream(runtime: &tokio::runtime::Runtime, steps: Vec<Step>) -> RawServer {
    runtime.block_on(async { RawServer::start(steps) }).unwrap()
}

fn write(text: &str) -> Step {
    Step::Write(text.to_owned().into())
}

#[test]
fn promise_1_the_same_bytes_in_order_at_once() {
    let runtime = runtime();
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let frame = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let mut steps = vec![Step::ReadHead, Step::ReadDeclaredBody, write(head)];
    for index in 0..5 {
        steps.extend([
            write(&frame(&format!("data: {index}\n\n"))),
            Step::Sleep(150),
        ]);
    }
    steps.extend([write("0\r\n\r\n"), Step::Close]);
    let upstream = upstream(&runtime, steps);
    let proxy = Proxy::start(upstream.addr());
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client
        .write_all(&chat("connection: close\r\n", STREAM))
        .unwrap();
    // Each frame is there long before the next is written: nothing is held back.
    let started = Instant::now();
    let mut seen = Vec::new();
    for index in 0..5 {
        let wanted = format!("data: {index}\n\n");
        while find(&seen, wanted.as_bytes()).is_none() {
            let mut buffer = [0; 1024];
            let n = std::io::Read::read(&mut client, &mut buffer).unwrap();
            assert!(n > 0, "closed before frame {index}");
            seen.extend_from_slice(&buffer[..n]);
        }
        let due = Duration::from_millis(150 * index);
        assert!(
            started.elapsed() < due + Duration::from_millis(120),
            "frame {index} after {:?}",
            started.elapsed()
        );
    }
    let (rest, _) = read_to_end(&mut client, LONG);
    seen.extend(rest);
    let message = Message::parse(&seen).unwrap();
    assert!(message.complete);
    assert_eq!(
        message.body,
        b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n"
    );
}

#[test]
fn promise_2_status_headers_framing_and_trailers_as_upstream_sent_them() {
    let runtime = runtime();
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
        HTTP/1.1 299 Quite Fine\r\ndate: then\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-raw: \xff\xfe\r\nx-empty:\r\n\
        content-encoding: gzip\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\ntrailer: x-sum\r\n\
        transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
    let upstream = upstream(
        &runtime,
        vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(answer.to_vec().into()),
            Step::Close,
        ],
    );
    let proxy = Proxy::start(upstream.addr());
    let (seen, _) = exchange(
        proxy.addr(),
        &chat("te: trailers\r\nconnection: te, close\r\n", "{}"),
        LONG,
    );
    let second = find(&seen, b"\r\n\r\n").unwrap() + 4;
    let hints = Message::parse(&seen[..second]).unwrap();
    assert_eq!(
        (hints.status, hints.get("link").as_deref()),
        (103, Some("</a>"))
    );
    let message = Message::parse(&seen[second..]).unwrap();
    assert_eq!(
        (message.status, message.reason.as_str()),
        (299, "Quite Fine")
    );
    assert_eq!(message.all("set-cookie"), [b"a=1", b"b=2"]);
    assert_eq!(message.all("x-raw"), [b"\xff\xfe"]);
    assert_eq!(message.all("x-empty"), [b""]);
    assert_eq!(message.get("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(message.get("date").as_deref(), Some("then"));
    assert!(message.get("x-hop").is_none() && message.get("keep-alive").is_none());
    assert_eq!(message.body, b"abc");
    assert_eq!(message.trailers, [("x-sum".to_owned(), b"7".to_vec())]);
    assert!(message.complete);
}

#[test]
fn promise_3_an_unclean_end_stays_unclean() {
    let runtime = runtime();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let length = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
    for (answer, end) in [
        (chunked, Step::Close),
        (chunked, Step::Reset),
        (length, Step::Close),
        (length, Step::Reset),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
            Step::Close,
        ),
    ] {
        // A pause before a reset, or the kernel may throw away what was sent.
        let upstream = upstream(
            &runtime,
            vec![
                Step::ReadHead,
                Step::ReadDeclaredBody,
                write(answer),
                Step::Sleep(20),
                end,
            ],
        );
        let proxy = Proxy::start(upstream.addr());
        let (seen, _) = exchange(proxy.addr(), &chat("", "{}"), LONG);
        let message = Message::parse(&seen).unwrap();
        assert_eq!(
            message.body, b"hello",
            "all that came before the cut arrives"
        );
        assert!(!message.complete, "{}", seen.escape_ascii());
    }
    // Where the connection's end is the message's end, it is a tidy one.
    let upstream = upstream(
        &runtime,
        vec![
            Step::ReadHead,
            write("HTTP/1.0 200 OK\r\n\r\nhello"),
            Step::Close,
        ],
    );
    let proxy = Proxy::start(upstream.addr());
    let (seen, tidy) = exchange(
        proxy.addr(),
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        LONG,
    );
    let message = Message::parse(&seen).unwrap();
    assert!(tidy && message.complete);
    assert_eq!(message.body, b"hello");
}

#[test]
fn promise_4_a_client_that_leaves_ends_the_upstream_request() {
    let runtime = runtime();
    let upstream = upstream(
        &runtime,
        vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::WaitClose(LONG),
            Step::Close,
        ],
    );
    let proxy = Proxy::start(upstream.addr());
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.write_all(&chat("", STREAM)).unwrap();
    runtime.block_on(upstream.wait(LONG, |all| {
        all.first().is_some_and(|c| c.bytes.ends_with(b"}}"))
    }));
    let left = Instant::now();
    drop(client);
    runtime.block_on(upstream.wait(LONG, |all| {
        all.first().is_some_and(|c| c.peer_closed.is_some())
    }));
    let noticed = upstream.received()[0]
        .peer_closed
        .expect("upstream saw it")
        .saturating_duration_since(left);
    assert!(noticed < Duration::from_millis(50), "after {noticed:?}");
    proxy.wait_metrics("cancelled", |m| {
        m.count("vllm_request_cancelled_total", &[r#"phase="before_head""#]) == 1
    });
}

/// (h2c and TLS are in `transports`.)
#[test]
fn promise_5_websockets_are_tunnelled() {
    let runtime = runtime();
    let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\nearly";
    let upstream = upstream(
        &runtime,
        vec![
            Step::ReadHead,
            write(answer),
            Step::ReadBody(4),
            write("pong"),
            Step::Close,
        ],
    );
    let proxy = Proxy::start(upstream.addr());
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client
        .write_all(b"GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\nping")
        .unwrap();
    let (seen, _) = read_to_end(&mut client, LONG);
    let message = Message::parse(&seen).unwrap();
    assert_eq!(message.status, 101);
    assert_eq!(message.get("upgrade").as_deref(), Some("websocket"));
    assert_eq!(message.get("connection").as_deref(), Some("Upgrade"));
    assert!(seen.ends_with(b"earlypong"), "{}", seen.escape_ascii());
    let sent = upstream.received()[0].bytes.clone();
    let head = String::from_utf8_lossy(&sent).into_owned();
    assert!(
        head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
        "{head}"
    );
    assert!(head.ends_with("ping"));
    proxy.wait_metrics("counted when it is over", |m| {
        m.count("vllm_request_success_total", &[r#"endpoint="realtime""#]) == 1
    });
}

#[test]
fn promise_6_what_cannot_be_read_is_forwarded_all_the_same() {
    let runtime = runtime();
    let body = b"data: {\"choices\": \xff\n\ndata: {not json}\n\n\x00\x01".to_vec();
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    let upstream = upstream(
        &runtime,
        vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(answer.into()),
            Step::Close,
        ],
    );
    let proxy = Proxy::start(upstream.addr());
    let (seen, _) = exchange(
        proxy.addr(),
        &chat("connection: close\r\n", "not json either"),
        LONG,
    );
    assert_eq!(Message::parse(&seen).unwrap().body, body);
    let metrics = proxy.metrics();
    assert!(
        metrics.count(
            "tokenglass_observer_faults_total",
            &[r#"reason="unreadable""#]
        ) > 0
    );
    assert_eq!(
        metrics.count("tokenglass_observer_faults_total", &[r#"reason="panic""#]),
        0
    );
}

#[test]
fn promise_7_the_request_is_not_changed() {
    let runtime = runtime();
    let upstream = upstream(
        &runtime,
        vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            Step::Close,
        ],
    );
    let proxy = Proxy::start(upstream.addr());
    let body = r#"{ "model":"tiny" ,"messages":[],"stream": true}"#;
    let request = format!(
        "POST /v1/chat/completions?a=%2F&b=%20 HTTP/1.1\r\nHost: my.example:81\r\nUser-Agent: x/1\r\naccept-encoding: br\r\n\
         x-a: 1\r\nx-a: 2\r\nauthorization: Bearer k\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    exchange(proxy.addr(), request.as_bytes(), LONG);
    let sent = String::from_utf8(upstream.received()[0].bytes.clone()).unwrap();
    let wanted = request
        .replace("connection: close\r\n", "")
        .replace("Host:", "host:")
        .replace("User-Agent:", "user-agent:");
    assert_eq!(sent, wanted);
}

#[test]
fn promise_8_our_own_answers_have_the_clients_shape() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::start(free);
    let (seen, _) = exchange(proxy.addr(), &chat("connection: close\r\n", "{}"), LONG);
    let message = Message::parse(&seen).unwrap();
    assert_eq!(message.status, 502);
    let error = &message.json()["error"];
    assert!(error["message"].is_string() && error["type"].is_string() && error["param"].is_null());
    assert_eq!(error["code"], 502);
    let anthropic = b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let (seen, _) = exchange(proxy.addr(), anthropic, LONG);
    let message = Message::parse(&seen).unwrap();
    assert_eq!(message.status, 502);
    assert_eq!(message.json()["type"], "error");
    assert_eq!(message.json()["error"]["type"], "api_error");
    let errors = proxy.metrics().count(
        "vllm_request_error_total",
        &[r#"error_type="upstream_connect""#],
    );
    assert_eq!(errors, 2);
}
