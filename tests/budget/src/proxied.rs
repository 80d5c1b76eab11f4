//! The whole data path: a client, the proxy and an origin on one thread, joined by loopback sockets.
//!
//! In lock-step, so that it runs the same way every time: nobody writes before what was written last has arrived, so
//! there is never more than one socket with something to say, and never a choice. What the two ends cost themselves is
//! in the count; `peers` is it alone.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokenglass::config::{Config, UpstreamUrl};
use tokenglass::drain;
use tokenglass::gateway::{Balance, Registry};
use tokenglass::listen::Downstream;
use tokenglass::listen::conn::Http;
use tokenglass::poll::Model;
use tokenglass::proxy::{Backend, Proxy};
use tokenglass::task::Tasks;
use tokenglass::upstream::{Connector, OpenConnections, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use crate::capture::Capture;
use crate::observed::{TEXT, books, frames, metrics, recorder};

/// What stands between the client and the origin.
#[derive(Clone, Copy)]
pub(crate) enum Between {
    /// The proxy, as it is shipped.
    Observing,
    /// The proxy with `observe.enabled = false`.
    Blind,
    /// The proxy in front of six upstreams, all of which are the origin under other addresses.
    Sharing,
    /// Nothing.
    Nothing,
}

/// Upstreams of a gateway.
const UPSTREAMS: u8 = 6;

/// One stream, of which every frame is a write of its own.
pub(crate) fn stream(between: Between, n: usize) {
    let capture = Capture::read("chat-stream-usage");
    run(async {
        let chunks: Vec<_> = capture.events().iter().map(chunk).collect();
        let mut ends = Ends::new(between, &capture).await;
        ends.ask().await;
        ends.answer(&head(&capture)).await;
        for frame in frames(&chunks, TEXT, n) {
            ends.answer(&frame).await;
        }
        ends.answer(b"0\r\n\r\n").await;
    });
}

/// Requests on one connection, each answered in one write.
pub(crate) fn requests(between: Between, name: &str, n: usize) {
    let capture = Capture::read(name);
    run(async {
        let mut ends = Ends::new(between, &capture).await;
        let mut wire = head(&capture);
        if capture.head.headers.contains_key("content-length") {
            wire.extend_from_slice(&capture.body);
        } else {
            for event in &capture.events() {
                wire.extend(chunk(event));
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        }
        for _ in 0..n {
            ends.ask().await;
            ends.answer(&wire).await;
        }
    });
}

fn run(scenario: impl Future<Output = ()>) {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(LocalOptions::default());
    runtime.unwrap().block_on(scenario);
}

fn chunk(data: &Bytes) -> Bytes {
    let size = format!("{:x}\r\n", data.len());
    [size.as_bytes(), data, b"\r\n"].concat().into()
}

/// A client and an origin, and what is between them.
struct Ends {
    client: TcpStream,
    listener: TcpListener,
    /// That which the last request has come to.
    origin: Option<TcpStream>,
    /// Of a gateway, the others.
    others: Vec<TcpStream>,
    several: bool,
    request: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Ends {
    async fn new(between: Between, capture: &Capture) -> Self {
        let several = matches!(between, Between::Sharing);
        let here = if several { "0.0.0.0:0" } else { "127.0.0.1:0" };
        let listener = TcpListener::bind(here).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = match between {
            Between::Observing => proxied(port, true, false).await,
            Between::Blind => proxied(port, false, false).await,
            Between::Sharing => proxied(port, true, true).await,
            Between::Nothing => TcpStream::connect(("127.0.0.1", port)).await.unwrap(),
        };
        client.set_nodelay(true).unwrap();
        // Always the same length, whatever the port.
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: OpenAI/Python 2.8.1\r\n\
             Accept: application/json\r\nAccept-Encoding: identity\r\nAuthorization: Bearer some-secret-key\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            capture.asked.len()
        );
        Self {
            client,
            listener,
            origin: None,
            others: Vec::new(),
            several,
            request: [head.as_bytes(), &capture.asked].concat(),
            buffer: vec![0; 64 << 10].into(),
        }
    }

    /// The client asks, and the origin has it all.
    async fn ask(&mut self) {
        self.client.write_all(&self.request).await.unwrap();
        if self.several {
            self.others.extend(self.origin.take());
            self.origin = Some(self.turn().await);
        }
        let origin = match &mut self.origin {
            Some(origin) => origin,
            empty => {
                let (origin, _) = self.listener.accept().await.unwrap();
                origin.set_nodelay(true).unwrap();
                empty.insert(origin)
            }
        };
        pass(origin, &mut self.buffer, &self.request).await;
    }

    /// The connection on which the request comes.
    async fn turn(&mut self) -> TcpStream {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(accepted) = self.listener.poll_accept(cx) {
                let (origin, _) = accepted.unwrap();
                origin.set_nodelay(true).unwrap();
                return Poll::Ready(origin);
            }
            let mut others = self.others.iter();
            let ready = others.position(|origin| origin.poll_read_ready(cx).is_ready());
            ready.map_or(Poll::Pending, |at| Poll::Ready(self.others.swap_remove(at)))
        })
        .await
    }

    /// The origin says this, and the client has it.
    async fn answer(&mut self, wire: &[u8]) {
        let origin = self.origin.as_mut().unwrap();
        origin.write_all(wire).await.unwrap();
        pass(&mut self.client, &mut self.buffer, wire).await;
    }
}

