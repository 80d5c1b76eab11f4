//! The upstream leg: connect, pool, send one HTTP/1.1 request, read its response.
//!
//! Our own, rather than hyper's client, for what one frame costs: hyper makes every HTTP chunk a frame of its own and
//! hands it from the connection's task to the body's; here all chunks that one read brought become one frame, in the
//! task that serves the client. Nothing waits for more than what has arrived. Framing follows RFC 9112 §6 and, where
//! that leaves a choice, hyper's client, which the tests hold it against.
//!
//! One [`Upstream`] belongs to one worker thread: no lock, and both sides of a request live on one core.

mod body;
mod chunked;
mod connect;
mod error;
mod framing;
mod head;
mod pool;
mod send;
mod stream;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, response};
use http_body::Body;

pub use body::UpstreamBody;
pub use connect::{Connector, TlsError};
pub use error::{Error, Stage};
pub use stream::{Stream, Tunnel};

use crate::config::UpstreamUrl;
use body::Incoming;
pub use head::Informational;
use pool::Pool;
use send::Sending;

/// Bytes that one read of an upstream socket may bring. One buffer of this size serves all streams of a worker, so
/// that an idle stream holds none.
const READ_BUFFER: usize = 64 * 1024;

/// One upstream as one worker sees it.
#[derive(Debug)]
pub struct Upstream {
    connector: Connector,
    pool: RefCell<Pool>,
    scratch: RefCell<Box<[u8]>>,
    head_timeout: Option<Duration>,
}

/// Open connections of all workers to all upstreams: the value of `tokenglass_upstream_connections`.
#[derive(Clone, Debug, Default)]
pub struct OpenConnections(Arc<AtomicI64>);

/// What the caller wants to know while it waits.
pub trait Events {
    /// A 1xx other than 101 has come.
    fn informational(&mut self, head: &Informational);
}

/// The answer's head, and the body to come.
#[derive(Debug)]
pub struct Answer<B> {
    /// Status and headers, hop-by-hop headers removed; for a 101 `upgrade` and `connection` are kept.
    pub head: response::Parts,
    /// The body.
    pub body: UpstreamBody<B>,
    /// When the last byte of the request head was written.
    pub head_sent: Instant,
    /// When the response head was complete.
    pub head_received: Instant,
}

/// A request that can be tried at one upstream after the other, as long as that runs nothing twice.
#[derive(Debug)]
pub struct Outgoing<B>(Sending<B>);

/// A response head that has come, of which nobody knows yet whether it is the answer.
#[derive(Debug)]
pub struct Answered {
    incoming: Incoming,
    /// As in [`Answer`].
    pub head: response::Parts,
    received: Instant,
}

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// `keep`: so many bytes of its body are kept while it is tried.
    ///
    /// # Errors
    /// If it cannot be expressed in HTTP/1.1.
    pub fn new(request: Request<B>, keep: usize) -> Result<Self, Error> {
        let mut sending = Sending::new(request)?;
        sending.keep(keep);
        Ok(Self(sending))
    }

    /// Whether any byte of it has reached a socket at the last attempt.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.0.has_written()
    }

    /// When the last byte of its head was written.
    #[must_use]
    pub fn head_sent(&self) -> Option<Instant> {
        self.0.head_sent()
    }

    /// Whether [`Outgoing::rewind`] would do it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.0.has_written() || self.0.is_kept()
    }

    /// Makes it ready to be sent from its beginning, whatever has been written. False if a part of it is gone. Whether it is
    /// right to send it again is for the caller to know.
    pub fn rewind(&mut self) -> bool {
        self.0.rewind() || self.0.replay()
    }
}

impl Answered {
    /// It is the answer.
    #[must_use]
    pub fn with<B>(self, from: &Rc<Upstream>, outgoing: Outgoing<B>) -> Answer<B>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Outgoing(mut sending) = outgoing;
        sending.settle();
        Answer {
            head: self.head,
            head_sent: sending.head_sent().unwrap_or(self.received),
            head_received: self.received,
            body: UpstreamBody::new(Rc::clone(from), self.incoming, sending),
        }
    }

    /// When it had come.
    #[must_use]
    pub fn received(&self) -> Instant {
        self.received
    }
}

