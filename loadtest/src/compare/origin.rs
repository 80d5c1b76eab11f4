//! The origin of a comparison: answers as fast as sockets allow, because it must not be what is measured.
//!
//! The simulator renders every frame and keeps a ground truth; this plays scripts that were rendered once. At full speed
//! many chunks leave in one write, as when a client is slower than the engine; at a pace every frame is a write of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::script::{BEFORE_STAMP, STAMP, Script, now_ns, stamp};
use crate::http1::{BodyKind, Conn, PeerGone, RequestHead};
use crate::net::{Listen, Listener};

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the request to the first frame.
    pub first: Duration,
    /// From a frame to the next; zero is full speed.
    pub gap: Duration,
    /// At full speed too every frame is a write of its own.
    pub eager: bool,
}

/// A bound origin.
#[derive(Debug)]
pub struct Origin {
    listener: Listener,
    pace: Pace,
}

/// Scripts by whether they are streams and their length.
type Scripts = Mutex<HashMap<(bool, u32), Arc<Script>>>;

const MODELS: &str = r#"{"object":"list","data":[{"id":"tiny","object":"model","created":1764000000,"owned_by":"vllm","root":"tiny","parent":null,"max_model_len":131072}]}"#;
/// A router asks about a replica's metrics, and tokenglass shows them.
const METRICS: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 1.0\n";

// === impl Origin ===

impl Origin {
    /// Binds. With `shared`, several may have the address, one a thread.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(listen: SocketAddr, shared: bool, pace: Pace) -> std::io::Result<Self> {
        let listener = Listener::bind(&Listen::Tcp(listen), shared)?;
        Ok(Self { listener, pace })
    }

    /// The address bound.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.listener.addr()
    }

    /// Serves for ever.
    pub async fn serve(self) {
        let scripts = Arc::new(Scripts::default());
        loop {
            let conn = Conn::new(self.listener.accept().await);
            tokio::spawn(connection(conn, Arc::clone(&scripts), self.pace));
        }
    }
}

async fn connection(mut conn: Conn, scripts: Arc<Scripts>, pace: Pace) {
    let mut body = Vec::new();
    loop {
        let (head, len) = loop {
            match RequestHead::parse(&conn.buf) {
                Ok(Some(parsed)) => break parsed,
                Ok(None) => {
                    if conn.fill().await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        };
        conn.buf.drain(..len);
        body.clear();
        if head.body_kind() != BodyKind::None
            && conn.read_body(head.body_kind(), &mut body).await != Ok(true)
        {
            return;
        }
        if answer(&mut conn, &head, &body, &scripts, pace)
            .await
            .is_err()
            || head.wants_close()
        {
            return;
        }
        // Neither a prompt of 2 MiB nor its buffer is kept through a long stream's connection.
        if body.capacity() > 64 * 1024 {
            body = Vec::new();
        }
    }
}

async fn answer(
    conn: &mut Conn,
    head: &RequestHead,
    body: &[u8],
    scripts: &Scripts,
    pace: Pace,
) -> Result<(), PeerGone> {
    if head.method != "POST" {
        let script = match head.path.as_str() {
            "/v1/models" => Script::whole("200 OK", MODELS),
            "/health" => Script::whole("200 OK", ""),
            "/version" => Script::whole("200 OK", r#"{"version":"0.32.0"}"#),
            "/metrics" => Script::whole("200 OK", METRICS),
            _ => Script::whole("404 Not Found", r#"{"detail":"Not Found"}"#),
        };
        return conn.write_all(&script.wire).await;
    }
    let received = Instant::now();
    let frames = field(body, b"\"max_tokens\":")
        .and_then(number)
        .unwrap_or(16);
    let stream = field(body, b"\"stream\":").is_some_and(|value| value.starts_with(b"true"));
    let script = script(scripts, stream, frames);
    if !pace.first.is_zero() {
        tokio::time::sleep_until((received + pace.first).into()).await;
    }
    if !stream || pace.gap.is_zero() && !pace.eager {
        conn.write_all(&script.wire).await
    } else if pace.gap.is_zero() {
        eager(conn, &script).await
    } else {
        paced(conn, &script, pace.gap).await
    }
}

/// A frame a write, without a pause; the head leaves with the first.
async fn eager(conn: &mut Conn, script: &Script) -> Result<(), PeerGone> {
    let mut from = 0;
    for end in script.wire_ends.iter().skip(1) {
        conn.write_all(&script.wire[from..*end]).await?;
        from = *end;
    }
    Ok(())
}

/// A frame a write, each with the time at which it leaves. The head leaves with the first.
async fn paced(conn: &mut Conn, script: &Script, gap: Duration) -> Result<(), PeerGone> {
    let mut due = Instant::now();
    let mut from = 0;
    let mut out = Vec::with_capacity(512);
    for end in script.wire_ends.iter().skip(1) {
        tokio::time::sleep_until(due.into()).await;
        due += gap;
        out.clear();
        out.extend_from_slice(&script.wire[from..*end]);
        if let Some(at) = memchr::memmem::find(&out, BEFORE_STAMP) {
            let at = at + BEFORE_STAMP.len();
            stamp(&mut out[at..at + STAMP], now_ns());
        }
        conn.write_all(&out).await?;
        from = *end;
    }
    Ok(())
}

fn script(scripts: &Scripts, stream: bool, frames: u32) -> Arc<Script> {
    let mut scripts = scripts.lock().unwrap_or_else(PoisonError::into_inner);
    let script = scripts.entry((stream, frames)).or_insert_with(|| {
        Arc::new(if stream {
            Script::stream(frames)
        } else {
            Script::json(frames)
        })
    });
    Arc::clone(script)
}

/// What stands behind `name`, blanks skipped: a router may have written the JSON anew.
fn field<'a>(body: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(body, name)?;
    Some(body[at + name.len()..].trim_ascii_start())
}

fn number(value: &[u8]) -> Option<u32> {
    let digits = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_however_they_are_written() {
        let body = br#"{"stream_options":{},"stream": true,"max_tokens":  12}"#;
        assert_eq!(field(body, b"\"max_tokens\":").and_then(number), Some(12));
        assert!(field(body, b"\"stream\":").unwrap().starts_with(b"true"));
        assert_eq!(field(body, b"\"n\":"), None);
    }
}