/// The head of the answer.
fn head(capture: &Capture) -> Vec<u8> {
    let mut wire = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in &capture.head.headers {
        wire.extend_from_slice(name.as_str().as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value.as_bytes());
        wire.extend_from_slice(b"\r\n");
    }
    if !capture.head.headers.contains_key("content-length") {
        wire.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

/// Reads until what was `sent` is there. Between the two it may have been framed anew, but it ends the same.
async fn pass(to: &mut TcpStream, buffer: &mut [u8], sent: &[u8]) {
    let end = &sent[sent.len() - sent.len().min(16)..];
    let mut length = 0;
    while !buffer[..length].ends_with(end) {
        let read = to.read(&mut buffer[length..]).await.unwrap();
        assert!(read > 0, "closed");
        length += read;
    }
}

/// A connection to a proxy before that port, put together as a worker does it.
async fn proxied(port: u16, observe: bool, several: bool) -> TcpStream {
    let mut config = Config::default();
    let url = |last: u8| UpstreamUrl::Http {
        host: format!("127.0.0.{last}"),
        port,
    };
    config.upstream.urls = (1..=if several { UPSTREAMS } else { 1 }).map(url).collect();
    // It is slow here.
    config.upstream.pool_idle_timeout = Duration::from_secs(600);
    let timeout = config.upstream.connect_timeout;
    let connector = |url: &UpstreamUrl| {
        Connector::new(url.clone(), timeout, None, OpenConnections::default()).unwrap()
    };
    let metrics = metrics(&config);
    let recorder = observe.then(|| recorder(&config, &metrics));
    let backend = if several {
        let registry = Registry::new(&config, &metrics);
        for url in &config.upstream.urls {
            let known = metrics.polled.add(url.to_string());
            let member = registry.insert(connector(url), known);
            let list = Bytes::from_static(b"{\"data\":[{\"id\":\"tiny\"}]}");
            member.lists(&[tiny()], &list);
        }
        Backend::Several(Balance::new(0, registry, &config))
    } else {
        let upstream = Upstream::new(connector(&url(1)), &config.upstream);
        let books = observe.then(|| books(&metrics));
        Backend::One { upstream, books }
    };
    let tasks = Rc::new(Tasks::default());
    let proxy = Proxy::new(&config, backend, recorder, Rc::clone(&tasks));
    let http = Http::new(&config.server);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    accepted.set_nodelay(true).unwrap();
    let (trigger, drain) = drain::channel();
    tasks.spawn(async move {
        // Without it the proxy would think that its end has come.
        let _running = trigger;
        let io = Downstream::plain(accepted, http.limits());
        http.serve(io, proxy, drain).await;
    });
    client
}

/// The model that the recorded requests ask for.
fn tiny() -> Model {
    Model {
        id: "tiny".to_owned(),
        owned_by: String::new(),
        root: String::new(),
        adapter: false,
        max_model_len: None,
    }
}
