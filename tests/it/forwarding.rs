//! What must pass as it is: heads, interim responses, bodies that are none, unusual framing.

use std::time::Duration;

use loadtest::scripted::Step;

use crate::origin::{Bed, Peer, answering, get, origin};
use crate::support::{Message, Proxy, STREAM, chat, find};

/// hyper's own empty 4xx answers get a body of ours. Upstream's empty 4xx must not be taken for one.
#[test]
fn an_empty_answer_of_upstream_is_not_ours() {
    for status in [
        "404 Not Found",
        "401 Unauthorized",
        "400 Bad Request",
        "431 Too Large",
    ] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let bed = Bed::answering(answer.as_bytes());
        let mut client = Peer::connect(bed.proxy.addr());
        for method in ["GET", "HEAD", "POST"] {
            client.write(format!("{method} /x HTTP/1.1\r\nhost: a\r\n\r\n"));
            let head = client.read_head();
            assert_eq!(head, answer, "{method}");
        }
        let rest = client.read_for(Duration::from_millis(30));
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

#[test]
fn bytes_that_are_no_text_and_repeated_headers_pass() {
    let answer = b"HTTP/1.1 299 Fast genug\r\nset-cookie: a=1\r\nx-raw: \xff\xfe caf\xe9\r\nset-cookie: b=2\r\nContent-Encoding: gzip\r\nx-empty:\r\ncontent-length: 6\r\n\r\n\x1f\x8b\x08\x00\xff\xfe";
    let bed = Bed::answering(answer);
    let got = bed.message(&get("/nobody/knows?this=path", "x-in: \u{7f}\r\n").replace_del());
    assert_eq!((got.status, got.reason.as_str()), (299, "Fast genug"));
    assert_eq!(got.all("set-cookie"), [b"a=1", b"b=2"]);
    assert_eq!(got.all("x-raw"), [b"\xff\xfe caf\xe9"]);
    assert_eq!(got.all("x-empty"), [b""]);
    assert_eq!(got.all("content-encoding"), [b"gzip"]);
    assert_eq!(got.body, b"\x1f\x8b\x08\x00\xff\xfe");
    let received = bed.wait("the request", |all| !all.is_empty());
    assert!(
        find(&received[0].bytes, b"x-in: \xff\xfe").is_some(),
        "{}",
        received[0].bytes.escape_ascii()
    );
    assert!(
        received[0]
            .bytes
            .starts_with(b"GET /nobody/knows?this=path HTTP/1.1\r\n")
    );
}

trait ReplaceDel {
    fn replace_del(self) -> Self;
}

impl ReplaceDel for Vec<u8> {
    /// DEL stands for two bytes that no `str` can hold.
    fn replace_del(mut self) -> Self {
        let at = self.iter().position(|b| *b == 0x7f).unwrap();
        self.splice(at..=at, *b"\xff\xfe");
        self
    }
}

/// Wrapping a body must not cost it its length (llmman#369), nor give one to a chunked body.
#[test]
fn a_length_stays_a_length() {
    let lines = [
        "content-length: 2\r\n\r\nok",
        "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ];
    for (index, rest) in lines.iter().enumerate() {
        let bed = Bed::answering(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes());
        let got = bed.message(&chat("connection: close\r\n", "{}"));
        assert_eq!(got.all("content-length").len(), 1 - index, "{rest}");
        assert_eq!(got.all("transfer-encoding").len(), index, "{rest}");
        assert_eq!(got.body, b"ok");
        assert!(got.complete);
    }
}

#[test]
fn answers_without_a_body() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"),
        (
            "HEAD",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 22\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nx: y\r\n\r\n"),
    ] {
        let bed = Bed::answering(answer.as_bytes());
        let mut client = Peer::connect(bed.proxy.addr());
        // Twice on one connection: anything of a body would be in the way of the second.
        for _ in 0..2 {
            client.write(format!("{method} /x HTTP/1.1\r\nhost: a\r\n\r\n"));
            assert_eq!(client.read_head(), answer, "{method}");
        }
        assert!(client.read_for(Duration::from_millis(20)).is_empty());
        assert_eq!(
            bed.upstream.received().len(),
            1,
            "{method} {answer}: not kept alive"
        );
    }
    // hyper leaves out a 304's length, which is optional (RFC 9110 §8.6); it must never be followed by a body.
    let bed = Bed::answering(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n");
    let (bytes, tidy) = bed.ask(&get("/x", ""));
    assert!(
        tidy && bytes.ends_with(b"\r\n\r\n"),
        "{}",
        bytes.escape_ascii()
    );
    // A length that only a GET would have must not be made up.
    let bed = Bed::answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let got = bed.message(b"HEAD /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(got.get("content-length"), None);
}

/// Interim responses come before the answer, also when both came in one packet.
#[test]
fn early_hints_pass_in_order() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
    let done = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for gap in [0, 40] {
        let mut script = vec![Step::ReadHead, Step::ReadDeclaredBody];
        if gap == 0 {
            script.push(Step::Write([hints, hints, done].concat().into()));
        } else {
            script.extend([
                Step::Write(hints.into()),
                Step::Sleep(gap),
                Step::Write(hints.into()),
                Step::Sleep(gap),
                Step::Write(done.into()),
            ]);
        }
        script.push(Step::Repeat);
        let bed = Bed::new(script);
        let mut client = Peer::connect(bed.proxy.addr());
        for _ in 0..3 {
            client.write(chat("", STREAM));
            for _ in 0..2 {
                assert_eq!(client.read_head(), hints, "gap {gap}");
            }
            assert_eq!(
                String::from_utf8_lossy(&client.read_exact(done.len())),
                done
            );
        }
    }
}

/// HTTP/1.0 knows no interim responses, and no chunks.
#[test]
fn http_1_0_gets_what_it_can_read() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let bed = Bed::answering(answer);
    let (bytes, tidy) = bed.ask(b"GET /x HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(
        bytes.escape_ascii().to_string(),
        "HTTP/1.0 200 OK\\r\\n\\r\\nok"
    );
    assert!(tidy);
}

#[test]
fn large_answer_heads_pass_and_endless_ones_do_not() {
    let line = format!("x-large: {}\r\n", "y".repeat(1000));
    for (lines, status) in [(200, 200), (254, 200), (300, 502)] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok",
            line.repeat(lines)
        );
        let bed = Bed::answering(answer.as_bytes());
        let got = bed.message(&get("/x", ""));
        assert_eq!(got.status, status, "{lines} lines");
        if status == 200 {
            assert_eq!(got.all("x-large").len(), lines);
            assert_eq!(got.body, b"ok");
        }
    }
}

