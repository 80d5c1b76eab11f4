//! What is asked beside the traffic: how vLLM is (`health`), and what it says of itself (`engine`).
//!
//! One thread for all of it, with a runtime of its own: neither a scrape nor a stream ever waits for it.

mod client;
mod engine;
mod fleet;
mod health;
pub(crate) mod jitter;
mod models;
mod pace;
mod totals;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

use crate::beside;
use crate::config::Config;
use crate::drain::{Drain, Stage};
use crate::engine::Snapshots;
use crate::gateway::Member;
use crate::metrics::Metrics;
use crate::metrics::polled::Upstream;
use crate::upstream::Connector;
use health::Health;

pub use client::{Client, ProbeError, Reply};
pub use fleet::{Change, Fleet};
pub use models::Model;
pub use totals::{EngineTotals, engine_totals};

/// What the pollers need.
#[derive(Debug)]
pub struct Poller {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where the results go.
    pub metrics: Arc<Metrics>,
    /// Who is polled.
    pub upstreams: Polled,
    /// Where vLLM's own metrics go; `None` if nobody wants them.
    pub engine: Option<Arc<Snapshots>>,
    /// When to end.
    pub drain: Drain,
}

/// Who is polled.
#[derive(Debug)]
pub enum Polled {
    /// One upstream.
    One(Connector, Arc<Upstream>),
    /// Several, that may come and go.
    Several(Fleet),
}

impl Poller {
    /// Starts the thread. It ends with the process.
    ///
    /// # Errors
    /// If the thread cannot be had.
    pub fn start(self) -> io::Result<()> {
        beside::spawn("poller", move || {
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
            let (started, end) = (Rc::new(self), async { over.reached(Stage::Over).await });
            tokio::select! {
                () = end => {}
                () = started.all() => {}
            }
            Ok(())
        })
    }

    /// Polls all. Never returns.
    async fn all(self: Rc<Self>) {
        match &self.upstreams {
            Polled::One(connector, upstream) => {
                let mut tasks = self.follow(connector, upstream, None);
                broken(&mut tasks).await;
            }
            Polled::Several(fleet) => fleet.run(&self).await,
        }
    }

    /// Polls one upstream, until what is returned is dropped.
    fn follow(
        &self,
        connector: &Connector,
        upstream: &Arc<Upstream>,
        member: Option<&Member>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let client = || Client::new(connector.clone(), &self.config.upstream);
        let (config, metrics) = (&self.config, &self.metrics);
        if config.health.enabled {
            let health = Health::new(
                Arc::clone(upstream),
                member.cloned(),
                client(),
                Arc::clone(config),
                Arc::clone(metrics),
            );
            tasks.spawn_local(health.run());
        }
        if let Some(snapshots) = &self.engine {
            let poll = engine::Poll {
                client: client(),
                config: Arc::clone(config),
                metrics: Arc::clone(metrics),
                snapshots: Arc::clone(snapshots),
                upstream: Arc::clone(upstream),
            };
            tasks.spawn_local(poll.run());
        }
        tasks
    }
}

/// Says so if one of them breaks. Never returns.
async fn broken(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a poller broke; what it said is not true any more");
        }
    }
    std::future::pending::<()>().await;
}
