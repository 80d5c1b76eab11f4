//! The upstream leg against hyper's client: the same bytes of an upstream, read by both, must mean the same.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;

use crate::origin::origin;
use crate::support::{Message, Proxy, exchange, find, runtime};

/// What a client makes of an answer.
#[derive(Debug, PartialEq)]
enum Seen {
    NoHead,
    Head {
        status: u16,
        headers: Vec<(String, Vec<u8>)>,
        body: Vec<u8>,
        trailers: Vec<(String, Vec<u8>)>,
        complete: bool,
    },
}

/// An answer in the making.
#[derive(Clone, Debug)]
struct Answer {
    interim: Vec<u16>,
    http10: bool,
    status: u16,
    framing: Framing,
    extra_headers: Vec<(u8, Vec<u8>)>,
    connection: Option<&'static str>,
    chunks: Vec<Vec<u8>>,
    extension: &'static str,
    trailers: u8,
    tail: &'static [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Length,
    TwoLengths,
    ListOfLengths,
    Chunked,
    ChunkedAndLength,
    Close,
}

/// What happens to it on its way.
#[derive(Clone, Debug)]
enum Harm {
    None,
    Cut(prop::sample::Index),
    Byte(prop::sample::Index, u8),
}

impl Answer {
    fn wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for status in &self.interim {
            out.extend(format!("HTTP/1.1 {status} Interim\r\nx-interim: 1\r\n\r\n").bytes());
        }
        let version = if self.http10 { "1.0" } else { "1.1" };
        out.extend(format!("HTTP/{version} {} Some Reason\r\n", self.status).bytes());
        for (name, value) in &self.extra_headers {
            out.extend(format!("X-H{name}:").bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(connection) = self.connection {
            out.extend(format!("Connection: {connection}\r\nx-hop: 1\r\n").bytes());
        }
        let length = self.chunks.iter().map(Vec::len).sum::<usize>();
        let body = self.chunks.concat();
        out.extend(
            match self.framing {
                Framing::Length => format!("Content-Length: {length}\r\n\r\n"),
                Framing::TwoLengths => {
                    format!("Content-Length: {length}\r\ncontent-length: {length}\r\n\r\n")
                }
                Framing::ListOfLengths => format!("Content-Length: {length}, {length}\r\n\r\n"),
                Framing::Chunked => {
                    "Transfer-Encoding: chunked\r\nTrailer: x-t0, x-t1\r\n\r\n".to_owned()
                }
                Framing::ChunkedAndLength => {
                    format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n")
                }
                Framing::Close => "\r\n".to_owned(),
            }
            .bytes(),
        );
        if matches!(self.framing, Framing::Chunked | Framing::ChunkedAndLength) {
            for chunk in &self.chunks {
                if !chunk.is_empty() {
                    out.extend(format!("{:X}{}\r\n", chunk.len(), self.extension).bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
            }
            out.extend_from_slice(b"0\r\n");
            if self.framing == Framing::Chunked {
                for index in 0..self.trailers {
                    out.extend(format!("x-t{index}: {index}\r\n").bytes());
                }
            }
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend(body);
        }
        out.extend_from_slice(self.tail);
        out
    }
}

fn answers() -> impl Strategy<Value = Answer> {
    let framing = prop_oneof![
        4 => Just(Framing::Length),
        1 => Just(Framing::TwoLengths),
        1 => Just(Framing::ListOfLengths),
        6 => Just(Framing::Chunked),
        1 => Just(Framing::ChunkedAndLength),
        3 => Just(Framing::Close),
    ];
    let value = prop::collection::vec(
        prop_oneof![Just(b' '), Just(b'\t'), 0x21u8..0x7f, 0x80u8..=0xff],
        0..12,
    );
    (
        prop::collection::vec(prop::sample::select(vec![100, 102, 103]), 0..3),
        prop::bool::weighted(0.15),
        prop::sample::select(vec![200, 200, 200, 204, 206, 304, 404, 500, 299]),
        framing,
        prop::collection::vec((0u8..3, value), 0..5),
        prop::option::of(prop::sample::select(vec![
            "close",
            "keep-alive",
            "x-hop",
            "Keep-Alive, X-Hop",
        ])),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        prop::sample::select(vec!["", "", ";a=b", " ;x", "\t", ";\"q\""]),
        0u8..3,
        prop::sample::select(vec![
            &b""[..],
            b"",
            b"",
            b"X",
            b"\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ]),
    )
        .prop_map(
            |(
                interim,
                http10,
                status,
                framing,
                extra_headers,
                connection,
                chunks,
                extension,
                trailers,
                tail,
            )| {
                Answer {
                    interim,
                    http10,
                    status,
                    framing,
                    extra_headers,
                    connection,
                    chunks,
                    extension,
                    trailers,
                    tail,
                }
            },
        )
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        3 => Just(Harm::None),
        2 => any::<prop::sample::Index>().prop_map(Harm::Cut),
        3 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Harm::Byte(at, byte)),
    ]
}

/// Without what is the connection's own, and what hyper's server leaves out: the length of a 204 or 304, and `Trailer`
/// where there are no chunks (elsewhere the trailers themselves show that it has passed).
fn end_to_end(mut headers: Vec<(String, Vec<u8>)>, status: u16) -> Vec<(String, Vec<u8>)> {
    let listed: Vec<_> = headers
        .iter()
        .filter(|(name, _)| name == "connection")
        .flat_map(|(_, value)| {
            value
                .split(|b| *b == b',')
                .map(|t| String::from_utf8_lossy(t.trim_ascii()).to_lowercase())
        })
        .collect();
    headers.retain(|(name, _)| {
        let connections_own = matches!(
            name.as_str(),
            "connection" | "trailer" | "transfer-encoding" | "keep-alive" | "upgrade" | "te"
        );
        let length = name == "content-length";
        let hypers = length && matches!(status, 204 | 304);
        !connections_own && !hypers && (length || !listed.contains(name))
    });
    for (_, value) in headers
        .iter_mut()
        .filter(|(name, _)| name == "content-length")
    {
        // Equal lengths are one length.
        let first = value.split(|b| *b == b',').next().unwrap_or_default();
        *value = first.trim_ascii().to_vec();
    }
    headers.sort();
    headers.dedup_by(|a, b| a == b && a.0 == "content-length");
    headers
}

async fn by_hyper(to: SocketAddr, method: &str) -> Seen {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri("/x")
        .header("host", "a")
        .header("te", "trailers")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let Ok(response) = sender.send_request(request).await else {
        return Seen::NoHead;
    };
    let list = |map: &http::HeaderMap| -> Vec<_> {
        map.iter()
            .map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec()))
            .collect()
    };
    let (mut parts, mut incoming) = response.into_parts();
    if parts.headers.contains_key("transfer-encoding") {
        // Not to be forwarded beside chunks (RFC 9112 §6.3).
        parts.headers.remove("content-length");
    }
    let (mut body, mut trailers, mut complete) = (Vec::new(), Vec::new(), true);
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = list(&frame.into_trailers().unwrap()),
            },
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    connection.abort();
    // hyper's server sends only trailers that `Trailer` has announced.
    let announced = parts
        .headers
        .get("trailer")
        .and_then(|value| value.to_str().ok());
    let announced = announced.unwrap_or_default().to_lowercase();
    trailers.retain(|(name, _): &(String, _)| announced.split(',').any(|t| t.trim() == name));
    let status = parts.status.as_u16();
    Seen::Head {
        status,
        headers: end_to_end(list(&parts.headers), status),
        body,
        trailers,
        complete,
    }
}

