//! The origin of a comparison: answers as fast as sockets allow, because it must not be what is measured.
//!
//! The simulator renders every frame and keeps a ground truth; this plays scripts that were rendered once. At full speed
//! many chunks leave in one write, as when a client is slower than the engine; at a pace every frame is a write of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::grid::Grid;
use super::script::{BEFORE_STAMP, MODEL, STAMP, Script, now_ns, stamp};
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
    /// Streams at a time, over which the phases of paced ones are spread.
    pub streams: usize,
    /// How many models `/v1/models` lists beside the one that all use.
    pub models: usize,
}

/// What the threads of an origin have in common.
#[derive(Debug)]
pub struct Common {
    pace: Pace,
    grid: Grid,
    models: Script,
}

/// A bound origin.
#[derive(Debug)]
pub struct Origin {
    listener: Listener,
    common: Arc<Common>,
}

/// Scripts by whether they are streams and their length.
type Scripts = Mutex<HashMap<(bool, u32), Arc<Script>>>;

/// A router asks about a replica's metrics, and tokenglass shows them.
const METRICS: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 1.0\n";

// === impl Common ===

impl Common {
    /// For one origin.
    #[must_use]
    pub fn new(pace: Pace) -> Arc<Self> {
        let grid = Grid::new(pace.gap, pace.streams);
        let models = Script::whole("200 OK", &models(pace.models));
        Arc::new(Self { pace, grid, models })
    }
}

// === impl Origin ===

impl Origin {
    /// Binds. With `shared`, several may have the address, one a thread.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(listen: SocketAddr, shared: bool, common: Arc<Common>) -> std::io::Result<Self> {
        let listener = Listener::bind(&Listen::Tcp(listen), shared)?;
        Ok(Self { listener, common })
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
            let (scripts, common) = (Arc::clone(&scripts), Arc::clone(&self.common));
            tokio::spawn(connection(conn, scripts, common));
        }
    }
}

async fn connection(mut conn: Conn, scripts: Arc<Scripts>, common: Arc<Common>) {
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
        if answer(&mut conn, &head, &body, &scripts, &common)
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
    common: &Common,
) -> Result<(), PeerGone> {
    let pace = common.pace;
    if head.method != "POST" {
        let script = match head.path.as_str() {
            "/v1/models" => return conn.write_all(&common.models.wire).await,
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
    let script = match field(body, b"\"model\":").and_then(name) {
        None | Some(MODEL) => script(scripts, stream, frames),
        // Each is asked for once, so that it is known.
        Some(model) => Arc::new(Script::of(model, stream, frames)),
    };
    if stream && !pace.gap.is_zero() {
        let first = common.grid.first(received + pace.first);
        return paced(conn, &script, first, pace.gap).await;
    }
    if !pace.first.is_zero() {
        tokio::time::sleep_until((received + pace.first).into()).await;
    }
    if !stream || !pace.eager {
        conn.write_all(&script.wire).await
    } else {
        eager(conn, &script).await
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
async fn paced(
    conn: &mut Conn,
    script: &Script,
    mut due: Instant,
    gap: Duration,
) -> Result<(), PeerGone> {
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
        let script = Script::of(MODEL, stream, frames);
        Arc::new(script)
    });
    Arc::clone(script)
}

/// The body of `/v1/models`: the one, and so many more.
fn models(more: usize) -> String {
    let names = std::iter::once(MODEL.to_owned()).chain((0..more).map(|n| format!("m-{n}")));
    let models: Vec<String> = names
        .map(|name| {
            format!(
                r#"{{"id":"{name}","object":"model","created":1764000000,"owned_by":"vllm","root":"{name}","parent":null,"max_model_len":131072}}"#
            )
        })
        .collect();
    format!(r#"{{"object":"list","data":[{}]}}"#, models.join(","))
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

/// The string that begins here, if it is a model's name.
fn name(value: &[u8]) -> Option<&str> {
    let value = value.strip_prefix(b"\"")?;
    let name = &value[..memchr::memchr(b'"', value)?];
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./".contains(byte);
    if !name.iter().all(plain) {
        return None;
    }
    std::str::from_utf8(name).ok()
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
        let model = |body: &'static [u8]| field(body, b"\"model\":").and_then(name);
        assert_eq!(model(br#"{"model": "m-7","n":1}"#), Some("m-7"));
        for other in [
            &br#"{"model":7}"#[..],
            br#"{"model":"m"#,
            br#"{"model":"a\"b"}"#,
        ] {
            assert_eq!(model(other), None);
        }
    }

    #[test]
    fn all_models_are_listed() {
        let list: serde_json::Value = serde_json::from_str(&models(100)).unwrap();
        let list = list["data"].as_array().unwrap();
        assert_eq!(list.len(), 101);
        assert_eq!(
            (&list[0]["id"], &list[100]["id"]),
            (&"tiny".into(), &"m-99".into())
        );
    }
}