impl Upstream {
    /// An upstream with an empty pool.
    #[must_use]
    pub fn new(connector: Connector, settings: &crate::config::Upstream) -> Rc<Self> {
        Rc::new(Self {
            connector,
            pool: RefCell::new(Pool::new(
                settings.pool_max_idle,
                settings.pool_idle_timeout,
            )),
            scratch: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            head_timeout: settings.head_timeout,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &UpstreamUrl {
        self.connector.url()
    }

    /// Closes pooled connections that have idled too long. To be called about once a second: upstream would close
    /// them itself soon after, and a request that meets that close is lost.
    pub fn reap(&self) {
        self.pool.borrow_mut().reap(Instant::now());
    }

    /// Whether the next request may go over a connection that has been used before.
    #[must_use]
    pub fn has_idle(&self) -> bool {
        !self.pool.borrow().is_empty()
    }

    /// Closes the pooled connections: the next request has a new one.
    pub fn close_idle(&self) {
        self.pool.borrow_mut().clear();
    }

    /// Sends `request` and waits for the response head.
    ///
    /// The body is sent while the response is awaited and goes on being sent while the response body is read, so an
    /// early answer (413, 401) arrives although the body does not.
    ///
    /// # Errors
    /// [`Error`], whose stage and kind say what the client is to be told. The request is tried a second time on a new
    /// connection only if a pooled one refused the very first byte: then upstream cannot have seen any of it. Anything
    /// more would risk running a prompt twice (RFC 9110 §9.2.2).
    pub async fn send<B>(
        self: &Rc<Self>,
        request: Request<B>,
        events: &mut dyn Events,
    ) -> Result<Answer<B>, Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut outgoing = Outgoing(Sending::new(request)?);
        let answered = self.attempt(&mut outgoing, events).await?;
        Ok(answered.with(self, outgoing))
    }

    /// Sends a request that is not lost if this fails, and waits for the response head. Else as [`Upstream::send`].
    ///
    /// # Errors
    /// [`Error`]; [`Outgoing::rewind`] says whether the request may be tried elsewhere.
    pub async fn attempt<B>(
        &self,
        Outgoing(sending): &mut Outgoing<B>,
        events: &mut dyn Events,
    ) -> Result<Answered, Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let pooled = self.pool.borrow_mut().take(Instant::now());
        let answered = if let Some(stream) = pooled {
            match self.exchange(stream, sending, events).await {
                Err(error) if error.nothing_was_sent() && sending.rewind() => {
                    let stream = self.connector.connect().await?;
                    self.exchange(stream, sending, events).await?
                }
                other => other?,
            }
        } else {
            let stream = self.connector.connect().await?;
            self.exchange(stream, sending, events).await?
        };
        Ok(answered)
    }

    async fn exchange<B>(
        &self,
        stream: Stream,
        sending: &mut Sending<B>,
        events: &mut dyn Events,
    ) -> Result<Answered, Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut incoming = Incoming::new(stream, sending.method().clone());
        let mut timer = None;
        let head = std::future::poll_fn(|cx| {
            let polled = incoming.poll_head(cx, sending, &mut self.scratch.borrow_mut(), events);
            if polled.is_ready() {
                return polled;
            }
            let Some(limit) = self.head_timeout.filter(|_| sending.is_over()) else {
                // While the client sends, upstream has nothing to answer.
                return Poll::Pending;
            };
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            ready!(timer.as_mut().poll(cx));
            Poll::Ready(Err(Error::HeadTimeout(limit)))
        });
        let head = head.await?;
        Ok(Answered {
            incoming,
            head,
            received: Instant::now(),
        })
    }

    /// Takes a connection back whose exchange has ended cleanly.
    fn keep(&self, stream: Stream) {
        self.pool.borrow_mut().put(stream, Instant::now());
    }
}

impl OpenConnections {
    /// How many are open now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn guard(&self) -> ConnectionGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(&self.0))
    }
}

/// Decodes a whole chunked body in place: how long it is then. For the benchmarks alone.
#[doc(hidden)]
#[must_use]
pub fn decode_chunked(wire: &mut [u8]) -> usize {
    let decoded = chunked::Chunked::new().decode(wire);
    decoded.map_or(0, |decoded| decoded.data)
}

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Arc<AtomicI64>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
