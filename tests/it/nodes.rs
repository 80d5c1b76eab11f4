//! Several upstreams that can be made to fail, and a gateway in front of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokenglass::config::{Config, UpstreamUrl};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::support::{Message, Metrics, Proxy, exchange, find};

/// An upstream.
pub struct Node {
    pub addr: SocketAddr,
    pub is: Arc<State>,
}

/// How it behaves, and what it has been asked. The pollers' questions are not counted.
pub struct State {
    /// Answers of requests, by what was asked.
    behave: Mutex<Behaviour>,
    /// What `/v1/models` lists.
    models: Mutex<Vec<String>>,
    /// What `/health` says.
    pub healthy: AtomicBool,
    /// Wants `Authorization: Bearer KEY` for `/v1/models`.
    key: Mutex<Option<String>>,
    pub asked: Mutex<Vec<Asked>>,
    /// Requests that have no answer yet, and how many there have been at once.
    now: AtomicUsize,
    pub most: AtomicUsize,
    down: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// Counts a request for as long as it lives.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub head: String,
    pub body: Vec<u8>,
}

/// What it does with a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// 200 with its name, after so many milliseconds.
    Answers(u64),
    /// This answer.
    Says(Vec<u8>),
    /// Reads it and resets the connection.
    Resets,
    /// A stream of so many events, so many milliseconds apart.
    Streams(usize, u64),
    /// This interim answer, then a reset.
    Hints(&'static str),
}

/// A 503 as vLLM has it.
pub fn overloaded(headers: &str) -> Behaviour {
    Behaviour::Says(answer(
        503,
        headers,
        r#"{"error":{"message":"full","type":"ServiceUnavailableError","param":null,"code":503}}"#,
    ))
}