fn by_proxy(to: SocketAddr, method: &str) -> Seen {
    let request =
        format!("{method} /x HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\r\n");
    let (bytes, tidy) = exchange(to, request.as_bytes(), Duration::from_secs(10));
    assert!(!bytes.is_empty(), "closed without an answer");
    let mut rest = &bytes[..];
    while let Some(message) = Message::parse(rest) {
        if message.status >= 200 {
            let ours = message.status == 502
                && (method == "HEAD" || find(&message.body, b"\"code\":502").is_some());
            return if ours {
                Seen::NoHead
            } else {
                Seen::Head {
                    status: message.status,
                    headers: end_to_end(message.headers, message.status),
                    complete: tidy && (message.complete || method == "HEAD"),
                    body: message.body,
                    trailers: message.trailers,
                }
            };
        }
        rest = &rest[find(rest, b"\r\n\r\n").unwrap() + 4..];
    }
    Seen::NoHead
}

/// An upstream whose answer can be changed, and a proxy that pools nothing.
struct Bench {
    wire: Arc<Mutex<(Vec<u8>, Vec<usize>)>>,
    upstream: SocketAddr,
    proxy: Proxy,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let wire = Arc::new(Mutex::new((Vec::new(), Vec::<usize>::new())));
        let shared = Arc::clone(&wire);
        let upstream = origin(move |mut peer, _| {
            peer.read_head();
            let (bytes, sizes) = shared.lock().unwrap().clone();
            let mut rest = &bytes[..];
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                if std::io::Write::write_all(&mut peer.stream, piece).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_micros(300));
                rest = after;
            }
            let _ = std::io::Write::write_all(&mut peer.stream, rest);
        });
        let proxy = Proxy::with(upstream, |config| config.upstream.pool_max_idle = 0);
        Self {
            wire,
            upstream,
            proxy,
            runtime: runtime(),
        }
    }

    fn compare(&self, method: &str, wire: Vec<u8>, sizes: Vec<usize>) -> (Seen, Seen) {
        *self.wire.lock().unwrap() = (wire, sizes);
        let hypers = self.runtime.block_on(by_hyper(self.upstream, method));
        (hypers, by_proxy(self.proxy.addr(), method))
    }
}

