//! Bugs that proxies like this one have had, each by the name under which it is known.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use loadtest::scripted::Step;

use crate::origin::{Bed, Peer, answering, get, origin};
use crate::support::{Message, Proxy, STREAM, chat};

const SSE: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn frame(text: &str) -> String {
    let event = format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}

fn upgrade(early: &str) -> String {
    format!(
        "GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n{early}"
    )
}

/// RUSTSEC-2026-0033: bytes behind an upgrade request were tunnelled before upstream had agreed.
#[test]
fn no_tunnel_before_101() {
    let (tell, told) = mpsc::channel();
    let upstream = origin(move |mut peer, _| {
        let head = peer.read_head();
        tell.send((head, peer.read_for(Duration::from_millis(150))))
            .unwrap();
        peer.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: y\r\n\r\nbehind");
        let sent = peer.read_exact(5);
        peer.write(sent);
    });
    let proxy = Proxy::start(upstream);
    let mut client = Peer::connect(proxy.addr());
    client.write(upgrade("EARLY"));
    let (head, early) = told.recv().unwrap();
    assert!(
        head.contains("upgrade: websocket") && head.contains("sec-websocket-key: x"),
        "{head}"
    );
    assert!(early.is_empty(), "before 101: {}", early.escape_ascii());
    let head = client.read_head();
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("sec-websocket-accept: y"),
        "{head}"
    );
    assert_eq!(client.read_exact(11), b"behindEARLY");
    assert_eq!(client.read_to_end(), (Vec::new(), true));
}

/// The same with a refusal: what follows is a request like any other, or nothing.
#[test]
fn no_tunnel_without_101() {
    let bed = Bed::new(answering(
        b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
    ));
    let (bytes, _) = bed.ask(upgrade("\x01\x02 no HTTP\r\n\r\n").as_bytes());
    assert!(
        bytes.starts_with(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"),
        "{}",
        bytes.escape_ascii()
    );
    let received = bed.upstream.received();
    assert_eq!(received.len(), 1);
    assert!(
        received[0].bytes.ends_with(b"\r\n\r\n"),
        "{}",
        received[0].bytes.escape_ascii()
    );
}

/// A 101 that nobody asked for would turn the next request into tunnelled bytes.
#[test]
fn an_unasked_101_is_refused() {
    let bed = Bed::answering(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nGET",
    );
    let got = bed.message(&chat("connection: close\r\n", STREAM));
    assert_eq!(got.status, 502);
    assert_eq!(got.json()["error"]["code"], 502);
    bed.wait("the connection is closed", |all| {
        all.iter().all(|c| c.peer_closed.is_some())
    });
}

/// Cloudflare's hyper bug of 2026: an answer was cut short, tidily, where the reader was slower than the writer.
#[test]
fn a_slow_reader_gets_every_byte_of_an_upstream_that_closes_at_once() {
    let body: Vec<u8> = (0..8 << 20).map(|i: u32| (i / 251) as u8).collect();
    for framing in ["content-length", "close", "chunked"] {
        let sent = body.clone();
        let upstream = origin(move |mut peer, _| {
            peer.read_head();
            peer.write("HTTP/1.1 200 OK\r\nconnection: close\r\n");
            match framing {
                "content-length" => peer.write(format!("content-length: {}\r\n\r\n", sent.len())),
                "chunked" => peer.write("transfer-encoding: chunked\r\n\r\n"),
                _ => peer.write("\r\n"),
            }
            for piece in sent.chunks(100_000) {
                if framing == "chunked" {
                    peer.write(
                        [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
                    );
                } else {
                    peer.write(piece);
                }
            }
            if framing == "chunked" {
                peer.write("0\r\n\r\n");
            }
        });
        let proxy = Proxy::start(upstream);
        let mut client = Peer::connect(proxy.addr());
        client.write(get("/large", ""));
        std::thread::sleep(Duration::from_millis(100));
        let mut all = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = client.stream.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..count]);
            std::thread::sleep(Duration::from_micros(500));
        }
        let got = Message::parse(&all).unwrap();
        assert!(
            got.complete && got.body == body,
            "{framing}: {} of {} bytes",
            got.body.len(),
            body.len()
        );
    }
}

/// OmniRoute#9653: clients close as soon as they have read `[DONE]`; they have everything, so it is no cancellation.
#[test]
fn leaving_at_done_is_success() {
    let done = "e\r\ndata: [DONE]\n\n\r\n";
    let bed = Bed::new(vec![
        Step::ReadHead,
        Step::ReadDeclaredBody,
        Step::Write([SSE, &frame("a"), done].concat().into()),
        Step::Sleep(300),
        Step::Write("0\r\n\r\n".into()),
        Step::Repeat,
    ]);
    let mut client = Peer::connect(bed.proxy.addr());
    client.write(chat("", STREAM));
    client.read_until(b"data: [DONE]\n\n");
    drop(client);
    let metrics = bed.proxy.wait_metrics("one request has ended", |m| {
        let (success, error, cancelled) = m.outcomes();
        success + error + cancelled == 1
    });
    assert_eq!(metrics.outcomes(), (1, 0, 0), "{}", metrics.non_zero());
}

