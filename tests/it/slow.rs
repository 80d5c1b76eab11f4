//! Clients that are slow, streams that stall again, bodies at their limit.

use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use loadtest::scripted::Step;
use tokenglass::config::UsageMode;

use crate::origin::{Bed, Peer, answering, origin};
use crate::support::{Message, Metrics, Proxy, STREAM, chat, exchange};

const LIMIT: Duration = Duration::from_millis(400);
/// What a test may take longer than the limit that it tests: the machine has other users.
const SLACK: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(10);
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const MODES: [UsageMode; 2] = [UsageMode::Observe, UsageMode::Inject];

fn chunk(data: &str) -> String {
    format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8)
}

fn token() -> String {
    chunk(
        r#"{"model":"tiny","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}"#,
    )
}

fn errors(metrics: &Metrics, kind: &str) -> u64 {
    let label = format!(r#"error_type="{kind}""#);
    metrics.count("vllm_request_error_total", &[&label])
}

/// Writes what it is told to, and ends when nobody tells it any more.
fn told() -> (std::sync::mpsc::Sender<String>, SocketAddr) {
    let (tell, told): (_, Receiver<String>) = channel();
    let told = Mutex::new(told);
    let addr = origin(move |mut peer, _| {
        peer.read_head();
        peer.read_exact(STREAM.len());
        for text in told.lock().unwrap().iter() {
            peer.write(text);
        }
    });
    (tell, addr)
}

#[test]
fn a_second_stall_of_a_stream_shows_too() {
    let (tell, upstream) = told();
    let proxy = Proxy::with(upstream, |config| {
        config.observe.stall_after = Duration::from_millis(200);
        config.upstream.idle_timeout = Some(Duration::from_secs(600));
    });
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", STREAM));
    tell.send(HEAD.to_owned()).unwrap();
    for _ in 0..3 {
        let since = Instant::now();
        tell.send(token()).unwrap();
        client.read_until(b"Hi");
        assert_eq!(proxy.metrics().sum("vllm_streams_stalled", &[]), 0.0);
        proxy.wait_metrics("a stall", |m| m.sum("vllm_streams_stalled", &[]) == 1.0);
        let took = since.elapsed();
        assert!(
            took >= Duration::from_millis(200) && took < SLACK,
            "{took:?}"
        );
    }
    tell.send(format!("{}{}0\r\n\r\n", token(), chunk("[DONE]")))
        .unwrap();
    client.read_until(b"\r\n0\r\n\r\n");
    proxy.wait_metrics("a success", |m| {
        m.outcomes() == (1, 0, 0) && m.sum("vllm_streams_stalled", &[]) == 0.0
    });
}

/// A request of this body in pieces, with a pause before each.
fn upload(to: SocketAddr, framing: &str, pieces: &[&str], pause: Duration) -> TcpStream {
    let mut client = Peer::connect(to);
    client.write(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{framing}\r\n\r\n"
    ));
    for piece in pieces {
        std::thread::sleep(pause);
        client.write(piece);
    }
    client.stream
}

/// Neither limit, each shorter than the upload, ends one whose bytes keep coming.
#[test]
fn a_slow_and_steady_upload_passes_under_both_limits() {
    for mode in MODES {
        let bed = Bed::with(answering(OK), |config| {
            config.tokens.usage = mode;
            config.upstream.head_timeout = Some(LIMIT);
            config.server.body_read_timeout = Some(LIMIT);
        });
        let pieces = [
            "{\"model\"",
            ":\"tiny\"",
            ",\"messages\"",
            ":[],",
            "\"a\":1}",
        ]
        .repeat(2);
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let started = Instant::now();
        let framing = format!("content-length: {length}");
        let stream = upload(
            bed.proxy.addr(),
            &framing,
            &pieces,
            Duration::from_millis(120),
        );
        let (answer, _) = Peer::new(stream).read_to_end();
        assert!(started.elapsed() > LIMIT * 2);
        assert_eq!(Message::parse(&answer).unwrap().status, 200, "{mode:?}");
        let seen = bed.upstream.received()[0].bytes.clone();
        assert!(seen.ends_with(pieces.concat().as_bytes()));
        bed.proxy
            .wait_metrics("a success", |m| m.outcomes() == (1, 0, 0));
    }
}

/// It starts once the request is sent, and then it runs.
#[test]
fn the_head_limit_runs_from_the_end_of_the_upload() {
    let script = vec![
        Step::ReadHead,
        Step::ReadDeclaredBody,
        Step::WaitClose(LONG),
    ];
    let bed = Bed::with(script, |c| c.upstream.head_timeout = Some(LIMIT));
    let pieces = ["12"; 5];
    let pause = Duration::from_millis(150);
    let stream = upload(bed.proxy.addr(), "content-length: 10", &pieces, pause);
    let sent = Instant::now();
    let (answer, _) = Peer::new(stream).read_to_end();
    let took = sent.elapsed();
    assert!(
        took + SLACK / 20 >= LIMIT && took < LIMIT + SLACK,
        "{took:?}"
    );
    assert_eq!(Message::parse(&answer).unwrap().status, 504);
    let metrics = bed
        .proxy
        .wait_metrics("counted", |m| m.outcomes() == (0, 1, 0));
    assert_eq!(errors(&metrics, "upstream_timeout"), 1);
}

