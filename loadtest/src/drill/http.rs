//! Requests of one connection each.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For a document of one of the children; they are on this machine, which may be busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// For an answer that is made to be slow.
const LONGEST: Duration = Duration::from_secs(60);

/// What `path` says.
pub(crate) async fn text(addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    // Of HTTP/1.0 the body is all that follows, without chunks.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n");
    let exchange = async {
        let mut socket = TcpStream::connect(addr).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).await?;
        anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await;
    let answer = answer.with_context(|| format!("no answer from {addr}{path}"))??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    anyhow::ensure!(head.contains(" 200 "), "{addr}{path}: {head}");
    Ok(body.to_owned())
}

/// The document at `path`.
pub(crate) async fn json(addr: SocketAddr, path: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&text(addr, path).await?)?)
}

/// Sends a request and takes its answer, or leaves after a while. What comes of it, tokenglass is to say.
pub(crate) async fn send(addr: SocketAddr, request: Vec<u8>, leave: Option<Duration>) {
    let exchange = async {
        let mut socket = TcpStream::connect(addr).await?;
        socket.write_all(&request).await?;
        let mut some = vec![0; 16 * 1024];
        while socket.read(&mut some).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(leave.unwrap_or(LONGEST), exchange).await;
}

/// A chat request with an `x-sim` header, alone on its connection.
pub(crate) fn chat(model: &str, stream: bool, max_tokens: u32, sim: &str) -> Vec<u8> {
    // With usage: the time per token is measured where the number of tokens is exact.
    let more = if stream {
        r#","stream":true,"stream_options":{"include_usage":true}"#
    } else {
        ""
    };
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}],"max_tokens":{max_tokens}{more}}}"#
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: vllm\r\nconnection: close\r\ncontent-type: application/json\r\nx-sim: {sim}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
