//! A connection's life: one request after another, and the routes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::head::Head;
use super::{After, Shared, answer, bodies, websocket};
use crate::http1::{BodyKind, Conn, PeerGone, RequestHead};
use crate::net::Socket;

/// Serves `socket` until either side closes it.
pub(crate) async fn connection(shared: Arc<Shared>, socket: Socket) {
    let _open = shared.connection();
    let mut conn = Conn::new(socket);
    loop {
        match exchange(&shared, &mut conn).await {
            Ok(After::KeepAlive) => {}
            Ok(After::Close) => return conn.close(),
            Ok(After::Reset) => return conn.reset(),
            Ok(After::CloseOnNextByte) => {
                while conn.buf.is_empty() {
                    if conn.fill().await.is_err() {
                        return;
                    }
                }
                return conn.close();
            }
            Err(PeerGone) => return,
        }
    }
}

async fn exchange(shared: &Shared, conn: &mut Conn) -> Result<After, PeerGone> {
    let head = loop {
        match RequestHead::parse(&conn.buf) {
            Ok(Some((head, len))) => {
                conn.buf.drain(..len);
                break head;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "request not understood");
                let body = b"Invalid HTTP request received.";
                let head = Head::new(400, "text/plain; charset=utf-8")
                    .length(body.len() as u64)
                    .close(true);
                conn.write_all(&[&head.bytes(), body.as_slice()].concat())
                    .await?;
                return Ok(After::Close);
            }
        }
        // vLLM closes an idle connection after 5 s, when its proxy may be about to use it.
        let idle = shared.config.keep_alive.unwrap_or(Duration::MAX);
        match tokio::time::timeout(idle, conn.fill()).await {
            Ok(filled) => filled?,
            Err(_) => return Ok(After::Close),
        };
    };
    let received = Instant::now();
    shared.saw_request();
    if let Some(key) = websocket::key(&head).filter(|_| head.path == "/v1/realtime") {
        websocket::echo(conn, key).await?;
        return Ok(After::Close);
    }
    if head
        .header("expect")
        .is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
    {
        conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let mut body = Vec::new();
    let kind = head.body_kind();
    debug_assert_ne!(kind, BodyKind::UntilClose);
    if !conn.read_body(kind, &mut body).await? {
        return plain(
            conn,
            &head,
            400,
            br#"{"detail":"There was an error parsing the body"}"#,
        )
        .await;
    }
    route(shared, conn, &head, &body, received).await
}

async fn route(
    shared: &Shared,
    conn: &mut Conn,
    head: &RequestHead,
    body: &[u8],
    received: Instant,
) -> Result<After, PeerGone> {
    if head.path.starts_with("/v1/") && !shared.authorized(head) {
        return plain(conn, head, 401, br#"{"error":"Unauthorized"}"#).await;
    }
    let models = &shared.config.models;
    if let Some(delay) = shared.control.delay(&head.path) {
        conn.wait_until(received + delay).await?;
    }
    match (head.method.as_str(), head.path.as_str()) {
        ("POST", "/v1/chat/completions" | "/v1/completions") => {
            answer::answer(shared, conn, head, body, received).await
        }
        ("GET", "/v1/models") => {
            let listed: &[String] = if shared.control.loaded() { models } else { &[] };
            plain(conn, head, 200, &bodies::models(listed, 1_795_552_003)).await
        }
        ("GET", "/version") => plain(conn, head, 200, br#"{"version":"0.32.0"}"#).await,
        ("GET", "/load") => {
            let load = format!(r#"{{"server_load":{}}}"#, shared.counters.load());
            plain(conn, head, 200, load.as_bytes()).await
        }
        ("GET", "/health") => {
            let status = if shared.control.healthy() { 200 } else { 503 };
            let response = Head::new(status, "").length(0);
            send(conn, head, response, b"").await
        }
        ("GET", "/metrics") => {
            let model = models.first().map_or("", String::as_str);
            let text = shared.counters.render(model, &shared.control);
            let response = Head::new(200, "text/plain; version=1.0.0; charset=utf-8");
            let response = response.length(text.len() as u64);
            send(conn, head, response, text.as_bytes()).await
        }
        (_, "/v1/chat/completions" | "/v1/completions") => wrong_method(conn, head, "POST").await,
        (_, "/v1/models" | "/version" | "/health" | "/load" | "/metrics") => {
            wrong_method(conn, head, "GET").await
        }
        _ => plain(conn, head, 404, br#"{"detail":"Not Found"}"#).await,
    }
}

async fn wrong_method(
    conn: &mut Conn,
    head: &RequestHead,
    allow: &'static str,
) -> Result<After, PeerGone> {
    let body = br#"{"detail":"Method Not Allowed"}"#;
    let response = Head::new(405, "application/json")
        .allow(allow)
        .length(body.len() as u64);
    send(conn, head, response, body).await
}

async fn plain(
    conn: &mut Conn,
    head: &RequestHead,
    status: u16,
    body: &[u8],
) -> Result<After, PeerGone> {
    let response = Head::new(status, "application/json").length(body.len() as u64);
    send(conn, head, response, body).await
}

async fn send(
    conn: &mut Conn,
    head: &RequestHead,
    response: Head,
    body: &[u8],
) -> Result<After, PeerGone> {
    let close = head.wants_close();
    let mut bytes = response.close(close).bytes();
    if head.method != "HEAD" {
        bytes.extend_from_slice(body);
    }
    conn.write_all(&bytes).await?;
    Ok(if close {
        After::Close
    } else {
        After::KeepAlive
    })
}
