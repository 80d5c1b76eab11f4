//! Several upstreams, of which some may come and go: who comes is put into the gateway's registry and polled, who goes is
//! taken out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::Poller;
use crate::config::{Config, UpstreamUrl};
pub use crate::discover::Change;
use crate::discover::{Discovery, Report, Settings};
use crate::engine::Snapshots;
use crate::gateway::{Member, Registry};
use crate::metrics::Metrics;
use crate::upstream::{Connector, OpenConnections, TlsError};

/// The upstreams of a gateway.
#[derive(Debug)]
pub struct Fleet {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    engine: Option<Arc<Snapshots>>,
    open: OpenConnections,
    connect_timeout: Duration,
    ack_timeout: Option<Duration>,
    ca_file: Option<PathBuf>,
    /// Those of the configuration, which stay.
    fixed: Vec<Member>,
    /// Others, from wherever they are found. Taken by the one that runs.
    found: Mutex<Option<UnboundedReceiver<Change>>>,
}

impl Fleet {
    /// The upstreams that are configured.
    ///
    /// # Errors
    /// If TLS to one of them cannot be set up: its URL, and why.
    pub fn new(
        config: &Config,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        engine: Option<Arc<Snapshots>>,
        open: OpenConnections,
    ) -> Result<Self, (UpstreamUrl, TlsError)> {
        let mut fleet = Self {
            registry,
            metrics,
            engine,
            open,
            connect_timeout: config.upstream.connect_timeout,
            ack_timeout: config.upstream.ack_timeout,
            ca_file: config.upstream.ca_file.clone(),
            fixed: Vec::new(),
            found: Mutex::default(),
        };
        for target in &config.gateway.discover {
            fleet.metrics.upstreams.looks(target);
        }
        for url in &config.upstream.urls {
            let member = fleet.add(url).map_err(|error| (url.clone(), error))?;
            fleet.fixed.push(member);
        }
        Ok(fleet)
    }

    /// Others come and go as these changes say.
    pub fn follow(&mut self, changes: UnboundedReceiver<Change>) {
        self.found = Mutex::new(Some(changes));
    }

    fn add(&self, url: &UpstreamUrl) -> Result<Member, TlsError> {
        let connector = Connector::new(
            url.clone(),
            self.connect_timeout,
            self.ca_file.as_deref(),
            self.open.clone(),
        )?
        .with_ack_timeout(self.ack_timeout);
        let upstream = self.metrics.polled.add(url.to_string());
        if let Some(engine) = &self.engine {
            engine.add(upstream.id(), url.to_string());
        }
        Ok(self.registry.insert(connector, upstream))
    }

    fn remove(&self, member: &Member) {
        member.remove();
        if let Some(engine) = &self.engine {
            engine.remove(member.endpoint().id());
        }
    }

    /// Polls them all. Never returns.
    pub(super) async fn run(&self, poller: &Poller) {
        let mut polled: HashMap<UpstreamUrl, (Member, JoinSet<()>)> = HashMap::new();
        let follow = |member: &Member| {
            let endpoint = member.endpoint();
            poller.follow(endpoint.connector(), endpoint.upstream(), Some(member))
        };
        for member in &self.fixed {
            let url = member.endpoint().url().clone();
            polled.insert(url, (member.clone(), follow(member)));
        }
        let found = self.found.lock();
        let mut found = found.unwrap_or_else(PoisonError::into_inner).take();
        let gateway = &poller.config.gateway;
        let report: Rc<dyn Report> = Rc::new(Arc::clone(&self.metrics));
        let settings = Settings::new(gateway.dns_interval);
        let mut discovery = Discovery::start(&gateway.discover, &settings, &report);
        loop {
            let change = tokio::select! {
                change = next(&mut found) => change,
                change = discovery.next() => change,
            };
            match change {
                Change::Insert(url, _) => {
                    if polled.contains_key(&url) {
                        continue;
                    }
                    match self.add(&url) {
                        Ok(member) => {
                            tracing::info!(upstream = %url, "an upstream was found");
                            let tasks = follow(&member);
                            polled.insert(url, (member, tasks));
                        }
                        Err(error) => {
                            tracing::error!(upstream = %url, %error, "an upstream that was found cannot be used");
                        }
                    }
                }
                Change::Remove(url) => {
                    let mut fixed = self.fixed.iter();
                    if fixed.any(|member| *member.endpoint().url() == url) {
                        continue;
                    }
                    if let Some((member, tasks)) = polled.remove(&url) {
                        tracing::info!(upstream = %url, "an upstream is gone");
                        // Nobody says anything of it any more.
                        drop(tasks);
                        self.remove(&member);
                    }
                }
            }
        }
    }
}

/// The next change; never, if there are none to come.
async fn next(found: &mut Option<UnboundedReceiver<Change>>) -> Change {
    if let Some(changes) = found
        && let Some(change) = changes.recv().await
    {
        return change;
    }
    std::future::pending().await
}
