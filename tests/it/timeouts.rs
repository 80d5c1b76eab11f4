//! Every limit does what it says, to the client and to the counters.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use loadtest::scripted::{RawServer, Step};
use loadtest::sim::{self, Listen};

use crate::support::{
    Message, Metrics, Proxy, STREAM, chat, exchange, read_message, read_to_end, runtime,
};

const LIMIT: Duration = Duration::from_secs(10);
/// What a test may take longer than the limit that it tests: the machine has other users.
const SLACK: Duration = Duration::from_secs(2);

/// A port that nobody listens on.
fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[track_caller]
fn send(proxy: &Proxy, path: &str) -> Message {
    let (bytes, _) = exchange(proxy.addr(), &post(path, r#"{"model":"tiny"}"#), LIMIT);
    let message = Message::parse(&bytes).expect("an answer");
    assert!(message.complete, "{message:?}");
    message
}

/// OpenAI's shape, with all four members.
#[track_caller]
fn assert_openai(message: &Message, status: u16) {
    assert_eq!(message.status, status, "{message:?}");
    assert_eq!(message.get("content-type").unwrap(), "application/json");
    let json = message.json();
    let error = &json["error"];
    assert_eq!(error["code"], status, "{json}");
    assert!(error["param"].is_null() && error.get("param").is_some());
    assert!(error["message"].as_str().is_some_and(|m| m.len() > 10));
    assert!(
        error["type"]
            .as_str()
            .is_some_and(|t| t.ends_with("Error") || status == 413)
    );
}

fn errors(metrics: &Metrics, kind: &str) -> u64 {
    let label = format!(r#"error_type="{kind}""#);
    metrics.count("vllm_request_error_total", &[&label])
}

#[test]
fn a_refused_connection_is_a_502_and_the_next_request_works() {
    let addr = free_addr();
    let proxy = Proxy::start(addr);
    assert_openai(&send(&proxy, "/v1/chat/completions"), 502);
    let anthropic = send(&proxy, "/v1/messages");
    assert_eq!(anthropic.status, 502);
    let json = anthropic.json();
    assert_eq!(
        (&json["type"], &json["error"]["type"]),
        (&"error".into(), &"api_error".into())
    );
    // The address is not the client's business.
    assert!(
        !json.to_string().contains(&addr.port().to_string()),
        "{json}"
    );

    let runtime = runtime();
    let config = sim::Config {
        listen: Listen::Tcp(addr),
        ..sim::Config::default()
    };
    let _sim = runtime
        .block_on(async { sim::Server::start(config) })
        .unwrap();
    assert_eq!(send(&proxy, "/v1/chat/completions").status, 200);
    let metrics = proxy.wait_metrics("all are counted", |m| m.outcomes() == (1, 2, 0));
    assert_eq!(errors(&metrics, "upstream_connect"), 2);
}

#[test]
fn a_connection_that_does_not_come_about_is_a_502_in_time() {
    // A listener that never accepts, and whose queue is full: the kernel drops what comes.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let filling: Vec<_> =
        std::iter::repeat_with(|| TcpStream::connect_timeout(&addr, Duration::from_millis(200)))
            .take_while(Result::is_ok)
            .take(16)
            .collect();
    assert!(filling.len() < 16, "the queue never was full");

    let limit = Duration::from_millis(300);
    let proxy = Proxy::with(addr, |config| config.upstream.connect_timeout = limit);
    let started = Instant::now();
    assert_openai(&send(&proxy, "/v1/completions"), 502);
    let took = started.elapsed();
    assert!(took >= limit && took < limit + SLACK, "{took:?}");
    let metrics = proxy.wait_metrics("it is counted", |m| m.outcomes() == (0, 1, 0));
    assert_eq!(errors(&metrics, "upstream_connect"), 1);
    drop(filling);
}

#[test]
fn an_upstream_without_a_head_is_a_504_and_is_left() {
    let runtime = runtime();
    let upstream = runtime
        .block_on(async {
            RawServer::start(vec![
                Step::ReadHead,
                Step::ReadDeclaredBody,
                Step::WaitClose(LIMIT),
            ])
        })
        .unwrap();
    let limit = Duration::from_millis(300);
    let proxy = Proxy::with(upstream.addr(), |c| c.upstream.head_timeout = Some(limit));
    let started = Instant::now();
    assert_openai(&send(&proxy, "/v1/chat/completions"), 504);
    let took = started.elapsed();
    assert!(took >= limit && took < limit + SLACK, "{took:?}");
    let told = runtime.block_on(upstream.wait(LIMIT, |c| c[0].peer_closed.is_some()));
    assert!(told, "upstream works on for nobody");
    let metrics = proxy.wait_metrics("it is counted", |m| m.outcomes() == (0, 1, 0));
    assert_eq!(errors(&metrics, "upstream_timeout"), 1);
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8)
}

fn token() -> String {
    chunk(
        r#"{"model":"tiny","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}"#,
    )
}

#[test]
fn an_idle_stream_is_cut_uncleanly() {
    let runtime = runtime();
    let answer = format!("{HEAD}{}", token());
    let upstream = runtime
        .block_on(async {
            RawServer::start(vec![
                Step::ReadHead,
                Step::ReadDeclaredBody,
                Step::Write(answer.into()),
                Step::WaitClose(LIMIT),
            ])
        })
        .unwrap();
    let limit = Duration::from_millis(400);
    let proxy = Proxy::with(upstream.addr(), |c| c.upstream.idle_timeout = Some(limit));
    let started = Instant::now();
    let (bytes, _) = exchange(proxy.addr(), &chat("", STREAM), LIMIT);
    let took = started.elapsed();
    assert!(took >= limit && took < limit + SLACK, "{took:?}");
    let message = Message::parse(&bytes).unwrap();
    assert!(!message.complete, "a tidy end: {}", bytes.escape_ascii());
    assert!(message.body.ends_with(b"}]}\n\n"), "the token came through");
    assert!(runtime.block_on(upstream.wait(LIMIT, |c| c[0].peer_closed.is_some())));
    let metrics = proxy.wait_metrics("it is counted", |m| m.outcomes() == (0, 1, 0));
    assert_eq!(errors(&metrics, "stream_stalled"), 1);
}

/// Waits for one stalled stream, and gives its series.
#[track_caller]
fn stalled(proxy: &Proxy, count: f64) -> Metrics {
    proxy.wait_metrics("the gauge of stalled streams", |m| {
        m.sum("vllm_streams_stalled", &[]) == count
    })
}

#[test]
fn the_stall_gauge_rises_and_falls_with_the_silence() {
    let runtime = runtime();
    let open = format!("{HEAD}{}", token());
    let end = format!("{}{}0\r\n\r\n", token(), chunk("[DONE]"));
    let script = |wait| {
        vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(open.clone().into()),
            Step::Sleep(wait),
            Step::Write(end.clone().into()),
            Step::WaitClose(LIMIT),
        ]
    };
    let any = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let upstream = runtime
        .block_on(async { RawServer::with(&any, vec![script(1500), script(0)]) })
        .unwrap();
    let stall_after = Duration::from_millis(200);
    let proxy = Proxy::with(upstream.addr(), |c| c.observe.stall_after = stall_after);
    let mut slow = TcpStream::connect(proxy.addr()).unwrap();
    let started = Instant::now();
    slow.write_all(&chat("", STREAM)).unwrap();
    stalled(&proxy, 1.0);
    assert!(started.elapsed() >= stall_after);
    // Meanwhile another answer makes the model's name known: the label of a stalled stream must not change under it.
    let mut quick = TcpStream::connect(proxy.addr()).unwrap();
    quick.write_all(&chat("", STREAM)).unwrap();
    assert!(read_message(&mut quick).complete);
    proxy.wait_metrics("the quick one", |m| m.outcomes().0 == 1);
    let before = stalled(&proxy, 1.0);
    assert_eq!(before.outcomes(), (1, 0, 0), "still silent");
    assert!(read_message(&mut slow).complete);
    let after = stalled(&proxy, 0.0);
    let series = after
        .0
        .lines()
        .filter(|l| l.starts_with("vllm_streams_stalled{"));
    let wrong: Vec<_> = series.filter(|line| !line.ends_with(" 0")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A stream that has said `[DONE]` owes nothing: only its last chunk is missing.
#[test]
fn silence_after_done_is_no_stall() {
    let runtime = runtime();
    let answer = format!("{HEAD}{}{}", token(), chunk("[DONE]"));
    let upstream = runtime
        .block_on(async {
            RawServer::start(vec![
                Step::ReadHead,
                Step::ReadDeclaredBody,
                Step::Write(answer.into()),
                Step::WaitClose(LIMIT),
            ])
        })
        .unwrap();
    let proxy = Proxy::with(upstream.addr(), |config| {
        config.observe.stall_after = Duration::from_millis(50);
        config.upstream.idle_timeout = Some(Duration::from_millis(400));
    });
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.write_all(&chat("", STREAM)).unwrap();
    let ended = Instant::now() + Duration::from_millis(250);
    while Instant::now() < ended {
        assert_eq!(proxy.metrics().sum("vllm_streams_stalled", &[]), 0.0);
    }
    read_to_end(&mut client, LIMIT);
    proxy.wait_metrics("a success all the same", |m| m.outcomes() == (1, 0, 0));
}

#[test]
fn a_slow_client_is_closed_whatever_little_it_sends() {
    let limit = Duration::from_millis(300);
    let proxy = Proxy::with(free_addr(), |c| c.server.header_read_timeout = limit);
    for sent in [
        "",
        "P",
        "PRI",
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n",
    ] {
        let mut client = TcpStream::connect(proxy.addr()).unwrap();
        client.write_all(sent.as_bytes()).unwrap();
        let started = Instant::now();
        let (answer, _) = read_to_end(&mut client, LIMIT);
        let took = started.elapsed();
        assert!(
            took + SLACK / 10 >= limit && took < limit + SLACK,
            "{sent:?}: {took:?}"
        );
        let shown = answer.escape_ascii().to_string();
        assert!(
            answer.is_empty() || shown.contains("408"),
            "{sent:?}: {shown}"
        );
    }
    // A byte now and then is no excuse.
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    let started = Instant::now();
    let closed = b"GET /v1/models HTTP/1.1\r\nx-slow: 1\r\n"
        .iter()
        .cycle()
        .any(|byte| {
            std::thread::sleep(Duration::from_millis(50));
            client.write_all(&[*byte]).is_err() || started.elapsed() > limit + SLACK
        });
    assert!(
        closed && started.elapsed() < limit + SLACK,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        proxy.metrics().outcomes(),
        (0, 0, 0),
        "no request, no count"
    );
}

#[test]
fn a_body_over_the_limit_is_a_413_by_length_and_by_chunks() {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    let proxy = Proxy::with(sim.addr(), |config| config.server.max_body_bytes = 1000);
    let body = |length: usize| {
        let bare = r#"{"model":"tiny","messages":[],"pad":""}"#;
        bare.replace(r#""""#, &format!("{:?}", "x".repeat(length - bare.len())))
    };
    let chunked = |length: usize| {
        let body = body(length);
        let mut request =
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        for piece in body.as_bytes().chunks(100) {
            request.extend(
                format!("{:x}\r\n", piece.len())
                    .bytes()
                    .chain(piece.iter().copied()),
            );
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    };
    for (request, status) in [
        (post("/v1/chat/completions", &body(1000)), 200),
        (chunked(1000), 200),
        (post("/v1/chat/completions", &body(1001)), 413),
        (chunked(1001), 413),
    ] {
        let (bytes, _) = exchange(proxy.addr(), &request, LIMIT);
        let message = Message::parse(&bytes).expect("an answer");
        if status == 413 {
            assert_openai(&message, 413);
        }
        assert_eq!(message.status, status, "{}", bytes.escape_ascii());
    }
    let metrics = proxy.wait_metrics("all are counted", |m| m.outcomes() == (2, 2, 0));
    assert_eq!(errors(&metrics, "proxy_rejected"), 2);
    let whole = sim
        .truth()
        .entries()
        .iter()
        .filter(|e| e.status == 200)
        .count();
    assert_eq!(whole, 2, "upstream has seen the two good ones");
}

#[test]
fn a_connection_too_many_waits_for_its_turn() {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    let proxy = Proxy::with(sim.addr(), |config| config.server.max_connections = 2);
    let health = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut open: Vec<_> = (0..2)
        .map(|_| {
            let mut client = TcpStream::connect(proxy.addr()).unwrap();
            client.write_all(health).unwrap();
            assert_eq!(read_message(&mut client).status, 200);
            client
        })
        .collect();
    // The kernel takes it, the proxy does not.
    let mut third = TcpStream::connect(proxy.addr()).unwrap();
    third.write_all(health).unwrap();
    third
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(third.read(&mut [0; 16]).is_err(), "served beyond the limit");
    assert_eq!(
        proxy
            .metrics()
            .sum("tokenglass_downstream_connections", &[]),
        2.0
    );
    open.pop();
    assert_eq!(read_message(&mut third).status, 200);
}