/// aisix#852: a client that left before the head left no record. And vLLM must learn of it at once.
#[test]
fn leaving_before_the_head_is_counted_and_told() {
    let bed = Bed::new(vec![
        Step::ReadHead,
        Step::ReadDeclaredBody,
        Step::WaitClose(Duration::from_secs(5)),
    ]);
    let mut client = Peer::connect(bed.proxy.addr());
    client.write(chat("", STREAM));
    bed.wait("the request", |all| {
        all.first()
            .is_some_and(|c| c.bytes.ends_with(STREAM.as_bytes()))
    });
    std::thread::sleep(Duration::from_millis(30));
    let left = Instant::now();
    drop(client);
    let received = bed.wait("the end", |all| all[0].peer_closed.is_some());
    let took = received[0]
        .peer_closed
        .unwrap()
        .saturating_duration_since(left);
    assert!(took < Duration::from_millis(50), "{took:?}");
    let metrics = bed
        .proxy
        .wait_metrics("counted", |m| m.outcomes() == (0, 0, 1));
    assert_eq!(
        metrics.count("vllm_request_cancelled_total", &["phase=\"before_head\""]),
        1,
        "{}",
        metrics.non_zero()
    );
    assert_eq!(metrics.count("vllm_requests_in_flight", &[]), 0);
}

/// litellm#26102: frames were held back until more had come. Here none is written before the last has arrived.
#[test]
fn a_frame_goes_on_at_once() {
    let (arrived, next) = mpsc::channel::<()>();
    let (tell, written) = mpsc::channel();
    let next = std::sync::Mutex::new(next);
    let upstream = origin(move |mut peer, _| {
        peer.read_head();
        peer.read_exact(STREAM.len());
        peer.write(SSE);
        for index in 0..40 {
            let wire = frame(&format!("token {index}"));
            tell.send(Instant::now()).unwrap();
            peer.write(wire);
            next.lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(5))
                .expect("the last frame is held back");
        }
        peer.write("0\r\n\r\n");
    });
    let proxy = Proxy::start(upstream);
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", STREAM));
    client.read_head();
    let mut took: Vec<_> = (0..40)
        .map(|index| {
            client.read_until(format!("token {index}").as_bytes());
            client.read_until(b"\n\n\r\n");
            let took = written.recv().unwrap().elapsed();
            arrived.send(()).unwrap();
            took
        })
        .collect();
    took.sort();
    assert!(took[35] < Duration::from_millis(20), "{took:?}");
}

/// An event larger than every buffer passes whole.
#[test]
fn an_event_of_a_mebibyte() {
    let wire = [
        SSE,
        &frame(&"x".repeat(1 << 20)),
        &frame("end"),
        "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    ]
    .concat();
    let bed = Bed::answering(wire.as_bytes());
    let got = bed.message(&chat("connection: close\r\n", STREAM));
    assert!(got.complete);
    assert!(got.body == Message::parse(wire.as_bytes()).unwrap().body);
    bed.proxy
        .wait_metrics("counted", |m| m.outcomes() == (1, 0, 0));
}

/// An answer to a request whose body is still coming: the client gets it, and upstream's connection is not used again.
#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let upstream = origin(|mut peer, number| {
        let head = peer.read_head();
        assert!(number == 0 || head.starts_with("GET /next"), "{head}");
        peer.write("HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 3\r\n\r\nbig");
        peer.read_for(Duration::from_secs(3));
    });
    let proxy = Proxy::start(upstream);
    let mut client = Peer::connect(proxy.addr());
    client.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n");
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || while sender.write_all(&[b'x'; 50_000]).is_ok() {});
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(client.read_exact(3), b"big");
    drop(client.stream);
    let mut next = Peer::connect(proxy.addr());
    next.write(get("/next", ""));
    assert!(next.read_head().starts_with("HTTP/1.1 413 "));
    sending.join().unwrap();
}

/// A cut must not look like an end. (HTTP/1.0 has no framing that could show it: such a client gets what there is, and
/// a FIN.)
#[test]
fn a_cut_is_a_cut() {
    let bed = Bed::new(vec![
        Step::ReadHead,
        Step::Write([SSE, &frame("a")].concat().into()),
        Step::Sleep(30),
        Step::Reset,
    ]);
    let (bytes, _) = bed.ask(&get("/x", ""));
    let got = Message::parse(&bytes).unwrap();
    assert!(
        !got.complete && got.body.ends_with(b"\n\n"),
        "{}",
        bytes.escape_ascii()
    );
    let (bytes, _) = bed.ask(b"GET /x HTTP/1.0\r\nhost: a\r\n\r\n");
    assert!(bytes.ends_with(b"\n\n"), "{}", bytes.escape_ascii());
}
