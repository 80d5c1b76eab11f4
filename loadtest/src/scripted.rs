//! A server lower than HTTP: it plays steps on each connection and records what came.
//!
//! Tests replay recorded bytes through it, whole, byte by byte or at any split.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::http1::{Conn, PeerGone, RequestHead};
use crate::net::{Listen, Listener, Socket};

/// One thing to do on a connection.
#[derive(Clone, Debug)]
pub enum Step {
    /// Read up to the empty line that ends a request's head.
    ReadHead,
    /// Read this many bytes more.
    ReadBody(usize),
    /// Read the body that the last head declares, by length or chunks.
    ReadDeclaredBody,
    /// Write.
    Write(Bytes),
    /// Write in pieces of these sizes, each its own write with a yield behind it, so that it can be read alone; the
    /// rest, if the sizes do not cover it, in one.
    WriteSplit {
        /// What to write.
        bytes: Bytes,
        /// The sizes of the pieces.
        sizes: Vec<usize>,
    },
    /// Wait this many milliseconds.
    Sleep(u64),
    /// Start again with the first step, for the next request on the connection.
    Repeat,
    /// Close with FIN.
    Close,
    /// Close with RST.
    Reset,
    /// Wait until the peer closes, at most this long, and go on either way.
    WaitClose(Duration),
}

/// What a connection brought.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Every byte, in order.
    pub bytes: Vec<u8>,
    /// When the peer was seen to have closed or reset.
    pub peer_closed: Option<Instant>,
    /// Whether all steps have been played, or could not be because the peer left.
    pub finished: bool,
}

/// The server. Dropping it stops it.
#[derive(Debug)]
pub struct RawServer {
    addr: Option<SocketAddr>,
    log: Arc<Log>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Log {
    connections: Mutex<Vec<Received>>,
    changed: Notify,
}

/// A connection being played.
struct Player {
    conn: Conn,
    log: Arc<Log>,
    index: usize,
    /// The body that the last head declared.
    declared: Option<RequestHead>,
    /// How much of `conn.buf` has been logged.
    logged: usize,
}

// === impl RawServer ===

impl RawServer {
    /// Plays `script` on every connection, on a free port of the loopback.
    ///
    /// # Errors
    /// If no port can be bound.
    pub fn start(script: Vec<Step>) -> io::Result<Self> {
        Self::with(
            &Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            vec![script],
        )
    }

    /// Plays the first script on the first connection and so on, the last one on all that follow.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn with(listen: &Listen, scripts: Vec<Vec<Step>>) -> io::Result<Self> {
        let listener = Listener::bind(listen, false)?;
        let addr = listener.addr();
        let log = Arc::new(Log::default());
        let task = tokio::spawn(accept(listener, scripts, Arc::clone(&log)));
        Ok(Self { addr, log, task })
    }

    /// The address bound; unspecified with port 0 for a Unix socket.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// What came so far, a connection each, in the order of their arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.log.with(|connections| connections.clone())
    }

    /// Waits until `n` connections have played their scripts; false if `timeout` comes first.
    pub async fn wait_finished(&self, n: usize, timeout: Duration) -> bool {
        self.wait(timeout, |connections| {
            connections.iter().filter(|c| c.finished).count() >= n
        })
        .await
    }

    /// Waits until `met` holds of the connections so far; false if `timeout` comes first.
    pub async fn wait(&self, timeout: Duration, met: impl Fn(&[Received]) -> bool) -> bool {
        let reached = async {
            loop {
                let changed = self.log.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.log.with(|connections| met(connections)) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(timeout, reached).await.is_ok()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: Listener, scripts: Vec<Vec<Step>>, log: Arc<Log>) {
    let mut connections = JoinSet::new();
    let mut index = 0;
    loop {
        let socket = listener.accept().await;
        let script = scripts.get(index).or_else(|| scripts.last());
        let player = Player::new(socket, Arc::clone(&log), index);
        connections.spawn(player.run(script.cloned().unwrap_or_default()));
        index += 1;
    }
}

// === impl Log ===

impl Log {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Received>) -> T) -> T {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        act(&mut connections)
    }
}

// === impl Player ===

impl Player {
    fn new(socket: Socket, log: Arc<Log>, index: usize) -> Self {
        log.with(|connections| connections.push(Received::default()));
        log.changed.notify_waiters();
        Self {
            conn: Conn::new(socket),
            log,
            index,
            declared: None,
            logged: 0,
        }
    }

    async fn run(mut self, script: Vec<Step>) {
        let mut at = 0;
        let mut reset = false;
        while let Some(step) = script.get(at) {
            at += 1;
            match step {
                Step::Repeat => at = 0,
                Step::Close => break,
                Step::Reset => {
                    reset = true;
                    break;
                }
                step => {
                    if self.step(step).await.is_err() {
                        self.update(|c| {
                            c.peer_closed.get_or_insert_with(Instant::now);
                        });
                        break;
                    }
                }
            }
        }
        self.log_ahead();
        let Self {
            conn, log, index, ..
        } = self;
        if reset {
            conn.reset()
        } else {
            conn.close()
        }
        log.with(|connections| connections[index].finished = true);
        log.changed.notify_waiters();
    }

