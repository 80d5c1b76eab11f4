//! What is asked beside the traffic: how vLLM is (`health`), and what it says of itself (`engine`).
//!
//! One thread for all of it, with a runtime of its own: neither a scrape nor a stream ever waits for it.

mod client;
mod engine;
mod jitter;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};

use crate::config::Config;
use crate::drain::{Drain, Stage};
use crate::engine::Snapshots;
use crate::metrics::Metrics;
use crate::upstream::Connector;

pub use client::{Client, ProbeError, Reply};

/// What the pollers need.
#[derive(Debug)]
pub struct Poller {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where the results go.
    pub metrics: Arc<Metrics>,
    /// One per upstream.
    pub connectors: Vec<Connector>,
    /// Where vLLM's own metrics go; `None` if nobody wants them.
    pub engine: Option<Arc<Snapshots>>,
    /// When to end.
    pub drain: Drain,
}

impl Poller {
    /// Starts the thread. It ends with the process.
    ///
    /// # Errors
    /// If the thread cannot be had.
    pub fn start(self) -> io::Result<()> {
        std::thread::Builder::new()
            .name("poller".to_owned())
            .spawn(move || {
                if let Err(error) = self.run() {
                    tracing::error!(%error, "nothing can be polled");
                }
            })?;
        Ok(())
    }

    fn run(self) -> io::Result<()> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        let mut over = self.drain.clone();
        runtime.block_on(async move {
            for (index, connector) in self.connectors.iter().enumerate() {
                let client = Rc::new(Client::new(connector.clone(), &self.config.upstream));
                if let Some(snapshots) = &self.engine {
                    let poll = engine::Poll {
                        client: Rc::clone(&client),
                        config: Arc::clone(&self.config),
                        snapshots: Arc::clone(snapshots),
                        upstream: index,
                    };
                    tokio::task::spawn_local(poll.run());
                }
                // health::run is spawned here too.
            }
            over.reached(Stage::Over).await;
            Ok(())
        })
    }
}