pub fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Node {
    pub fn start() -> Self {
        Self::serving(&[])
    }

    pub fn serving(models: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let is = Arc::new(State {
            behave: Mutex::new(Behaviour::Answers(0)),
            models: Mutex::new(models.iter().map(|name| (*name).to_owned()).collect()),
            healthy: AtomicBool::new(true),
            key: Mutex::default(),
            asked: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let node = Self { addr, is };
        node.listen(listener);
        node
    }

    pub fn many(count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start()).collect()
    }

    fn listen(&self, listener: TcpListener) {
        let is = Arc::clone(&self.is);
        let name = self.addr.to_string();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            while !is.down.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        stream.set_nodelay(true).unwrap();
                        is.open.lock().unwrap().push(stream.try_clone().unwrap());
                        let (is, name) = (Arc::clone(&is), name.clone());
                        std::thread::spawn(move || is.serve(stream, &name));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
    }

    /// Refuses connections and resets those that there are.
    pub fn kill(&self) {
        self.is.down.store(true, Ordering::SeqCst);
        for stream in self.is.open.lock().unwrap().drain(..) {
            reset(&stream);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(self.addr).is_ok() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn behave(&self, how: Behaviour) {
        *self.is.behave.lock().unwrap() = how;
    }

    pub fn lists(&self, models: &[&str]) {
        *self.is.models.lock().unwrap() = models.iter().map(|name| (*name).to_owned()).collect();
    }

    pub fn wants(&self, key: &str) {
        *self.is.key.lock().unwrap() = Some(key.to_owned());
    }

    /// Requests that it has been sent.
    pub fn asked(&self) -> Vec<Asked> {
        self.is.asked.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.is.asked.lock().unwrap().len()
    }

    /// Its label.
    pub fn label(&self) -> String {
        format!("upstream=\"{}\"", self.addr)
    }

    pub fn url(&self) -> UpstreamUrl {
        url(self.addr)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.is.down.store(true, Ordering::SeqCst);
    }
}

/// Closes with RST.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

impl State {
    fn serve(&self, mut stream: TcpStream, name: &str) {
        let mut ahead = Vec::new();
        while let Some(asked) = read_request(&mut stream, &mut ahead) {
            if let Some(answer) = self.poller(&asked.head) {
                let _ = stream.write_all(&answer);
                continue;
            }
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            self.asked.lock().unwrap().push(asked);
            let how = self.behave.lock().unwrap().clone();
            let running = Running(&self.now);
            if !respond(&mut stream, how, name, running) {
                reset(&stream);
                return;
            }
        }
    }

    /// The answer, if it is the poller that asks; or somebody who asks for the list.
    fn poller(&self, head: &str) -> Option<Vec<u8>> {
        if head.starts_with("GET /v1/models ") {
            let key = self.key.lock().unwrap().clone();
            if key.is_some_and(|key| !head.contains(&format!("authorization: Bearer {key}\r\n"))) {
                return Some(answer(401, "", "{\"error\":\"Unauthorized\"}"));
            }
            let models = self.models.lock().unwrap();
            let data: Vec<_> = models
                .iter()
                .map(|name| serde_json::json!({"id": name, "object": "model", "created": 1, "owned_by": "vllm", "root": format!("/{name}"), "max_model_len": 8}))
                .collect();
            let list = serde_json::json!({"object": "list", "data": data});
            return Some(answer(200, "", &list.to_string()));
        }
        if !head.contains("user-agent: tokenglass/") {
            return None;
        }
        let healthy = self.healthy.load(Ordering::SeqCst);
        Some(if head.starts_with("GET /health ") {
            answer(if healthy { 200 } else { 503 }, "", "")
        } else {
            answer(404, "", "{}")
        })
    }
}

/// `running` is over before the last byte is sent: whoever has that byte may send the next request.
fn respond(stream: &mut TcpStream, how: Behaviour, name: &str, running: Running<'_>) -> bool {
    match how {
        Behaviour::Answers(millis) => {
            std::thread::sleep(Duration::from_millis(millis));
            let body = format!(
                r#"{{"object":"chat.completion","model":"m","node":"{name}","choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
            );
            drop(running);
            stream.write_all(&answer(200, "", &body)).is_ok()
        }
        Behaviour::Says(bytes) => {
            drop(running);
            stream.write_all(&bytes).is_ok()
        }
        Behaviour::Resets => false,
        Behaviour::Hints(hint) => {
            let _ = stream.write_all(hint.as_bytes());
            std::thread::sleep(Duration::from_millis(50));
            false
        }
        Behaviour::Streams(events, pause) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let event = format!(
                "data: {{\"model\":\"m\",\"node\":\"{name}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"x\"}}}}]}}\n\n"
            );
            let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
            let mut fine = stream.write_all(head.as_bytes()).is_ok();
            for _ in 0..events {
                fine = fine && stream.write_all(chunk(&event).as_bytes()).is_ok();
                std::thread::sleep(Duration::from_millis(pause));
            }
            let end = format!("{}0\r\n\r\n", chunk("data: [DONE]\n\n"));
            drop(running);
            fine && stream.write_all(end.as_bytes()).is_ok()
        }
    }
}

/// One whole request; `None` at the end.
fn read_request(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<Asked> {
    let head = take_until(stream, ahead, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let lower = head.to_ascii_lowercase();
    let body = if lower.contains("transfer-encoding: chunked") {
        let mut body = Vec::new();
        loop {
            let size = take_until(stream, ahead, b"\r\n")?;
            let size = String::from_utf8_lossy(&size).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).ok()?;
            let mut chunk = take(stream, ahead, size + 2)?;
            chunk.truncate(size);
            body.extend(chunk);
            if size == 0 {
                break body;
            }
        }
    } else {
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next());
        take(
            stream,
            ahead,
            length.map_or(0, |length| length.parse().unwrap()),
        )?
    };
    Some(Asked { head, body })
}

fn take_until(stream: &mut TcpStream, ahead: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = find(ahead, end) {
            return Some(ahead.drain(..at + end.len()).collect());
        }
        fill(stream, ahead)?;
    }
}

fn take(stream: &mut TcpStream, ahead: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while ahead.len() < count {
        fill(stream, ahead)?;
    }
    Some(ahead.drain(..count).collect())
}

fn fill(stream: &mut TcpStream, ahead: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => {
                ahead.extend_from_slice(&buffer[..count]);
                return Some(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

pub fn url(addr: SocketAddr) -> UpstreamUrl {
    UpstreamUrl::Http {
        host: addr.ip().to_string(),
        port: addr.port(),
    }
}

/// A gateway in front of them. Nothing is polled unless `change` says so.
pub fn gateway(nodes: &[Node], change: impl FnOnce(&mut Config)) -> Proxy {
    let urls = nodes.iter().map(Node::url).collect();
    Proxy::with(nodes[0].addr, |config| {
        config.upstream.urls = urls;
        config.server.workers = 2;
        change(config);
    })
}

/// A gateway that follows changes, too.
pub fn following(
    nodes: &[Node],
    changes: UnboundedReceiver<tokenglass::poll::Change>,
    change: impl FnOnce(&mut Config),
) -> Proxy {
    let urls = nodes.iter().map(Node::url).collect();
    Proxy::following(nodes[0].addr, changes, |config| {
        config.upstream.urls = urls;
        config.server.workers = 2;
        // A gateway also with one, or none.
        config.gateway.discover = vec!["dns:http://localhost.invalid:1".parse().unwrap()];
        change(config);
    })
}

/// Polls fast.
pub fn polled(config: &mut Config) {
    config.health.enabled = true;
    config.health.interval = Duration::from_millis(50);
    config.health.timeout = Duration::from_millis(500);
}

/// Waits until the poller has found that many models in all.
#[track_caller]
pub fn wait_models(proxy: &Proxy, count: u64) -> Metrics {
    proxy.wait_metrics("all lists are read", |metrics| {
        metrics.count("vllm_available_models", &[]) == count
    })
}

pub fn ask(to: SocketAddr, request: &[u8]) -> Message {
    let (bytes, _) = exchange(to, request, Duration::from_secs(20));
    Message::parse(&bytes).unwrap_or_else(|| panic!("no answer: {}", bytes.escape_ascii()))
}

/// The body of a chat for a model.
pub fn chat_for(model: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"\"model\":\"no\""}}],"model":"{model}"}}"#
    );
    crate::support::chat("connection: close\r\n", &body)
}
