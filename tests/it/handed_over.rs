//! Streams that hyper hands over, and what comes behind them on the same connection: as if hyper had kept them.
//!
//! A request with `TE` is never handed over, so each conversation is held twice, and must look the same.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::origin::{Peer, origin};
use crate::support::{Proxy, find};

/// Answers (head, body, whether it was whole), and whether the connection was closed behind them.
type Talk = (Vec<(String, Vec<u8>, bool)>, bool);

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-a: 1\r\nx-b: 2\r\nx-a: 3\r\n\r\n";
const TOKEN: &str = "data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const KINDS: [&str; 12] = [
    "stream",
    "one",
    "empty",
    "plain",
    "none",
    "unchanged",
    "trailers",
    "early",
    "large",
    "many",
    "head",
    "odd",
];

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Answers as `x-do` says.
fn upstream() -> SocketAddr {
    origin(|mut peer, _| {
        loop {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                match peer.stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => return,
                }
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let value = |name: &str| {
                let line = head.lines().find_map(|line| line.strip_prefix(name));
                line.map(|line| line.trim().to_owned())
            };
            let length = value("content-length:").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            if peer.stream.read_exact(&mut body).is_err() {
                return;
            }
            let pause = || std::thread::sleep(Duration::from_millis(1));
            let last = format!("{}{}0\r\n\r\n", chunk(TOKEN), chunk(DONE));
            let mut write = |text: &str| {
                let _ = peer.stream.write_all(text.as_bytes());
            };
            match value("x-do:").unwrap().as_str() {
                "stream" => {
                    write(HEAD);
                    for _ in 0..5 {
                        pause();
                        write(&chunk(TOKEN));
                    }
                    pause();
                    write(&last);
                }
                "one" => write(&format!("{HEAD}{last}")),
                "empty" => {
                    write(HEAD);
                    pause();
                    write("0\r\n\r\n");
                }
                "plain" => write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
                "none" => write("HTTP/1.1 204 No Content\r\n\r\n"),
                "unchanged" => write("HTTP/1.1 304 Not Modified\r\netag: a\r\n\r\n"),
                "trailers" => {
                    write(HEAD);
                    write(&chunk(TOKEN));
                    pause();
                    write("0\r\nx-last: 1\r\n\r\n");
                }
                "early" => {
                    write(&format!(
                        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{HEAD}{}",
                        chunk(TOKEN)
                    ));
                    pause();
                    write(&last);
                }
                "large" => {
                    write(HEAD);
                    write(&chunk(&format!("data: {}\n\n", "x".repeat(300_000))));
                    write(&last);
                }
                "many" => {
                    write(HEAD);
                    for _ in 0..300 {
                        write(&chunk(TOKEN));
                    }
                    write(&last);
                }
                "head" => write(HEAD),
                // Not what is handed over: a status and a reason of its own.
                "odd" => write(&format!("{}{last}", HEAD.replace("200 OK", "201 Made It"))),
                "cut" => {
                    write(HEAD);
                    write(&chunk(TOKEN));
                    pause();
                    write("50\r\ndata: ");
                    return;
                }
                "wait" => {
                    write(HEAD);
                    std::thread::sleep(Duration::from_millis(700));
                    write(&last);
                }
                "silent" => {
                    write(HEAD);
                    write(&chunk(TOKEN));
                    let _ = peer.stream.read(&mut byte);
                    return;
                }
                other => panic!("{other}"),
            }
        }
    })
}