fn head_only(seen: &Seen) -> bool {
    matches!(seen, Seen::Head { body, complete: true, .. } if body.is_empty())
}

/// Where we differ from hyper on purpose; `None` if nothing is to be compared.
fn expected(hypers: Seen, wire: &[u8]) -> Option<Seen> {
    let text = String::from_utf8_lossy(wire).to_lowercase();
    if let Seen::Head { status: 101, .. } = hypers {
        return None;
    }
    // Where there is no body, a length that is none does no harm and is forwarded; the parser of these tests balks. One that
    // is nothing in more digits (`00`) hyper's server writes as `0`.
    let garbled = text
        .lines()
        .filter_map(|line| line.strip_prefix("content-length:"))
        .map(str::trim)
        .any(|value| {
            value
                .parse::<u64>()
                .map(|length| length.to_string())
                .as_deref()
                != Ok(value)
        });
    if garbled && head_only(&hypers) {
        return None;
    }
    // An unknown coding: hyper hands the coded bytes on as if they were the body. RFC 9112 §6.1 lets a proxy refuse,
    // and it has to, since it could not say to its client what they are.
    let unknown = text
        .lines()
        .filter_map(|line| line.strip_prefix("transfer-encoding:"))
        .any(|value| value.trim() != "chunked");
    if unknown { None } else { Some(hypers) }
}

#[test]
fn hyper_and_we_read_the_same() {
    let bench = Bench::new();
    let config = ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let cases = (
        prop::sample::select(vec!["GET", "GET", "GET", "HEAD"]),
        answers(),
        harm(),
        prop::collection::vec(1usize..200, 0..6),
    );
    proptest!(config, |((method, answer, harm, sizes) in cases)| {
        let mut wire = answer.wire();
        match &harm {
            Harm::None => {}
            Harm::Cut(at) => wire.truncate(at.index(wire.len())),
            Harm::Byte(at, byte) => {
                let at = at.index(wire.len());
                wire[at] = *byte;
            }
        }
        let (hypers, ours) = bench.compare(method, wire.clone(), sizes);
        if let Some(want) = expected(hypers, &wire) {
            prop_assert_eq!(&ours, &want, "ours, hyper's; {} {}", method, wire.escape_ascii());
        }
    });
}
