//! One who reads tokenglass's metrics while it is measured, as a Prometheus does: at the beginning of every other second, so
//! that the seconds between show what the same machine does in the same minute without.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::client::Tally;
use super::measure::percentile;
use super::scenario::KEY;
use crate::http1::{Conn, ResponseHead};
use crate::net::Socket;

/// Models that are asked before it begins, once with a stream and once without: so that a scrape has what a large
/// deployment's has.
pub(crate) const MODELS: usize = 100;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Scrape {
    /// In the window.
    pub(crate) scrapes: u64,
    /// The longest of them took.
    pub(crate) longest_ms: f64,
    /// One of them, as text and as it goes over the wire.
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
    pub(crate) gzip_bytes: usize,
    /// The 99th percentile of the frames' delays, µs, of each whole second with a scrape, and of each without.
    pub(crate) with: Vec<f64>,
    pub(crate) without: Vec<f64>,
}

/// Reads every other second.
#[derive(Debug)]
pub(crate) struct Scraper {
    admin: SocketAddr,
    seen: RefCell<Scrape>,
    seconds: RefCell<Seconds>,
    trouble: RefCell<Option<String>>,
}

/// Where in the delays that a tally keeps each second begins, and whether a scrape does too.
#[derive(Debug, Default)]
struct Seconds(Vec<(usize, bool)>);

/// A connection that is kept.
#[derive(Debug)]
struct Reader {
    admin: SocketAddr,
    conn: Option<Conn>,
}

pub(crate) const EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The proxy asks for the models every 5 s; a stream at a frame a second takes four.
const KNOWN: Duration = Duration::from_secs(30);
/// Enough for times between tokens.
const FRAMES: u32 = 4;
/// What a Prometheus 3 sends.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

// === impl Scraper ===

impl Scraper {
    /// Has all models asked through `proxy`, as soon as it knows them.
    pub(crate) async fn prepare(proxy: SocketAddr, admin: SocketAddr) -> anyhow::Result<Rc<Self>> {
        let mut reader = Reader::new(admin);
        let last = format!("\"m-{}\"", MODELS - 1);
        reader.wait_until_it_has(&[format!("id={last}")]).await?;
        let mut asking = JoinSet::new();
        for model in 0..MODELS {
            asking.spawn(async move {
                let mut conn = connect(proxy).await?;
                for stream in [true, false] {
                    let request = question(&format!("m-{model}"), stream);
                    exchange(&mut conn, request.as_bytes()).await?;
                }
                io::Result::Ok(())
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked?.context("a model could not be asked")?;
        }
        let labels = (0..MODELS).map(|model| format!("model=\"m-{model}\""));
        reader
            .wait_until_it_has(&labels.collect::<Vec<_>>())
            .await?;
        Ok(Rc::new(Self {
            admin,
            seen: RefCell::default(),
            seconds: RefCell::default(),
            trouble: RefCell::default(),
        }))
    }

    /// Reads until it is dropped, and counts while `tally` keeps times.
    pub(crate) async fn run(self: Rc<Self>, tally: Rc<Tally>) {
        let mut reader = Reader::new(self.admin);
        let mut due = tokio::time::interval(EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for asks in [true, false].into_iter().cycle() {
            due.tick().await;
            if tally.keep.get() {
                let so_far = tally.delay.borrow().len();
                self.seconds.borrow_mut().0.push((so_far, asks));
            }
            if !asks {
                continue;
            }
            let start = Instant::now();
            match reader.get(true).await {
                Ok(_) if tally.keep.get() => {
                    let mut seen = self.seen.borrow_mut();
                    seen.scrapes += 1;
                    seen.longest_ms = seen.longest_ms.max(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok(_) => {}
                Err(error) => {
                    let mut trouble = self.trouble.borrow_mut();
                    trouble.get_or_insert_with(|| format!("a scrape failed: {error}"));
                }
            }
        }
    }

    /// What there was, with the size of one more. `delays` are those that the tally has kept, in their order.
    pub(crate) async fn seen(&self, delays: &[f32]) -> anyhow::Result<Scrape> {
        if let Some(trouble) = self.trouble.take() {
            anyhow::bail!(trouble);
        }
        let mut reader = Reader::new(self.admin);
        let (text, packed) = (reader.get(false).await?, reader.get(true).await?);
        let seconds = self.seconds.borrow();
        Ok(Scrape {
            lines: memchr::memchr_iter(b'\n', &text).count(),
            bytes: text.len(),
            gzip_bytes: packed.len(),
            with: seconds.p99(true, delays),
            without: seconds.p99(false, delays),
            ..self.seen.take()
        })
    }
}

// === impl Seconds ===

impl Seconds {
    /// Of the whole ones; behind the last beginning there is none.
    fn p99(&self, with: bool, delays: &[f32]) -> Vec<f64> {
        let whole = self.0.windows(2).filter(|two| two[0].1 == with);
        whole
            .filter_map(|two| delays.get(two[0].0..two[1].0))
            .map(|delays| percentile(&mut delays.to_vec(), 0.99))
            .collect()
    }
}

// === impl Reader ===

impl Reader {
    const fn new(admin: SocketAddr) -> Self {
        Self { admin, conn: None }
    }

    async fn get(&mut self, gzip: bool) -> io::Result<Vec<u8>> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => connect(self.admin).await?,
        };
        let encoding = if gzip { "gzip" } else { "identity" };
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: {}\r\nuser-agent: Prometheus/3.5.0\r\naccept: {ACCEPT}\r\naccept-encoding: {encoding}\r\nx-prometheus-scrape-timeout-seconds: 10\r\n\r\n",
            self.admin
        );
        let (body, keep) = exchange(&mut conn, request.as_bytes()).await?;
        if gzip && !body.starts_with(b"\x1f\x8b") {
            return Err(bad("gzip was asked for and did not come"));
        }
        self.conn = keep.then_some(conn);
        Ok(body)
    }

    async fn wait_until_it_has(&mut self, all: &[String]) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let text = self.get(false).await?;
            let missing = |what: &&String| memchr::memmem::find(&text, what.as_bytes()).is_none();
            let Some(missing) = all.iter().find(missing) else {
                return Ok(());
            };
            anyhow::ensure!(start.elapsed() < KNOWN, "/metrics never had {missing}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn question(model: &str, stream: bool) -> String {
    let body = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}],"max_tokens":{FRAMES},"stream":{stream}}}"#
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: vllm\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn connect(addr: SocketAddr) -> io::Result<Conn> {
    Ok(Conn::new(Socket::tcp(TcpStream::connect(addr).await?)))
}