fn request(kind: &str, more: &str, body: &str) -> String {
    let method = if kind == "head" { "HEAD" } else { "POST" };
    format!(
        "{method} /v1/chat/completions HTTP/1.1\r\nhost: vllm\r\nx-do: {kind}\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What has come, answer by answer: head, body, whether it is whole.
fn answers(mut rest: &[u8], kinds: &[&str]) -> Vec<(String, Vec<u8>, bool)> {
    let mut all = Vec::new();
    let mut kinds = kinds.iter();
    while let Some(end) = find(rest, b"\r\n\r\n") {
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        rest = &rest[end + 4..];
        let interim = head.starts_with("HTTP/1.1 1");
        let kind = if interim {
            "none"
        } else {
            kinds.next().map_or("", |kind| *kind)
        };
        if interim || matches!(kind, "none" | "unchanged" | "head") {
            all.push((head, Vec::new(), true));
            continue;
        }
        let mut body = Vec::new();
        if let Some(length) = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
        {
            let length: usize = length.parse().unwrap();
            let here = length.min(rest.len());
            body.extend_from_slice(&rest[..here]);
            rest = &rest[here..];
            all.push((head, body, here == length));
            continue;
        }
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let mut whole = false;
        while let Some(line) = find(rest, b"\r\n") {
            let size = std::str::from_utf8(&rest[..line]).unwrap();
            let size =
                usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("{size:?} in {head}"));
            rest = &rest[line + 2..];
            let here = size.min(rest.len());
            body.extend_from_slice(&rest[..here]);
            rest = &rest[here..];
            if rest.len() < 2 {
                rest = &[];
                break;
            }
            assert!(rest.starts_with(b"\r\n"), "{head}");
            rest = &rest[2..];
            if size == 0 {
                whole = true;
                break;
            }
        }
        all.push((head, body, whole));
    }
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
    all
}

/// Writes this in these pieces while it reads to the end.
fn converse(to: SocketAddr, bytes: &[u8], piece: usize, slow: bool) -> (Vec<u8>, bool) {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || {
        for piece in bytes.chunks(piece) {
            if writer.write_all(piece).is_err() {
                return;
            }
            if piece.len() < 1000 {
                std::thread::sleep(Duration::from_micros(300));
            }
        }
    });
    let mut reader = stream;
    reader
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut all = Vec::new();
    let mut buffer = vec![0; if slow { 3000 } else { 1 << 16 }];
    let tidy = loop {
        if slow {
            std::thread::sleep(Duration::from_micros(200));
        }
        match reader.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionReset,
                    "{}",
                    all.escape_ascii()
                );
                break false;
            }
        }
    };
    writing.join().unwrap();
    (all, tidy)
}