#[test]
fn a_body_that_stops_is_a_408() {
    let begun = [r#"{"model":"tiny","#];
    for mode in MODES {
        let bed = Bed::with(answering(OK), |config| {
            config.tokens.usage = mode;
            config.server.body_read_timeout = Some(LIMIT);
        });
        let framings = [
            ("content-length: 1000", begun[0].to_owned()),
            (
                "transfer-encoding: chunked",
                format!("{:x}\r\n{}\r\n", begun[0].len(), begun[0]),
            ),
            ("content-length: 1000", String::new()),
        ];
        for (number, (framing, begun)) in framings.iter().enumerate() {
            let started = Instant::now();
            let stream = upload(bed.proxy.addr(), framing, &[begun], Duration::ZERO);
            let (answer, _) = Peer::new(stream).read_to_end();
            let took = started.elapsed();
            assert!(took >= LIMIT && took < LIMIT + SLACK, "{took:?}");
            let message = Message::parse(&answer).unwrap();
            assert!(message.complete && message.status == 408, "{message:?}");
            assert_eq!(message.get("connection").as_deref(), Some("close"));
            let json = message.json();
            let error = &json["error"];
            assert_eq!(error["code"], 408, "{json}");
            assert!(error["message"].as_str().is_some_and(|m| m.len() > 10));
            assert!(error["type"].is_string() && error.get("param").is_some());
            let count = number as u64 + 1;
            let metrics = bed
                .proxy
                .wait_metrics("counted", |m| m.outcomes() == (0, count, 0));
            assert_eq!(errors(&metrics, "proxy_rejected"), count, "{mode:?}");
        }
        // What upstream was given of them is taken back.
        bed.wait("upstream is left", |all| {
            all.iter().all(|c| c.peer_closed.is_some())
        });
    }
}

#[test]
fn a_body_of_less_than_the_limit_passes_and_one_of_more_is_a_413() {
    let bare = r#"{"model":"tiny","messages":[],"stream":true,"pad":""}"#;
    let body =
        |length: usize| bare.replace(r#""""#, &format!("{:?}", "x".repeat(length - bare.len())));
    let chunked = |body: &str| {
        let (a, b) = body.split_at(50);
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             32\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
            b.len()
        )
        .into_bytes()
    };
    for mode in MODES {
        let bed = Bed::with(answering(OK), |config| {
            config.tokens.usage = mode;
            config.server.max_body_bytes = 100;
        });
        for (length, status) in [(97, 200), (100, 200), (101, 413), (300, 413)] {
            let body = body(length);
            for request in [chat("connection: close\r\n", &body), chunked(&body)] {
                let (bytes, _) = exchange(bed.proxy.addr(), &request, LONG);
                let message = Message::parse(&bytes).unwrap();
                assert_eq!(message.status, status, "{mode:?} {length}");
                if status == 413 {
                    assert_eq!(message.json()["error"]["code"], 413);
                }
            }
        }
        let metrics = bed
            .proxy
            .wait_metrics("all are counted", |m| m.outcomes() == (4, 4, 0));
        assert_eq!(errors(&metrics, "proxy_rejected"), 4);
        let seen = bed.upstream.received();
        let edited = seen
            .iter()
            .flat_map(|c| c.bytes.windows(13))
            .filter(|window| window == b"include_usage")
            .count();
        assert_eq!(edited, if mode == UsageMode::Inject { 4 } else { 0 });
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let (told, left) = channel();
    let told = Mutex::new(told);
    let upstream = origin(move |mut peer, _| {
        use std::io::Write as _;
        peer.read_head();
        peer.read_exact(STREAM.len());
        peer.write(HEAD);
        let tokens = token().repeat(500);
        while peer.stream.write_all(tokens.as_bytes()).is_ok() {}
        told.lock().unwrap().send(()).unwrap();
    });
    let proxy = Proxy::with(upstream, |c| c.server.send_timeout = Some(LIMIT));
    let mut client = Peer::connect(proxy.addr());
    let started = Instant::now();
    client.write(chat("", STREAM));
    left.recv_timeout(LONG).expect("upstream writes for ever");
    assert!(started.elapsed() >= LIMIT);
    proxy.wait_metrics("counted", |m| {
        m.outcomes() == (0, 0, 1) && m.sum("vllm_requests_in_flight", &[]) == 0.0
    });
    proxy.wait_metrics("the connection is closed", |m| {
        m.sum("tokenglass_downstream_connections", &[]) == 0.0
    });
}

/// The limit is on the next byte, not on the answer.
#[test]
fn a_client_that_takes_little_by_little_is_served() {
    let body = "x".repeat(12 << 20);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let bed = Bed::with(answering(answer.as_bytes()), |config| {
        config.server.send_timeout = Some(Duration::from_millis(600));
    });
    let mut client = Peer::connect(bed.proxy.addr());
    let started = Instant::now();
    client.write(chat("", STREAM));
    client.read_head();
    for _ in 0..24 {
        client.read_exact(512 << 10);
        std::thread::sleep(Duration::from_millis(60));
    }
    assert!(started.elapsed() > Duration::from_millis(1200));
    bed.proxy
        .wait_metrics("a success", |m| m.outcomes() == (1, 0, 0));
}