/// The body of a 200, and whether the connection can be used again.
async fn exchange(conn: &mut Conn, request: &[u8]) -> io::Result<(Vec<u8>, bool)> {
    let exchange = async {
        let gone = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
        conn.write_all(request).await.map_err(gone)?;
        let head = loop {
            let parsed = ResponseHead::parse(&conn.buf).map_err(|error| bad(&error.to_string()))?;
            if let Some((head, length)) = parsed {
                conn.buf.drain(..length);
                break head;
            }
            conn.fill().await.map_err(gone)?;
        };
        let mut body = Vec::new();
        if !conn
            .read_body(head.body_kind(), &mut body)
            .await
            .map_err(gone)?
        {
            return Err(bad("a body that is not HTTP"));
        }
        match head.status {
            200 => Ok((body, !head.will_close())),
            status => Err(bad(&format!("status {status}"))),
        }
    };
    let answer = tokio::time::timeout(TIMEOUT, exchange).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers each request of one connection with the next of these.
    async fn served(answers: Vec<&'static [u8]>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut asked, mut buffer) = (String::new(), [0; 4096]);
            for answer in answers {
                let read = socket.read(&mut buffer).await.unwrap();
                asked.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                socket.write_all(answer).await.unwrap();
            }
            asked
        });
        (addr, asked)
    }

    #[tokio::test]
    async fn a_scrape_is_counted_and_its_connection_kept() {
        let (admin, asked) = served(vec![
            b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\na 1\nb 2\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\x1f\x8b!",
        ])
        .await;
        let scraper = Scraper {
            admin,
            seen: RefCell::default(),
            seconds: RefCell::new(Seconds(vec![(0, true), (2, false), (3, true)])),
            trouble: RefCell::default(),
        };
        let seen = scraper.seen(&[5.0, 1.0, 7.0, 9.0]).await.unwrap();
        assert_eq!((seen.with, seen.without), (vec![5.0], vec![7.0]));
        assert_eq!((seen.lines, seen.bytes, seen.gzip_bytes), (2, 8, 3));
        let asked = asked.await.unwrap();
        assert!(asked.contains("accept-encoding: identity\r\n"), "{asked}");
        assert!(asked.contains("accept-encoding: gzip\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn what_is_no_scrape_is_said_to_be_none() {
        for (answer, said) in [
            (
                &b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"[..],
                "status 503",
            ),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na 1", "gzip"),
            (b"nonsense\r\n\r\n", "invalid"),
        ] {
            let (admin, _asked) = served(vec![answer]).await;
            let mut reader = Reader::new(admin);
            let error = reader.get(true).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn questions_are_json_of_their_length() {
        let request = question("m-7", true);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["model"], &body["stream"]),
            (&"m-7".into(), &true.into())
        );
    }
}