fn idle(proxy: &Proxy) {
    proxy.wait_metrics("all at rest", |m| {
        m.sum("vllm_requests_in_flight", &[]) == 0.0
            && m.sum("tokenglass_downstream_connections", &[]) == 0.0
    });
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

#[test]
fn conversations_look_the_same_handed_over_or_not() {
    let proxy = Proxy::start(upstream());
    let mut dice = Dice(0x1234_5678_9abc_def1);
    for round in 0..60 {
        let count = 1 + dice.roll(6);
        let mut kinds: Vec<_> = (0..count).map(|_| KINDS[dice.roll(KINDS.len())]).collect();
        if dice.roll(4) == 0 {
            kinds.push("cut");
        }
        let piece = [usize::MAX, 7, 100, 600, 5000][dice.roll(5)];
        let slow = dice.roll(3) == 0;
        let body = if piece >= 600 && dice.roll(3) == 0 {
            "y".repeat(30_000)
        } else {
            "{\"stream\":true}".to_owned()
        };
        let stray = ["", "", "\r\n"][dice.roll(3)];
        let talk = |te: &str| {
            let mut all = String::new();
            for (at, kind) in kinds.iter().enumerate() {
                let close = if at + 1 == kinds.len() {
                    "connection: close\r\n"
                } else {
                    ""
                };
                let body = if *kind == "head" { "" } else { &body };
                all += &request(kind, &format!("{te}{close}"), body);
                if at + 1 < kinds.len() {
                    all += stray;
                }
            }
            let (bytes, tidy) = converse(proxy.addr(), all.as_bytes(), piece, slow);
            (answers(&bytes, &kinds), tidy)
        };
        let (ours, hypers) = (talk(""), talk("te: x\r\n"));
        let heads = |talk: &Talk| {
            let parts = talk
                .0
                .iter()
                .map(|(head, body, whole)| (head.clone(), body.len(), *whole));
            parts.collect::<Vec<_>>()
        };
        assert_eq!(
            heads(&ours),
            heads(&hypers),
            "{round} {kinds:?} {piece} {stray:?}"
        );
        assert!(ours.0 == hypers.0, "{round} {kinds:?} {piece}");
        let answered = ours
            .0
            .iter()
            .filter(|(head, ..)| !head.starts_with("HTTP/1.1 1"));
        assert_eq!(answered.count(), kinds.len(), "{round} {kinds:?}");
    }
    idle(&proxy);
}

/// The limit of the first request has nothing to say once there has been one.
#[test]
fn what_came_too_early_does_not_end_the_connection_after_a_long_stream() {
    let head = request("plain", "", "{}");
    let cases = [("\r\n", &*head), (&head[..10], &head[10..])];
    for ((ahead, later), te) in cases
        .into_iter()
        .flat_map(|case| [(case, "te: x\r\n"), (case, "")])
    {
        let proxy = Proxy::with(upstream(), |config| {
            config.server.header_read_timeout = Duration::from_millis(500);
        });
        let mut client = Peer::connect(proxy.addr());
        client.write(format!("{}{ahead}", request("wait", te, "{}")));
        client.read_until(b"\r\n0\r\n\r\n");
        std::thread::sleep(Duration::from_millis(100));
        client.write(later);
        let answer = client.read_for(Duration::from_millis(300));
        assert!(
            answer.ends_with(b"ok"),
            "{ahead:?} {te:?}: {}",
            answer.escape_ascii()
        );
    }
}

#[test]
fn a_client_that_leaves_a_later_stream_is_noticed() {
    for (way, ahead) in [
        ("reset", ""),
        ("close", ""),
        ("half", ""),
        ("reset", "GE"),
        ("close", "GE"),
        ("half", "GE"),
    ] {
        let (left, told) = channel();
        let addr = origin(move |mut peer, number| {
            for round in 0.. {
                peer.read_head();
                peer.read_exact(2);
                peer.write(HEAD);
                peer.write(chunk(TOKEN));
                if round == 1 || number > 0 {
                    let mut byte = [0];
                    let _ = peer.stream.read(&mut byte);
                    left.send(Instant::now()).unwrap();
                    return;
                }
                peer.write("0\r\n\r\n");
            }
        });
        let proxy = Proxy::start(addr);
        for _ in 0..2 {
            let mut client = Peer::connect(proxy.addr());
            client.write(request("stream", "", "{}"));
            client.read_until(b"Hi");
            if told.try_recv().is_err() {
                client
                    .stream
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
            }
            client.write(format!("{}{ahead}", request("stream", "", "{}")));
            let _ = client.read_for(Duration::from_millis(100));
            let since = Instant::now();
            match way {
                "reset" => {
                    let socket = socket2::SockRef::from(&client.stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    drop(client);
                }
                "close" => drop(client),
                _ => {
                    client.stream.shutdown(Shutdown::Write).unwrap();
                    std::mem::forget(client);
                }
            }
            let at = told
                .recv_timeout(Duration::from_secs(5))
                .expect("it is noticed");
            let took = at.saturating_duration_since(since);
            assert!(
                took < Duration::from_millis(400),
                "{way} {ahead:?}: {took:?}"
            );
        }
        idle(&proxy);
    }
}

/// Another protocol on a connection that had a stream.
#[test]
fn an_upgrade_behind_a_stream_is_tunnelled() {
    let addr = origin(|mut peer, _| {
        loop {
            let head = peer.read_head();
            if head.to_ascii_lowercase().contains("upgrade: x") {
                peer.write(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
                );
                let said = peer.read_exact(5);
                peer.write(said);
                return;
            }
            peer.read_exact(2);
            peer.write(HEAD);
            std::thread::sleep(Duration::from_millis(20));
            peer.write("0\r\n\r\n");
        }
    });
    let proxy = Proxy::start(addr);
    let ask = "GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    for ahead in [false, true] {
        let mut client = Peer::connect(proxy.addr());
        let first = request("", "", "{}");
        if ahead {
            client.write(format!("{first}{ask}"));
            client.read_until(b"\r\n0\r\n\r\n");
        } else {
            client.write(first);
            client.read_until(b"\r\n0\r\n\r\n");
            client.write(ask);
        }
        assert!(client.read_head().contains(" 101 "));
        client.write("hello");
        assert_eq!(client.read_exact(5), b"hello");
    }
    idle(&proxy);
}

/// A tidy end of what runs, whatever lies behind it.
#[test]
fn a_drain_lets_a_stream_end_and_closes() {
    for ahead in ["", "\r\n", "GET /v1/models HT"] {
        for first in [false, true] {
            let (tell, told) = channel::<()>();
            let told = std::sync::Mutex::new(told);
            let addr = origin(move |mut peer, _| {
                peer.read_head();
                peer.read_exact(2);
                if first {
                    peer.write(HEAD);
                    peer.write(chunk(TOKEN));
                }
                told.lock().unwrap().recv().unwrap();
                if !first {
                    peer.write(HEAD);
                }
                peer.write(chunk(DONE));
                std::thread::sleep(Duration::from_millis(30));
                peer.write("0\r\n\r\n");
            });
            let proxy = Proxy::with(addr, |config| {
                config.shutdown.ready_delay = Duration::ZERO;
                config.shutdown.drain_timeout = Duration::from_secs(5);
            });
            let mut client = Peer::connect(proxy.addr());
            client.write(format!("{}{ahead}", request("", "", "{}")));
            std::thread::sleep(Duration::from_millis(100));
            let app = proxy.into_app();
            let (end, mut ends) = tokio::sync::mpsc::unbounded_channel::<()>();
            let ending = std::thread::spawn(move || {
                crate::support::runtime().block_on(app.run_until(async || {
                    ends.recv().await;
                }))
            });
            end.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            tell.send(()).unwrap();
            client
                .stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let mut all = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = client.stream.read(&mut buffer) {
                all.extend_from_slice(&buffer[..read]);
            }
            let text = String::from_utf8(all).unwrap();
            assert!(text.ends_with("\r\n0\r\n\r\n"), "{ahead:?} {first}: {text}");
            assert_eq!(
                text.contains("connection: close"),
                !first,
                "{ahead:?}: {text}"
            );
            assert!(ending.join().unwrap(), "it is cut");
        }
    }
}

/// A cut stays one, and all before it comes, whether the client reads at once or late.
#[test]
fn a_cut_comes_behind_all_there_was() {
    const EVENTS: usize = 40_000;
    let addr = origin(|mut peer, _| {
        peer.read_head();
        peer.read_exact(2);
        let text = format!("{HEAD}{}", chunk(TOKEN).repeat(EVENTS));
        let _ = peer.stream.write_all(text.as_bytes());
    });
    let proxy = Proxy::start(addr);
    for wait in [0, 500] {
        let mut client = Peer::connect(proxy.addr());
        client.write(request("", "", "{}"));
        std::thread::sleep(Duration::from_millis(wait));
        let (bytes, _) = client.read_to_end();
        let all = answers(&bytes, &["stream"]);
        assert_eq!(all.len(), 1);
        assert!(!all[0].2, "a tidy end");
        assert_eq!(all[0].1.len(), EVENTS * TOKEN.len(), "{wait}");
    }
    idle(&proxy);
}

/// HTTP/2 is told by its first bytes, however they come; what only begins like it is HTTP/1.1 or nothing.
#[test]
fn prefaces_in_pieces() {
    let proxy = Proxy::with(upstream(), |config| {
        config.server.header_read_timeout = Duration::from_millis(600);
    });
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for piece in [1, 5, 23, 24] {
        let mut client = Peer::connect(proxy.addr());
        for piece in PREFACE.chunks(piece) {
            client.write(piece);
            std::thread::sleep(Duration::from_millis(3));
        }
        // An empty SETTINGS frame, and the server's own.
        client.write([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let frame = client.read_exact(9);
        assert_eq!(frame[3], 4, "{piece}");
    }
    // Both in one write.
    let mut client = Peer::connect(proxy.addr());
    client.write([PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    assert_eq!(client.read_exact(9)[3], 4);
    drop(client);
    // P and PR begin methods too.
    for method in ["POST", "PUT", "PRINT"] {
        let mut client = Peer::connect(proxy.addr());
        let ask = request("plain", "", "{}").replacen("POST", method, 1);
        for byte in ask.as_bytes().chunks(1).take(30) {
            client.write(byte);
        }
        client.write(&ask[30..]);
        client.read_until(b"ok");
    }
    // Half a preface and no more, or nothing at all: closed in time.
    for half in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut client = Peer::connect(proxy.addr());
        client.write(half);
        let since = Instant::now();
        client.read_to_end();
        let took = since.elapsed();
        assert!(
            took > Duration::from_millis(400) && took < Duration::from_secs(3),
            "{took:?}"
        );
    }
    // Half a preface and an end.
    for half in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        let mut client = Peer::connect(proxy.addr());
        client.write(half);
        client.stream.shutdown(Shutdown::Write).unwrap();
        let since = Instant::now();
        client.read_to_end();
        assert!(since.elapsed() < Duration::from_millis(400));
    }
    let mut client = Peer::connect(proxy.addr());
    client.write("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    let (answer, _) = client.read_to_end();
    assert!(
        answer.starts_with(b"HTTP/1.1 4") || answer.is_empty(),
        "{}",
        answer.escape_ascii()
    );
    idle(&proxy);
}
