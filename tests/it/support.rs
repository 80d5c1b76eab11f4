//! What the tests share: a proxy in this process on ports of its own, a client that sends and reads raw bytes, and a
//! reader of `/metrics`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokenglass::app::App;
use tokenglass::config::{Config, GpuMode, UpstreamUrl};

/// A proxy in front of `upstream`. Dropping it stops it at once.
pub struct Proxy {
    app: App,
}

/// The defaults, but on free loopback ports, with one worker.
pub fn config(upstream: SocketAddr) -> Config {
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    config.server.workers = 1;
    config.upstream.urls = vec![UpstreamUrl::Http {
        host: upstream.ip().to_string(),
        port: upstream.port(),
    }];
    // Scripted upstreams count what they are asked, and the machine's GPUs are none of the tests' business.
    config.health.enabled = false;
    config.engine.metrics = false;
    config.gpu.mode = GpuMode::Off;
    config
}

impl Proxy {
    /// Starts with [`config`] as it is.
    pub fn start(upstream: SocketAddr) -> Self {
        Self::with(upstream, |_| {})
    }

    /// Starts with [`config`], changed.
    pub fn with(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(upstream);
        change(&mut config);
        Self {
            app: App::start(config, String::new()).expect("the proxy starts"),
        }
    }

    /// Starts with [`config`], changed, and upstreams that come and go.
    pub fn following(
        upstream: SocketAddr,
        changes: tokio::sync::mpsc::UnboundedReceiver<tokenglass::poll::Change>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config(upstream);
        change(&mut config);
        Self {
            app: App::following(config, String::new(), changes).expect("the proxy starts"),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.app.data()
    }

    pub fn admin(&self) -> SocketAddr {
        self.app.admin()
    }

    /// The families, which outlive it.
    pub fn shared_metrics(&self) -> std::sync::Arc<tokenglass::metrics::Metrics> {
        std::sync::Arc::clone(self.app.metrics())
    }

    pub fn into_app(self) -> App {
        self.app
    }

    /// The exposition as it is now.
    pub fn metrics(&self) -> Metrics {
        let text = self.app.metrics().render();
        Metrics(String::from_utf8(text).expect("metrics are UTF-8"))
    }

    /// Waits until `ready` holds of the metrics: some are counted a moment after the client has seen the end.
    #[track_caller]
    pub fn wait_metrics(&self, what: &str, ready: impl Fn(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let metrics = self.metrics();
            if ready(&metrics) {
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "never: {what}\n{}",
                metrics.non_zero()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// One scrape.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of all series of `name` (a family, or `…_count`, `…_sum`) whose labels contain each of `labels`, which
    /// are written `key="value"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.0
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (family, rest) = series.split_once('{').unwrap_or((series, ""));
                let all = labels.iter().all(|label| rest.contains(label));
                (family == name && all).then(|| value.parse::<f64>().expect("a number"))
            })
            .sum()
    }

    /// [`Metrics::sum`] of a counter or count, whole.
    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Requests by their end, over all labels: (success, error, cancelled).
    pub fn outcomes(&self) -> (u64, u64, u64) {
        (
            self.count("vllm_request_success_total", &[]),
            self.count("vllm_request_error_total", &[]),
            self.count("vllm_request_cancelled_total", &[]),
        )
    }

    /// What is worth reading when a test fails.
    pub fn non_zero(&self) -> String {
        self.0
            .lines()
            .filter(|line| {
                !line.starts_with('#') && !line.contains("_bucket{") && !line.ends_with(" 0")
            })
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

/// Sends `bytes` on a new connection and reads until the peer closes (or `limit` passes). The second part says whether
/// the end was a tidy FIN (`true`) or a reset.
pub fn exchange(to: SocketAddr, bytes: &[u8], limit: Duration) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(to).expect("connects");
    stream.set_nodelay(true).expect("nodelay");
    // A peer that refuses early may close before all is written.
    let _ = stream.write_all(bytes);
    read_to_end(&mut stream, limit)
}

/// Reads until the peer closes or `limit` passes.
pub fn read_to_end(stream: &mut TcpStream, limit: Duration) -> (Vec<u8>, bool) {
    let deadline = Instant::now() + limit;
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "still open after {limit:?}: {}",
            all.escape_ascii()
        );
        stream.set_read_timeout(Some(left)).expect("timeout");
        match stream.read(&mut buffer) {
            Ok(0) => return (all, true),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_reset) => return (all, false),
        }
    }
}

