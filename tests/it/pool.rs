//! When an upstream connection serves another request, and when it must not.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use loadtest::scripted::Step;

use crate::origin::{Bed, Peer, answering, get, origin};
use crate::support::{Message, Proxy, STREAM, chat};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// How many upstream connections two requests take, one after the other.
#[track_caller]
fn connections_for_two(answer: &str, request: &[u8]) -> usize {
    let bed = Bed::answering(answer.as_bytes());
    for _ in 0..2 {
        let mut client = Peer::connect(bed.proxy.addr());
        client.write(request);
        client.read_head();
        // Long enough for all that upstream has written to be there.
        client.read_for(Duration::from_millis(40));
    }
    bed.upstream.received().len()
}

#[test]
fn a_whole_answer_frees_its_connection() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let trailers =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n";
    for answer in [
        OK,
        chunked,
        trailers,
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let request = chat("", STREAM);
        assert_eq!(connections_for_two(answer, &request), 1, "{answer}");
    }
}

#[test]
fn a_doubtful_end_does_not() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nconnection: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nX",
        "HTTP/1.1 204 No Content\r\n\r\nX",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nX",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let request = chat("", STREAM);
        assert_eq!(connections_for_two(answer, &request), 2, "{answer}");
    }
    let head = b"HEAD /x HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(connections_for_two(OK, head), 2, "a body for a HEAD");
}

/// A second answer that comes on its own, once the connection is idle, belongs to nobody.
#[test]
fn an_answer_out_of_turn_is_not_the_next_ones() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let bed = Bed::new(vec![
        Step::ReadHead,
        Step::Write(OK.into()),
        Step::Sleep(20),
        Step::Write(poison.into()),
        Step::ReadHead,
        Step::Write(poison.into()),
    ]);
    for _ in 0..3 {
        assert_eq!(bed.message(&get("/x", "")).body, b"ok");
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(bed.upstream.received().len(), 3);
}

/// The request's body is not all sent, so upstream would read the rest of it as the next request.
#[test]
fn an_answer_before_the_request_was_sent() {
    let bed = Bed::new(vec![
        Step::ReadHead,
        Step::Write(OK.into()),
        Step::WaitClose(Duration::from_secs(5)),
    ]);
    for count in 1..=2 {
        let mut client = Peer::connect(bed.proxy.addr());
        client.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 90\r\n\r\nGET /hidden HTTP/1.1\r\n");
        assert_eq!(
            client.read_head(),
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
        );
        assert_eq!(client.read_exact(2), b"ok");
        let all = bed.wait("closed", |all| {
            all.len() == count && all.iter().all(|c| c.peer_closed.is_some())
        });
        assert_eq!(all.len(), count);
    }
}

/// Upstream closed while the connection lay idle: the next request does not notice.
#[test]
fn a_stale_connection_costs_nothing() {
    let bed = Bed::new(vec![
        Step::ReadHead,
        Step::ReadDeclaredBody,
        Step::Write(OK.into()),
        Step::Close,
    ]);
    for count in 1..=5 {
        let got = bed.message(&chat("connection: close\r\n", STREAM));
        assert_eq!(
            (got.status, &got.body[..]),
            (200, &b"ok"[..]),
            "request {count}"
        );
        bed.wait("the close", |all| {
            all.len() == count && all[count - 1].finished
        });
        std::thread::sleep(Duration::from_millis(30));
    }
    let metrics = bed.proxy.metrics();
    assert_eq!(metrics.outcomes().1, 0, "{}", metrics.non_zero());
}

/// Upstream closes just as the request arrives. It may have seen it, so it is not sent again (RFC 9110 §9.2.2).
#[test]
fn a_request_that_meets_the_close_is_not_sent_twice() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let upstream = origin(move |mut peer, _| {
        loop {
            let head = peer.read_head();
            if log.lock().unwrap().len() % 2 == 1 {
                log.lock().unwrap().push(head);
                return;
            }
            peer.read_exact(STREAM.len());
            log.lock().unwrap().push(head);
            peer.write(OK);
        }
    });
    let proxy = Proxy::start(upstream);
    for round in 0..4 {
        let mut client = Peer::connect(proxy.addr());
        client.write(chat(
            &format!("x-request-id: id-{round}\r\nconnection: close\r\n"),
            STREAM,
        ));
        let (bytes, _) = client.read_to_end();
        let got = Message::parse(&bytes).unwrap();
        assert_eq!(
            got.status,
            if round % 2 == 0 { 200 } else { 502 },
            "{}",
            bytes.escape_ascii()
        );
        if round % 2 == 1 {
            assert_eq!(got.json()["error"]["type"], "BadGatewayError");
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4, "{seen:#?}");
    let metrics = proxy.wait_metrics("all ended", |m| {
        m.outcomes() == (2, 2, 0) || m.outcomes().0 + m.outcomes().1 == 4
    });
    assert_eq!(
        metrics.count(
            "vllm_request_error_total",
            &["error_type=\"upstream_reset\""]
        ),
        2,
        "{}",
        metrics.non_zero()
    );
}

/// Idle connections are closed by us, before upstream does it in the middle of a request.
#[test]
fn idle_connections_are_closed() {
    let bed = Bed::with(answering(OK.as_bytes()), |config| {
        config.upstream.pool_idle_timeout = Duration::from_millis(300);
    });
    bed.message(&get("/x", ""));
    let idle = Instant::now();
    bed.wait("closed by us", |all| all[0].peer_closed.is_some());
    assert!(
        idle.elapsed() >= Duration::from_millis(250),
        "{:?}",
        idle.elapsed()
    );
    assert!(
        idle.elapsed() < Duration::from_secs(3),
        "{:?}",
        idle.elapsed()
    );
}
