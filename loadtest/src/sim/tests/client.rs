//! A client that knows no more than it must.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sim::{Config, Server};

pub(super) const CHAT: &str = "/v1/chat/completions";

pub(super) fn sim() -> Server {
    Server::start(Config::default()).unwrap()
}

pub(super) fn request(path: &str, directive: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: sim\r\nx-sim: {directive}\r\nx-request-id: r1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len(),
    )
}

/// Sends and reads to the end; the error is what ended it otherwise.
pub(super) async fn send(server: &Server, request: &str) -> (Vec<u8>, std::io::Result<usize>) {
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer));
    let end = end.await.unwrap();
    (answer, end)
}

pub(super) async fn stream(server: &Server, directive: &str) -> String {
    let body = r#"{"model":"tiny","messages":[],"stream":true,"max_tokens":8}"#;
    let (answer, _) = send(server, &request(CHAT, directive, body)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn header_lines(answer: &[u8]) -> Vec<String> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    head.split("\r\n").map(str::to_owned).collect()
}

/// The data of all events, the body being chunked, with each chunk one event.
pub(super) fn events(answer: &[u8]) -> Vec<String> {
    let start = memchr::memmem::find(answer, b"\r\n\r\n").unwrap() + 4;
    let mut rest = &answer[start..];
    let mut events = Vec::new();
    while let Ok(httparse::Status::Complete((at, len))) = httparse::parse_chunk_size(rest) {
        let (at, len) = (at, usize::try_from(len).unwrap());
        if len == 0 || rest.len() < at + len + 2 {
            break;
        }
        let event = String::from_utf8(rest[at..at + len].to_vec()).unwrap();
        if let Some(data) = event.trim_end().strip_prefix("data: ") {
            events.push(data.to_owned());
        }
        rest = &rest[at + len + 2..];
    }
    events
}
