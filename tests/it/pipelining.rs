//! Requests behind requests on one connection: their bytes wait, and none is lost.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::origin::{Bed, Peer, answering, get, origin};
use crate::support::{Message, Proxy, STREAM, chat, exchange};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENT: &str = "data: {}\n\n";

/// Answers each request with the length of its body, slowly: an event for each word that comes, till the senders end.
fn slow_upstream() -> (std::sync::mpsc::Sender<bool>, std::net::SocketAddr) {
    let (tell, told) = channel::<bool>();
    let told = Mutex::new(told);
    let addr = origin(move |mut peer, _| {
        loop {
            let head = peer.read_head();
            let length: usize = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                .unwrap();
            let body = peer.read_exact(length);
            let sum: usize = body.iter().map(|byte| usize::from(*byte)).sum();
            peer.write(HEAD);
            for more in told.lock().unwrap().iter() {
                if !more {
                    break;
                }
                peer.write(format!("{:x}\r\n{EVENT}\r\n", EVENT.len()));
            }
            let last = format!("data: {length} {sum}\n\ndata: [DONE]\n\n");
            peer.write(format!("{:x}\r\n{last}\r\n0\r\n\r\n", last.len()));
        }
    });
    (tell, addr)
}

fn answer_to(body: &str, events: usize) -> String {
    let sum: usize = body.bytes().map(usize::from).sum();
    format!(
        "{}data: {} {sum}\n\ndata: [DONE]\n\n",
        EVENT.repeat(events),
        body.len()
    )
}

fn read_answer(client: &mut Peer) -> String {
    let mut bytes = client.read_until(b"\r\n0\r\n\r\n");
    // A head says nothing of its own end.
    let at = crate::support::find(&bytes, b"HTTP/1.1").unwrap();
    bytes.drain(..at);
    let message = Message::parse(&bytes).unwrap();
    assert!(message.complete && message.status == 200, "{message:?}");
    String::from_utf8(message.body).unwrap()
}

/// In one write, in pieces before and during the first answer, and in pieces larger than any buffer.
#[test]
fn a_second_request_is_answered_when_the_first_has_ended() {
    let large = "0123456789abcdef".repeat(20_000);
    for (second, piece) in [
        (STREAM.to_owned(), usize::MAX),
        (STREAM.to_owned(), 40),
        (STREAM.to_owned(), 7),
        (large.clone(), 16_000),
        (large, 60_000),
    ] {
        for ahead in [0, 1, 50] {
            let (tell, upstream) = slow_upstream();
            let proxy = Proxy::start(upstream);
            let mut client = Peer::connect(proxy.addr());
            let request = chat("", &second);
            let (front, rest) = request.split_at(ahead);
            client.write([&chat("", STREAM), front].concat());
            client.read_head();
            // The proxy may stop reading: what it does not take waits in the sockets.
            let mut writer = Peer::new(client.stream.try_clone().unwrap());
            let rest = rest.to_vec();
            let mut events = 0;
            let (wrote, written) = channel();
            let writing = std::thread::spawn(move || {
                for piece in rest.chunks(piece) {
                    writer.write(piece);
                    let _ = wrote.send(());
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            while events < 200 && written.recv_timeout(Duration::from_millis(100)).is_ok() {
                tell.send(true).unwrap();
                events += 1;
            }
            tell.send(false).unwrap();
            let mut bytes = client.read_until(b"\r\n0\r\n\r\n");
            bytes.splice(..0, HEAD.bytes());
            let first = Message::parse(&bytes).unwrap();
            assert_eq!(
                String::from_utf8(first.body).unwrap(),
                answer_to(STREAM, events),
                "{piece} {ahead}"
            );
            tell.send(false).unwrap();
            assert_eq!(read_answer(&mut client), answer_to(&second, 0));
            writing.join().unwrap();
            proxy.wait_metrics("both succeed", |m| m.outcomes() == (2, 0, 0));
        }
    }
}

#[test]
fn many_requests_in_one_write_are_answered_in_turn() {
    const REQUESTS: usize = 50;
    let bed = Bed::new(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    let mut all = chat("", STREAM).repeat(REQUESTS);
    all.extend(get("/v1/models", ""));
    let (bytes, tidy) = exchange(bed.proxy.addr(), &all, Duration::from_secs(10));
    assert!(tidy);
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), REQUESTS + 1);
    bed.proxy
        .wait_metrics("all succeed", |m| m.outcomes().0 >= REQUESTS as u64);
}

/// Empty lines before a request are to be ignored (RFC 9112 §2.2), not to hide what it is.
#[test]
fn empty_lines_do_not_hide_a_second_length() {
    let bed = Bed::new(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    let both = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\
                transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    for lines in ["", "\r\n", "\r\n\r\n", "\n", "\r\n\r\n\r\n"] {
        for alone in [false, true] {
            let mut client = Peer::connect(bed.proxy.addr());
            client.write(lines);
            if alone {
                std::thread::sleep(Duration::from_millis(30));
            }
            client.write(both);
            let (bytes, _) = client.read_to_end();
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.status, 400, "{lines:?} {alone}");
            // And behind a request that is in order.
            let mut client = Peer::connect(bed.proxy.addr());
            client.write(chat("", STREAM));
            client.read_until(b"ok");
            client.write(lines);
            if alone {
                std::thread::sleep(Duration::from_millis(30));
            }
            client.write(both);
            let (bytes, _) = client.read_to_end();
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.status, 400, "second, {lines:?} {alone}");
        }
    }
    let bodies = bed.upstream.received();
    assert!(
        bodies
            .iter()
            .all(|c| !c.bytes.ends_with(b"{}\r\n0\r\n\r\n"))
    );
}
