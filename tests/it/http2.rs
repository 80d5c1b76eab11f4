//! HTTP/2 from the client: a cut is told at once, and what it splits arrives whole.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest::scripted::Step;

use crate::origin::{Bed, answering, origin};
use crate::support::{Proxy, STREAM, runtime};

/// hyper's own ping, which tells a client that missed the cut, comes after twenty seconds.
const AT_ONCE: Duration = Duration::from_secs(1);
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const TOKENS: usize = 40;

fn event(number: usize) -> String {
    format!(
        "data: {{\"model\":\"tiny\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{number}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

fn events() -> String {
    (0..TOKENS).map(event).collect()
}

fn chunks() -> String {
    (0..TOKENS)
        .map(event)
        .map(|event| format!("{:x}\r\n{event}\r\n", event.len()))
        .collect()
}

/// One connection, whose task runs until the client is dropped.
async fn connect(to: SocketAddr) -> SendRequest<Full<Bytes>> {
    let tcp = tokio::net::TcpStream::connect(to).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(tcp))
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

fn request() -> Request<Full<Bytes>> {
    Request::post("http://vllm/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(STREAM.as_bytes())))
        .unwrap()
}

/// Reads a stream to the error that it must end with: all data before it, and when it came.
async fn read_to_cut(mut send: SendRequest<Full<Bytes>>) -> (Vec<u8>, Instant) {
    let mut body = send.send_request(request()).await.unwrap().into_body();
    let mut data = Vec::new();
    let read = async {
        loop {
            match body.frame().await {
                Some(Ok(frame)) => data.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(_)) => return Instant::now(),
                None => panic!("a tidy end"),
            }
        }
    };
    let cut = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("the client is never told");
    (data, cut)
}

#[test]
fn a_cut_by_upstream_is_told_at_once_with_all_that_came_before() {
    for end in [Step::Close, Step::Reset] {
        let script = vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(format!("{HEAD}{}", chunks()).into()),
            // A reset would overtake the bytes on their way to the proxy.
            Step::Sleep(200),
            end,
        ];
        let bed = Bed::new(script);
        runtime().block_on(async {
            let send = connect(bed.proxy.addr()).await;
            let started = Instant::now();
            let (data, cut) = read_to_cut(send).await;
            assert_eq!(String::from_utf8(data).unwrap(), events());
            let took = cut.duration_since(started);
            assert!(took < AT_ONCE, "{took:?}");
        });
        bed.proxy.wait_metrics("counted", |m| {
            m.outcomes() == (0, 1, 0) && m.sum("vllm_requests_in_flight", &[]) == 0.0
        });
    }
}

#[test]
fn the_idle_limit_is_told_at_once_with_all_that_came_before() {
    let script = vec![
        Step::ReadHead,
        Step::ReadDeclaredBody,
        Step::Write(format!("{HEAD}{}", chunks()).into()),
        Step::WaitClose(Duration::from_secs(20)),
    ];
    let limit = Duration::from_millis(300);
    let bed = Bed::with(script, |c| c.upstream.idle_timeout = Some(limit));
    runtime().block_on(async {
        let send = connect(bed.proxy.addr()).await;
        let started = Instant::now();
        let (data, cut) = read_to_cut(send).await;
        assert_eq!(String::from_utf8(data).unwrap(), events());
        let took = cut.duration_since(started);
        assert!(took >= limit && took < limit + AT_ONCE, "{took:?}");
    });
    bed.wait("upstream is left", |c| c[0].peer_closed.is_some());
    let stalled = r#"error_type="stream_stalled""#;
    bed.proxy.wait_metrics("counted as stalled", |m| {
        m.count("vllm_request_error_total", &[stalled]) == 1
    });
}

#[test]
fn streams_of_one_connection_that_are_cut_together_all_end() {
    const STREAMS: usize = 8;
    let barrier = Arc::new(Barrier::new(STREAMS));
    let (told, cuts) = std::sync::mpsc::channel();
    let upstream = origin(move |mut peer, _| {
        let head = peer.read_head();
        assert!(head.starts_with("POST "), "{head}");
        peer.read_exact(STREAM.len());
        peer.write(format!("{HEAD}{}", chunks()));
        barrier.wait();
        told.send(Instant::now()).unwrap();
        drop(peer);
    });
    let proxy = Proxy::start(upstream);
    runtime().block_on(async {
        let send = connect(proxy.addr()).await;
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| tokio::spawn(read_to_cut(send.clone())))
            .collect();
        let mut last = None;
        for stream in streams {
            let (data, cut) = stream.await.unwrap();
            assert_eq!(String::from_utf8(data).unwrap(), events());
            last = last.max(Some(cut));
        }
        let first = cuts.iter().take(STREAMS).min().unwrap();
        let took = last.unwrap().saturating_duration_since(first);
        assert!(took < AT_ONCE, "{took:?}");
    });
    proxy.wait_metrics("all are counted", |m| {
        m.outcomes() == (0, STREAMS as u64, 0)
    });
}

/// RFC 9113 §8.2.3: HTTP/2 may split `cookie`, HTTP/1.1 may not.
#[test]
fn split_cookies_go_on_in_one_line() {
    let bed = Bed::new(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    runtime().block_on(async {
        let mut send = connect(bed.proxy.addr()).await;
        let mut request = request();
        for cookie in ["a=1", "b=2; c=3", "d=4"] {
            request
                .headers_mut()
                .append("cookie", cookie.parse().unwrap());
        }
        assert_eq!(send.send_request(request).await.unwrap().status(), 200);
    });
    let seen = bed.upstream.received()[0].bytes.clone();
    let seen = String::from_utf8(seen).unwrap().to_ascii_lowercase();
    let cookies: Vec<_> = seen
        .lines()
        .filter(|line| line.starts_with("cookie:"))
        .collect();
    assert_eq!(cookies, ["cookie: a=1; b=2; c=3; d=4"], "{seen}");
}
