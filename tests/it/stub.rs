//! A vLLM in name only, for what is polled: each path answers as it is told.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::origin::{Peer, origin};

/// What a path is answered with.
#[derive(Clone)]
pub enum Reply {
    /// Status and body.
    Is(u16, String),
    /// Nothing, until it is told something else.
    Hang,
    /// The connection is cut.
    Cut,
    /// By code, which gets the connection behind the request's head.
    Code(Arc<dyn Fn(&mut Peer) + Send + Sync>),
}

/// A vLLM that answers as it is told, and remembers what it was asked.
#[derive(Clone)]
pub struct Vllm {
    pub addr: SocketAddr,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    pub heads: Arc<Mutex<Vec<String>>>,
}

/// A request's head, its body read too; none at the connection's end.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let length = name.eq_ignore_ascii_case("content-length");
        length.then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(head)
}

pub fn models(names: &[&str]) -> String {
    let entries: Vec<_> = names
        .iter()
        .map(|name| {
            format!(
                r#"{{"id":"{name}","object":"model","owned_by":"vllm","root":"/srv/{name}","parent":null,"max_model_len":2048}}"#
            )
        })
        .collect();
    format!(r#"{{"object":"list","data":[{}]}}"#, entries.join(","))
}

impl Vllm {
    pub fn start() -> Self {
        let replies: Arc<Mutex<HashMap<String, Reply>>> = Arc::default();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (known, seen) = (Arc::clone(&replies), Arc::clone(&heads));
        let addr = origin(move |mut peer, _| {
            let mut reader = BufReader::new(peer.stream.try_clone().unwrap());
            loop {
                let Some(head) = read_request(&mut reader) else {
                    return;
                };
                let path = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head);
                loop {
                    let reply = known.lock().unwrap().get(&path).cloned();
                    match reply.unwrap_or(Reply::Is(404, r#"{"detail":"Not Found"}"#.to_owned())) {
                        Reply::Is(status, body) => {
                            let answer = format!(
                                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
                                body.len()
                            );
                            if peer.stream.write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                            break;
                        }
                        Reply::Hang => std::thread::sleep(Duration::from_millis(5)),
                        Reply::Cut => return,
                        Reply::Code(code) => {
                            code(&mut peer);
                            return;
                        }
                    }
                }
            }
        });
        let vllm = Self {
            addr,
            replies,
            heads,
        };
        vllm.set("/health", 200, "");
        vllm.set("/v1/models", 200, &models(&["tiny"]));
        vllm.set("/version", 200, r#"{"version":"0.32.0"}"#);
        vllm.set("/load", 200, r#"{"server_load":3}"#);
        vllm
    }

    pub fn set(&self, path: &str, status: u16, body: &str) {
        self.reply(path, Reply::Is(status, body.to_owned()));
    }

    pub fn reply(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// All that is polled.
    pub fn everything(&self, reply: &Reply) {
        for path in ["/health", "/v1/models", "/version", "/load", "/metrics"] {
            self.reply(path, reply.clone());
        }
    }

    /// The heads of the requests for a path.
    pub fn heads(&self, path: &str) -> Vec<String> {
        let start = format!("GET {path} ");
        let heads = self.heads.lock().unwrap();
        let of_path = heads.iter().filter(|head| head.starts_with(&start));
        of_path.cloned().collect()
    }
}