/// A client that waits for 100 gets it from upstream, once, and only then upstream gets the body.
#[test]
fn expect_100_continue_is_upstreams_to_grant() {
    let upstream = origin(|mut peer, _| {
        let head = peer.read_head().to_lowercase();
        assert!(head.contains("expect: 100-continue"), "{head}");
        let early = peer.read_for(Duration::from_millis(150));
        assert!(
            early.is_empty(),
            "the body came unasked: {}",
            early.escape_ascii()
        );
        peer.write("HTTP/1.1 100 Continue\r\n\r\n");
        let body = peer.read_exact(5);
        peer.write(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}",
            String::from_utf8_lossy(&body)
        ));
        peer.read_for(Duration::from_secs(1));
    });
    let proxy = Proxy::start(upstream);
    let mut client = Peer::connect(proxy.addr());
    client.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("hello");
    assert_eq!(
        client.read_head(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    );
    assert_eq!(client.read_exact(5), b"hello");
}

/// Upstream that refuses without asking for the body: the client learns it and keeps its body.
#[test]
fn a_refusal_instead_of_100_reaches_a_waiting_client() {
    for status in [
        "413 Request Entity Too Large",
        "401 Unauthorized",
        "417 Expectation Failed",
    ] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno");
        let script = vec![
            Step::ReadHead,
            Step::Write(answer.clone().into()),
            Step::WaitClose(Duration::from_secs(5)),
        ];
        let bed = Bed::new(script);
        let mut client = Peer::connect(bed.proxy.addr());
        client.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 50\r\n\r\n");
        let (bytes, _) = client.read_to_end();
        let got = Message::parse(&bytes).unwrap();
        assert_eq!(
            got.status.to_string(),
            status[..3],
            "{}",
            bytes.escape_ascii()
        );
        assert_eq!(got.body, b"no");
        let received = bed.wait("the end", |all| all.iter().all(|c| c.peer_closed.is_some()));
        assert_eq!(received.len(), 1);
        assert!(
            received[0].bytes.ends_with(b"\r\n\r\n"),
            "some of the body was sent"
        );
    }
}

/// An upstream that does not know `Expect` must not be waited for without end, nor must the client.
#[test]
fn silence_instead_of_100_lets_the_body_go() {
    let bed = Bed::new(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    let mut client = Peer::connect(bed.proxy.addr());
    client.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("hello");
    assert_eq!(
        client.read_head(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    );
    assert!(bed.upstream.received()[0].bytes.ends_with(b"\r\n\r\nhello"));
}
