//! Upstreams for the tests: scripts on a runtime, or a thread for each connection where a script cannot say it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loadtest::scripted::{RawServer, Received, Step};

use crate::support::{Message, Proxy, exchange, find, runtime};

/// A scripted upstream and a proxy in front of it.
pub struct Bed {
    pub proxy: Proxy,
    pub upstream: RawServer,
    runtime: tokio::runtime::Runtime,
}

impl Bed {
    pub fn new(script: Vec<Step>) -> Self {
        Self::with(script, |_| {})
    }

    pub fn with(script: Vec<Step>, change: impl FnOnce(&mut tokenglass::config::Config)) -> Self {
        let runtime = runtime();
        let upstream = runtime
            .block_on(async { RawServer::start(script) })
            .unwrap();
        let proxy = Proxy::with(upstream.addr(), change);
        Self {
            proxy,
            upstream,
            runtime,
        }
    }

    /// Answers every request with these bytes.
    pub fn answering(answer: &[u8]) -> Self {
        Self::new(answering(answer))
    }

    /// Sends `request` alone on a connection and reads to the end.
    pub fn ask(&self, request: &[u8]) -> (Vec<u8>, bool) {
        exchange(self.proxy.addr(), request, Duration::from_secs(20))
    }

    /// The answer to `request`, which is to be whole or not as it says itself.
    pub fn message(&self, request: &[u8]) -> Message {
        let (bytes, _) = self.ask(request);
        Message::parse(&bytes).unwrap_or_else(|| panic!("no answer: {}", bytes.escape_ascii()))
    }

    #[track_caller]
    pub fn wait(&self, what: &str, met: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let reached = self
            .runtime
            .block_on(self.upstream.wait(Duration::from_secs(5), met));
        assert!(reached, "never: {what}");
        self.upstream.received()
    }
}

/// The script that answers every request with these bytes.
pub fn answering(answer: &[u8]) -> Vec<Step> {
    vec![
        Step::ReadHead,
        Step::ReadDeclaredBody,
        Step::Write(answer.to_vec().into()),
        Step::Repeat,
    ]
}

/// A GET whose connection ends with the answer.
pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

/// An upstream by code: `serve` gets each connection and its number, in a thread of its own.
pub fn origin(serve: impl Fn(Peer, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    let count = AtomicUsize::new(0);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            stream.set_nodelay(true).unwrap();
            let number = count.fetch_add(1, Ordering::Relaxed);
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(Peer::new(stream), number));
        }
    });
    addr
}

/// One end of a connection, blocking.
pub struct Peer {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// A client's.
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream)
    }

    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            panic!(
                "{error}; {}",
                self.read_for(Duration::from_millis(100)).escape_ascii()
            );
        }
    }

    /// Up to and with `end`, which must come within ten seconds.
    #[track_caller]
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.ahead, end) {
                return self.ahead.drain(..at + end.len()).collect();
            }
            assert!(
                self.fill(Duration::from_secs(10)) > 0,
                "only {}",
                self.ahead.escape_ascii()
            );
        }
    }

    #[track_caller]
    pub fn read_head(&mut self) -> String {
        String::from_utf8_lossy(&self.read_until(b"\r\n\r\n")).into_owned()
    }

    #[track_caller]
    pub fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(
                self.fill(Duration::from_secs(20)) > 0,
                "only {} bytes",
                self.ahead.len()
            );
        }
        self.ahead.drain(..count).collect()
    }

    /// Whatever comes within `limit`.
    pub fn read_for(&mut self, limit: Duration) -> Vec<u8> {
        let until = Instant::now() + limit;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if self.fill(left) == 0 {
                break;
            }
        }
        std::mem::take(&mut self.ahead)
    }

    /// To the end, and whether that was a FIN.
    pub fn read_to_end(&mut self) -> (Vec<u8>, bool) {
        self.stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut all = std::mem::take(&mut self.ahead);
        let tidy = self.stream.read_to_end(&mut all).is_ok();
        (all, tidy)
    }

    /// Bytes that one read brought; 0 for an end or none in time.
    fn fill(&mut self, limit: Duration) -> usize {
        let mut buffer = [0; 64 * 1024];
        self.stream
            .set_read_timeout(Some(limit.max(Duration::from_millis(1))))
            .unwrap();
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.ahead.extend_from_slice(&buffer[..count]);
                count
            }
            Err(error) => {
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset
                    ),
                    "{error}"
                );
                0
            }
        }
    }
}
