//! The load of a comparison: connections that send, read and check, on one thread and with as little work as goes.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::check::{Check, Framing};
use super::scenario::{Exchange, Scenario};

/// What all connections count together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Frames received.
    pub(crate) frames: Cell<u64>,
    /// Requests answered.
    pub(crate) requests: Cell<u64>,
    /// Answers that are open and have given a frame.
    pub(crate) open: Cell<usize>,
    /// Answers that did not come, or not to their end.
    pub(crate) lost: Cell<u64>,
    /// Answers with other bytes than were sent.
    pub(crate) altered: Cell<u64>,
    /// Nothing further is begun.
    pub(crate) stop: Cell<bool>,
    /// Times are kept only in the window.
    pub(crate) keep: Cell<bool>,
    /// From a request to its first frame, µs. Not at a pace.
    pub(crate) ttft: RefCell<Vec<f32>>,
    /// From a frame's leaving the origin to its arrival, µs.
    pub(crate) delay: RefCell<Vec<f32>>,
    /// The first thing that went wrong.
    pub(crate) trouble: RefCell<Option<String>>,
}

/// Connections at work; gone with the value.
pub(crate) struct Load {
    pub(crate) tally: Rc<Tally>,
    connections: LocalSet,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

thread_local! {
    /// One for all connections: what was read is looked at before the next read.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

const MAX_HEAD: usize = 64 * 1024;

// === impl Load ===

impl Load {
    /// Opens the scenario's connections to `target`, evenly over its ramp.
    pub(crate) fn start(scenario: &Rc<Scenario>, target: SocketAddr) -> Self {
        let (tally, connections) = (Rc::new(Tally::default()), LocalSet::new());
        let tasks = (0..scenario.connections).map(|number| {
            let (tally, scenario) = (Rc::clone(&tally), Rc::clone(scenario));
            connections.spawn_local(async move {
                let share = number as f64 / scenario.connections as f64;
                tokio::time::sleep(scenario.ramp().mul_f64(share)).await;
                client(&scenario, &tally, target, number).await;
            })
        });
        let tasks = tasks.collect();
        Self {
            tally,
            connections,
            tasks,
        }
    }

    /// Has something done beside them, until the end.
    pub(crate) fn beside(&self, work: impl Future<Output = ()> + 'static) {
        self.connections.spawn_local(work);
    }

    /// Lets the connections work until `until` is true, or so long.
    pub(crate) async fn work(&self, limit: Duration, until: impl Fn(&Tally) -> bool) -> bool {
        let waiting = async {
            let start = Instant::now();
            while !until(&self.tally) {
                if start.elapsed() >= limit {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            true
        };
        self.connections.run_until(waiting).await
    }

    /// Closes what is open and gives what was counted.
    pub(crate) fn end(self) -> Rc<Tally> {
        drop(self.connections);
        self.tally
    }

    /// Whether all have ended.
    pub(crate) fn done(&self) -> bool {
        self.tasks.iter().all(tokio::task::JoinHandle::is_finished)
    }
}

// === impl Tally ===

impl Tally {
    pub(crate) fn fail(&self, what: &str) {
        self.lost.set(self.lost.get() + 1);
        self.trouble
            .borrow_mut()
            .get_or_insert_with(|| what.to_owned());
    }
}

/// Requests one after the other on one connection, a new one only if the server has closed it.
async fn client(scenario: &Scenario, tally: &Tally, target: SocketAddr, number: usize) {
    let mut idle = None;
    for turn in 0.. {
        if tally.stop.get() {
            return;
        }
        let mut socket = match idle.take() {
            Some(socket) => socket,
            None => match connect(target).await {
                Ok(socket) => socket,
                Err(error) => {
                    tally.fail(&format!("cannot connect: {error}"));
                    // As often as one can be refused, and no more.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let exchange = scenario.exchange(number, turn);
        match perform(&mut socket, exchange, scenario, tally).await {
            Ok(true) => idle = Some(socket),
            Ok(false) => {}
            Err(error) => {
                tally.fail(&error.to_string());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(target).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// One request and its answer; whether the connection can be used again.
async fn perform(
    socket: &mut TcpStream,
    exchange: &Exchange,
    scenario: &Scenario,
    tally: &Tally,
) -> io::Result<bool> {
    let sent = Instant::now();
    socket.write_all(&exchange.request).await?;
    let mut answer = Answer {
        exchange,
        paced: !scenario.gap.is_zero(),
        tally,
        sent,
        head: Vec::new(),
        keep_alive: true,
        check: None,
    };
    while !answer.ended() {
        read(socket, |bytes| answer.feed(bytes)).await?;
    }
    tally.requests.set(tally.requests.get() + 1);
    Ok(answer.keep_alive)
}

/// An answer on its way in.
struct Answer<'a> {
    exchange: &'a Exchange,
    paced: bool,
    tally: &'a Tally,
    sent: Instant,
    head: Vec<u8>,
    keep_alive: bool,
    check: Option<Check<'a>>,
}

// === impl Answer ===

impl Answer<'_> {
    fn ended(&self) -> bool {
        self.check.as_ref().is_some_and(Check::ended)
    }

    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.check.is_some() {
            self.body(bytes);
            return Ok(());
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else {
            let size = self.head.len();
            return if size > MAX_HEAD {
                Err(bad("a head without an end"))
            } else {
                Ok(())
            };
        };
        let framing = self.parse(end + 4)?;
        self.check = Some(Check::new(&self.exchange.script, framing, self.paced));
        self.body(&bytes[end + 4 - before..]);
        Ok(())
    }

    fn parse(&mut self, end: usize) -> io::Result<Framing> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        head.parse(&self.head[..end])
            .map_err(|error| bad(&error.to_string()))?;
        if head.code != Some(200) {
            return Err(bad(&format!("status {:?}", head.code)));
        }
        let find = |name: &str| {
            let found = head
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        self.keep_alive = find("connection") != Some("close");
        match find("content-length").map(str::parse) {
            Some(Ok(length)) => Ok(Framing::Length(length)),
            None if find("transfer-encoding") == Some("chunked") => Ok(Framing::Chunked),
            _ => Err(bad("a body of unknown length")),
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        let (Some(check), tally) = (&mut self.check, self.tally) else {
            return;
        };
        let (keep, before) = (tally.keep.get(), check.frames);
        let began = check.began();
        check.feed(bytes, |ns| {
            if keep {
                tally.delay.borrow_mut().push(ns as f32 / 1e3);
            }
        });
        tally
            .frames
            .set(tally.frames.get() + (check.frames - before) as u64);
        if check.began() && !began {
            tally.open.set(tally.open.get() + 1);
            // At a pace it is the origin's: a stream waits for its phase.
            if keep && !self.paced {
                let ttft = self.sent.elapsed().as_secs_f32() * 1e6;
                tally.ttft.borrow_mut().push(ttft);
            }
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let (Some(check), tally) = (&self.check, self.tally) else {
            return;
        };
        if check.began() {
            tally.open.set(tally.open.get() - 1);
        }
        // One that we leave open is judged by what has come.
        if check.altered || check.ended() && !check.perfect() {
            tally.altered.set(tally.altered.get() + 1);
        }
    }
}

/// Waits for bytes and shows them to `each`.
async fn read(
    socket: &mut TcpStream,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    std::future::poll_fn(|context| {
        READ.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *socket).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut");
                return Poll::Ready(Err(error));
            }
            Poll::Ready(each(buffer.filled()))
        })
    })
    .await
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
