//! Large bodies and slow ends: everything arrives, and little of it is ever held.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::origin::{Peer, get, origin};
use crate::support::{Proxy, find};

const MIB: usize = 1 << 20;

/// The proxy as a process of its own, so that its memory is nobody else's.
struct Process(Child, SocketAddr);

impl Process {
    fn start(upstream: SocketAddr) -> Self {
        // Both held until both are known, or they might be one.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [data, admin] = free.map(|listener| listener.local_addr().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_tokenglass"))
            .env_clear()
            // Its vocabulary is large, and loaded a while after the start.
            .env("TOKENGLASS_TOKENS__ESTIMATE", "false")
            // The scripted upstreams here count their connections.
            .env("TOKENGLASS_HEALTH__ENABLED", "false")
            .env("TOKENGLASS_ENGINE__METRICS", "false")
            .env("TOKENGLASS_GPU__MODE", "off")
            .args([
                "--workers",
                "1",
                "--listen",
                &data.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .args(["--upstream", &format!("http://{upstream}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self(child, data);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(data).is_err() {
            assert!(Instant::now() < deadline, "the process does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    /// The most memory it has had, in bytes.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .unwrap()
            * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Position-dependent, so that a piece lost, doubled or moved shows.
fn noise(from: usize, count: usize) -> Vec<u8> {
    (from..from + count)
        .map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8)
        .collect()
}

/// Reads a chunked body off `peer`, data only.
fn read_chunk(peer: &mut Peer) -> Vec<u8> {
    let line = peer.read_until(b"\r\n");
    let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).unwrap();
    let mut data = peer.read_exact(size + 2);
    data.truncate(size);
    data
}

#[test]
fn a_large_upload_arrives_and_is_not_held() {
    let upstream = origin(|mut peer, _| {
        let head = peer.read_head();
        let chunked = head.contains("transfer-encoding: chunked");
        let whole = if head.contains("length: 1048576\r\n") {
            MIB
        } else {
            20 * MIB
        };
        let mut at = 0;
        while at < whole || chunked {
            let piece = if chunked {
                read_chunk(&mut peer)
            } else {
                peer.read_exact(MIB / 4)
            };
            if piece.is_empty() {
                break;
            }
            assert!(piece == noise(at, piece.len()), "wrong bytes at {at}");
            at += piece.len();
        }
        assert_eq!(at, whole);
        peer.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    });
    let process = Process::start(upstream);
    let mut peaks = Vec::new();
    for (length, framing) in [
        // What the first request costs by paging in code is not meant.
        (MIB, "content-length: 1048576"),
        (20 * MIB, "content-length: 20971520"),
        (20 * MIB, "transfer-encoding: chunked"),
    ] {
        let mut client = Peer::connect(process.1);
        client.write(format!(
            "POST /v1/files HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n"
        ));
        for at in (0..length).step_by(MIB / 8) {
            let piece = noise(at, MIB / 8);
            if framing.starts_with('t') {
                client
                    .write([format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat());
            } else {
                client.write(piece);
            }
        }
        if framing.starts_with('t') {
            client.write("0\r\n\r\n");
        }
        assert!(client.read_head().starts_with("HTTP/1.1 200 "), "{framing}");
        peaks.push(process.peak() / 1024);
    }
    // The observer keeps up to 4 MiB of a request, in a buffer that doubles.
    assert!(peaks[2] - peaks[0] < 16 * 1024, "KiB: {peaks:?}");
}

/// Writes until the other end takes no more for half a second; how much that was.
fn write_until_blocked(stream: &mut TcpStream, most: usize) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut written = 0;
    while written < most {
        match stream.write(&noise(written, 64 * 1024)) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            Err(error) => panic!("{error} after {written}"),
        }
    }
    written
}

/// A client that reads slowly is not cut, and upstream is made to wait for it.
#[test]
fn a_slow_reader_slows_upstream_down() {
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = origin(move |mut peer, number| {
        peer.read_head();
        peer.write("HTTP/1.1 200 OK\r\n\r\n");
        if number == 0 {
            return peer.write(noise(0, MIB));
        }
        let written = write_until_blocked(&mut peer.stream, 256 * MIB);
        tell.send(written).unwrap();
        wait.lock().unwrap().recv().unwrap();
    });
    let process = Process::start(upstream);
    // The first page-in of its code is not meant.
    let mut first = Peer::connect(process.1);
    first.write(get("/small", ""));
    assert_eq!(first.read_to_end().0.last(), Some(&b'\n'));
    let before = process.peak();
    let mut client = TcpStream::connect(process.1).unwrap();
    client.write_all(&get("/large", "")).unwrap();
    // A KiB now and then while upstream writes.
    let mut all = Vec::new();
    let mut piece = [0; 1024];
    let written = loop {
        let count = client.read(&mut piece).unwrap();
        assert!(count > 0, "cut");
        all.extend_from_slice(&piece[..count]);
        if let Ok(written) = told.recv_timeout(Duration::from_millis(200)) {
            break written;
        }
    };
    assert!(
        written < 64 * MIB,
        "upstream was never made to wait: {} MiB",
        written / MIB
    );
    let grown = process.peak() - before;
    assert!(grown < 8 * MIB, "{grown}");
    go.send(()).unwrap();
    client.read_to_end(&mut all).unwrap();
    let body = find(&all, b"\r\n\r\n").unwrap() + 4;
    let data = dechunk(&all[body..]);
    assert!(data == noise(0, written), "{} of {written}", data.len());
}

fn dechunk(mut wire: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let line = find(wire, b"\r\n").expect("the end is missing");
        let size = usize::from_str_radix(std::str::from_utf8(&wire[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&wire[line + 2..line + 2 + size]);
        wire = &wire[line + 4 + size..];
    }
}

/// The other way round: an upstream that does not read makes the client wait.
#[test]
fn an_upstream_that_does_not_read_slows_the_client_down() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = origin(move |mut peer, _| {
        peer.read_head();
        wait.lock().unwrap().recv().unwrap();
        let (bytes, _) = peer.read_to_end();
        drop(bytes);
    });
    let proxy = Proxy::start(upstream);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client
        .write_all(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 300000000\r\n\r\n")
        .unwrap();
    let written = write_until_blocked(&mut client, 256 * MIB);
    assert!(written < 64 * MIB, "{} MiB were taken", written / MIB);
    drop(client);
    go.send(()).unwrap();
}
