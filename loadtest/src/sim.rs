//! A scriptable vLLM: it speaks the bytes that a recorded vLLM spoke, and goes wrong on command.
//!
//! How it answers is the server's [`Behaviour`], overridden by a JSON object in a request's `x-sim` header. What it
//! really did is in [`Truth`]. It must not be clever: no batching, no queue, no tokenizer.

mod answer;
mod behaviour;
mod bodies;
mod control;
mod counters;
mod dist;
mod fault;
pub(crate) mod frames;
mod head;
mod job;
mod output;
mod serve;
mod stream;
#[cfg(test)]
mod tests;
mod truth;
mod websocket;
mod whole;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

pub use crate::net::Listen;
pub use behaviour::{Behaviour, ReasoningField, Split, UsageMode};
pub use control::Control;
pub use dist::Dist;
pub use fault::{ErrorShape, Fault};
pub use truth::{Entry, Truth, TruthEnd};

use crate::http1::RequestHead;
use crate::net::{BACKLOG, Listener};
use counters::Counters;

/// How to run a simulator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where.
    pub listen: Listen,
    /// The models served; any other is answered with 404.
    pub models: Vec<String>,
    /// The default behaviour.
    pub behaviour: Behaviour,
    /// For everything that is drawn.
    pub seed: u64,
    /// Ask for this key on `/v1/`.
    pub api_key: Option<String>,
    /// Close connections idle for this long. vLLM's default is 5 s.
    pub keep_alive: Option<Duration>,
    /// Let several simulators, one a thread, share the address.
    pub reuse_port: bool,
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen:?}")]
pub struct StartError {
    listen: Listen,
    source: std::io::Error,
}

/// A running simulator. Dropping it stops it at once.
#[derive(Debug)]
pub struct Server {
    addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) truth: Truth,
    pub(crate) counters: Counters,
    pub(crate) control: Control,
    connections: AtomicUsize,
    accepted: AtomicU64,
    requests: AtomicU64,
    seeds: AtomicU64,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    KeepAlive,
    Close,
    Reset,
    CloseOnNextByte,
}

/// Counts a connection as open while it lives.
pub(crate) struct OpenConnection<'a>(&'a AtomicUsize);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            models: vec!["tiny".to_owned()],
            behaviour: Behaviour::default(),
            seed: 1,
            api_key: None,
            keep_alive: None,
            reuse_port: false,
        }
    }
}

// === impl Server ===

impl Server {
    /// Starts a simulator on the current tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let listener =
            Listener::bind(&config.listen, config.reuse_port).map_err(|source| StartError {
                listen: config.listen.clone(),
                source,
            })?;
        let addr = listener.addr();
        let shared = Arc::new(Shared {
            config,
            truth: Truth::default(),
            counters: Counters::default(),
            control: Control::default(),
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            seeds: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, task })
    }

    /// The address bound. For a Unix socket, which has none, an unspecified one with port 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// The ground truth.
    #[must_use]
    pub fn truth(&self) -> &Truth {
        &self.shared.truth
    }

    /// Connections open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections_seen(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Request heads read so far, on any path.
    #[must_use]
    pub fn requests_seen(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Makes `/health` answer 200 or 503.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.control.set_healthy(healthy);
    }

    /// What can be changed while it runs.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.shared.control
    }

    /// Stops listening and cuts every connection. When it returns, all requests are in the ground truth.
    pub async fn shutdown(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        // The connections' tasks have been told to stop, not waited for.
        while self.open_connections() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Listen::Unix(path) = &self.shared.config.listen {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    // Owned by this task, so that aborting it aborts them.
    let mut connections = JoinSet::new();
    let mut crowded = false;
    loop {
        let pause = shared.control.crowded();
        if pause.is_some() != crowded {
            crowded = pause.is_some();
            listener.limit_backlog(if crowded { 0 } else { BACKLOG });
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        tokio::select! {
            socket = listener.accept() => {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve::connection(Arc::clone(&shared), socket));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn connection(&self) -> OpenConnection<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection(&self.connections)
    }

    pub(crate) fn saw_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A seed for one request: the same requests in the same order get the same dice.
    pub(crate) fn next_seed(&self) -> u64 {
        let number = self.seeds.fetch_add(1, Ordering::Relaxed);
        self.config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number
    }

    pub(crate) fn authorized(&self, head: &RequestHead) -> bool {
        let Some(key) = &self.config.api_key else {
            return true;
        };
        head.header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|given| given == key)
    }
}

// === impl OpenConnection ===

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