/// Reads one whole message (head, and body by `content-length` or chunks) from a connection that stays open.
pub fn read_message(stream: &mut TcpStream) -> Message {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(message) = Message::parse(&bytes)
            && message.complete
        {
            return message;
        }
        let n = stream.read(&mut buffer).expect("a whole answer");
        assert!(n > 0, "closed inside a message: {}", bytes.escape_ascii());
        bytes.extend_from_slice(&buffer[..n]);
    }
}

/// A response as it was on the wire.
#[derive(Debug)]
pub struct Message {
    pub status: u16,
    pub reason: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Without chunk framing.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
    /// The framing says that nothing is missing. (A body without length is never complete in this sense.)
    pub complete: bool,
}

impl Message {
    /// `None` while the head is incomplete.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = find(bytes, b"\r\n\r\n")? + 4;
        let mut lines = bytes[..end - 4]
            .split(|b| *b == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = String::from_utf8_lossy(lines.next()?).into_owned();
        let status = first.get(9..12)?.parse().ok()?;
        let reason = first.get(13..).unwrap_or_default().to_owned();
        let headers = lines.map(header).collect::<Vec<_>>();
        let mut message = Self {
            status,
            reason,
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
            complete: false,
        };
        let rest = &bytes[end..];
        if message
            .all("transfer-encoding")
            .iter()
            .any(|v| v.eq_ignore_ascii_case(b"chunked"))
        {
            message.dechunk(rest);
        } else if let Some(length) = message.get("content-length") {
            let length: usize = length.parse().ok()?;
            message.body = rest[..length.min(rest.len())].to_vec();
            message.complete = rest.len() >= length;
        } else {
            message.body = rest.to_vec();
            message.complete = matches!(status, 204 | 304);
        }
        Some(message)
    }

    fn dechunk(&mut self, mut rest: &[u8]) {
        while let Some(line) = find(rest, b"\r\n") {
            let size = String::from_utf8_lossy(&rest[..line]);
            let Ok(size) =
                usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            else {
                return;
            };
            rest = &rest[line + 2..];
            if size == 0 {
                if let Some(end) = find(rest, b"\r\n\r\n") {
                    self.trailers = rest[..end]
                        .split(|b| *b == b'\n')
                        .map(|l| header(l.strip_suffix(b"\r").unwrap_or(l)))
                        .collect();
                    self.complete = true;
                } else {
                    self.complete = rest.starts_with(b"\r\n");
                }
                return;
            }
            self.body.extend_from_slice(&rest[..size.min(rest.len())]);
            let Some(next) = rest.get(size + 2..) else {
                return;
            };
            rest = next;
        }
    }

    pub fn get(&self, name: &str) -> Option<String> {
        self.all(name)
            .first()
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| &v[..])
            .collect()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.body.escape_ascii()))
    }
}

fn header(line: &[u8]) -> (String, Vec<u8>) {
    let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
    let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
    let value = line
        .get(colon + 1..)
        .unwrap_or_default()
        .trim_ascii()
        .to_vec();
    (name, value)
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// A chat request as bytes.
pub fn chat(extra_headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: vllm\r\ncontent-type: application/json\r\n{extra_headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The usual body of [`chat`].
pub const STREAM: &str = r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}],"max_tokens":8,"stream":true,"stream_options":{"include_usage":true}}"#;

/// A tokio runtime for one test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}
