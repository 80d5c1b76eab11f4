//! What is asked beside the traffic: how vLLM is (`health`), and what it says of itself (`engine`).
//!
//! One thread for all of it, with a runtime of its own: neither a scrape nor a stream ever waits for it.

mod client;
mod engine;
mod health;
pub(crate) mod jitter;
mod models;
mod pace;
mod totals;

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::drain::{Drain, Stage};
use crate::engine::Snapshots;
use crate::metrics::Metrics;
use crate::upstream::Connector;
use health::Health;

pub use client::{Client, ProbeError, Reply};
pub use models::Model;
pub use totals::{EngineTotals, engine_totals};

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
            let mut tasks = JoinSet::new();
            for (upstream, connector) in self.connectors.iter().enumerate() {
                let client = || Client::new(connector.clone(), &self.config.upstream);
                let (config, metrics) = (&self.config, &self.metrics);
                if config.health.enabled {
                    let health =
                        Health::new(upstream, client(), Arc::clone(config), Arc::clone(metrics));
                    tasks.spawn_local(health.run());
                }
                if let Some(snapshots) = &self.engine {
                    let poll = engine::Poll {
                        client: client(),
                        config: Arc::clone(config),
                        metrics: Arc::clone(metrics),
                        snapshots: Arc::clone(snapshots),
                        upstream,
                    };
                    tasks.spawn_local(poll.run());
                }
            }
            let broken = async {
                while let Some(ended) = tasks.join_next().await {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a poller broke; what it said is not true any more");
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = over.reached(Stage::Over) => {}
                () = broken => {}
            }
            Ok(())
        })
    }
}