    async fn step(&mut self, step: &Step) -> Result<(), PeerGone> {
        match step {
            Step::ReadHead => {
                loop {
                    // Bytes that are no head are logged all the same, and read on.
                    if let Ok(Some((head, len))) = RequestHead::parse(&self.conn.buf) {
                        self.take(len);
                        self.declared = Some(head);
                        break;
                    }
                    self.fill().await?;
                }
            }
            Step::ReadBody(len) => {
                while self.conn.buf.len() < *len {
                    self.fill().await?;
                }
                self.take(*len);
            }
            Step::ReadDeclaredBody => {
                if let Some(head) = self.declared.take() {
                    self.read_declared(&head).await?;
                }
            }
            Step::Write(bytes) => self.conn.write_all(bytes).await?,
            Step::WriteSplit { bytes, sizes } => {
                let mut rest = &bytes[..];
                for size in sizes {
                    let (piece, after) = rest.split_at((*size).min(rest.len()));
                    self.conn.write_all(piece).await?;
                    tokio::task::yield_now().await;
                    rest = after;
                }
                self.conn.write_all(rest).await?;
            }
            Step::Sleep(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Step::WaitClose(limit) => {
                let gone = tokio::time::timeout(*limit, self.conn.gone()).await;
                self.log_ahead();
                if gone.is_ok() {
                    self.update(|c| c.peer_closed = Some(Instant::now()));
                }
            }
            Step::Repeat | Step::Close | Step::Reset => {}
        }
        self.log_ahead();
        Ok(())
    }

    async fn read_declared(&mut self, head: &RequestHead) -> Result<(), PeerGone> {
        use crate::http1::BodyKind;
        match head.body_kind() {
            BodyKind::Length(len) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                while self.conn.buf.len() < len {
                    self.fill().await?;
                }
                self.take(len);
            }
            // Recorded as they come, so the last chunk is looked for and nothing is decoded.
            BodyKind::Chunked => loop {
                if let Some(end) = memchr::memmem::find(&self.conn.buf, b"0\r\n\r\n") {
                    self.take(end + 5);
                    break;
                }
                self.fill().await?;
            },
            BodyKind::None | BodyKind::UntilClose => {}
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), PeerGone> {
        let filled = self.conn.fill().await;
        self.log_ahead();
        filled.map(drop)
    }

    /// Drops bytes that a step has consumed.
    fn take(&mut self, len: usize) {
        self.log_ahead();
        self.conn.buf.drain(..len);
        self.logged -= len;
    }

    fn log_ahead(&mut self) {
        let new = self.conn.buf[self.logged..].to_vec();
        if !new.is_empty() {
            self.logged = self.conn.buf.len();
            self.update(|c| c.bytes.extend(new));
        }
    }

    fn update(&self, change: impl FnOnce(&mut Received)) {
        self.log
            .with(|connections| change(&mut connections[self.index]));
        self.log.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn a_recording_is_replayed_and_the_request_kept() {
        let recorded = Bytes::from_static(include_bytes!("../tests-data/chat-stream.resp"));
        let split = Step::WriteSplit {
            bytes: recorded.clone(),
            sizes: vec![1; 300],
        };
        let script = vec![Step::ReadHead, Step::ReadBody(2), split, Step::Close];
        let server = RawServer::start(script).unwrap();
        let mut socket = TcpStream::connect(server.addr()).await.unwrap();
        let ask = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
        socket.write_all(ask).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, recorded);
        assert!(server.wait_finished(1, Duration::from_secs(2)).await);
        assert_eq!(server.received()[0].bytes, ask);
    }

    #[tokio::test]
    async fn resets_repeats_and_leaving_peers() {
        let again = vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(Bytes::from_static(b"x")),
            Step::Repeat,
        ];
        let wait = vec![Step::WaitClose(Duration::from_secs(5))];
        let listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let scripts = vec![again, wait, vec![Step::ReadHead, Step::Reset]];
        let server = RawServer::with(&listen, scripts).unwrap();
        let mut first = TcpStream::connect(server.addr()).await.unwrap();
        for _ in 0..2 {
            let ask = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
            first.write_all(ask).await.unwrap();
            assert_eq!(first.read_u8().await.unwrap(), b'x');
        }
        let second = TcpStream::connect(server.addr()).await.unwrap();
        drop(second);
        let gone = |c: &[Received]| c.get(1).is_some_and(|c| c.peer_closed.is_some());
        assert!(server.wait(Duration::from_secs(2), gone).await);
        let mut third = TcpStream::connect(server.addr()).await.unwrap();
        third.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(third.read_u8().await.is_err());
    }
}
