//! Wires everything together: the only place that knows all of it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, mpsc};

use crate::admin::{Admin, Trust};
use crate::alive;
use crate::beside;
use crate::config::{self, Config, Loaded, UpstreamUrl};
use crate::drain::{self, Drain, Pending, Stage, Trigger};
use crate::engine::{Snapshots, Taken};
use crate::exposition::Exposition;
use crate::gateway::Registry;
use crate::gpu::{Gpu, Place};
use crate::listen::{accept, tls};
use crate::metrics::Metrics;
use crate::notify;
use crate::poll::{Change, Fleet, Polled, Poller};
use crate::reload;
use crate::signals::Signals;
use crate::telemetry;
use crate::tenants::{MapError, Tenants};
use crate::tokens::{Direction, Estimated, Estimator, Sink};
use crate::upstream::{Connector, OpenConnections, TlsError};
use crate::worker::{self, Upstreams};

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken or not ours to take.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// TLS towards clients.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// TLS towards upstream.
    #[error("upstream {url}")]
    UpstreamTls {
        /// The upstream.
        url: String,
        /// What is wrong.
        source: TlsError,
    },
    /// The tenant table.
    #[error(transparent)]
    Tenants(#[from] MapError),
    /// Two families of one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Runs the proxy until it is told to end.
///
/// # Errors
/// [`Error`] if it cannot start.
pub fn run(loaded: Loaded, log: &telemetry::Handle) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Before anybody can know that this process is there: an unhandled SIGHUP would end it.
        let mut signals = Signals::new()?;
        let hangup = reload::Hangup::new()?;
        let app = App::start(loaded.config.clone(), config::show(&loaded))?;
        let metrics = Arc::clone(app.metrics());
        let reloads = reload::watch(hangup, loaded, log, &metrics);
        let systemd = notify::systemd(app.drain.clone());
        tokio::select! {
            _finished = app.run_until(async || signals.end().await) => {}
            () = reloads => {}
            () = systemd => {}
        }
        Ok(())
    })
}

/// A running proxy.
#[derive(Debug)]
pub struct App {
    data: SocketAddr,
    admin: SocketAddr,
    metrics: Arc<Metrics>,
    trigger: Trigger,
    drain: Drain,
    workers: Vec<JoinHandle<()>>,
    /// Closed once the last worker has ended.
    alive: mpsc::Receiver<()>,
    ready_delay: Duration,
    drain_timeout: Duration,
    pending: Pending,
}

/// How long `GET /drain?wait=1` gets for its answer.
const TELL: Duration = Duration::from_secs(1);

impl App {
    /// Opens the ports and starts the threads. `shown` is what `/config` answers.
    ///
    /// # Errors
    /// [`Error`], one line each; nothing is left running then.
    pub fn start(config: Config, shown: String) -> Result<Self, Error> {
        Self::with(config, shown, None)
    }

    /// [`App::start`] with upstreams that come and go by `changes`, beside those that are configured.
    ///
    /// # Errors
    /// As there.
    pub fn following(
        config: Config,
        shown: String,
        changes: UnboundedReceiver<Change>,
    ) -> Result<Self, Error> {
        Self::with(config, shown, Some(changes))
    }

    fn with(
        config: Config,
        shown: String,
        changes: Option<UnboundedReceiver<Change>>,
    ) -> Result<Self, Error> {
        let open = OpenConnections::default();
        let tls = config.server.tls.as_ref().map(tls::acceptor).transpose()?;
        let listener = listen(config.server.listen, config.server.backlog)?;
        if let Some(limit) = config.server.send_timeout {
            let address = config.server.listen;
            alive::watch(&SockRef::from(&listener), limit)
                .map_err(|source| Error::Listen { address, source })?;
        }
        let admin_listener = listen(config.admin.listen, 128)?;
        let data = listener.local_addr()?;
        let admin = admin_listener.local_addr()?;
        let tenants = Tenants::new(&config.tenants)?;
        let registry = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&registry, open.clone(), &config, tenants)?);
        let (trigger, drain) = drain::channel();
        let pending = Pending::default();

        let gpu = Gpu::start(&config.gpu, &Place::here())?;
        let engine = snapshots(&config, &metrics);
        let (upstreams, mut polled) = upstreams(&config, &metrics, engine.as_ref(), open)?;
        if let (Polled::Several(fleet), Some(changes)) = (&mut polled, changes) {
            fleet.follow(changes);
        }
        let exposition = Exposition::new(Arc::clone(&metrics), engine.clone(), gpu);
        Admin {
            gateway: match &upstreams {
                Upstreams::One(..) => None,
                Upstreams::Several(registry) => Some(Arc::clone(registry)),
            },
            exposition: Arc::new(exposition.beside_traffic()),
            drain: drain.clone(),
            pending: pending.clone(),
            leave: trigger.clone(),
            config: shown,
            expire_after: config.observe.expire_after,
            trust: Trust {
                allow_remote: config.admin.allow_remote,
                remote_drain: config.admin.remote_drain,
            },
        }
        .start(admin_listener)?;
        let config = Arc::new(config);
        Poller {
            config: Arc::clone(&config),
            metrics: Arc::clone(&metrics),
            upstreams: polled,
            engine,
            drain: drain.clone(),
        }
        .start()?;
        let shared = worker::Shared {
            estimator: estimator(&config, &metrics)?,
            metrics: Arc::clone(&metrics),
            upstreams,
            tls,
            permits: Arc::new(Semaphore::new(config.server.max_connections)),
            drain: drain.clone(),
            config: Arc::clone(&config),
        };
        let (running, alive) = mpsc::channel(1);
        let workers = (0..config.server.workers)
            .map(|index| {
                worker::spawn(
                    index,
                    shared.clone(),
                    listener.try_clone()?,
                    running.clone(),
                )
            })
            .collect::<Result<_, _>>()?;
        tracing::info!(%data, %admin, workers = config.server.workers, upstream = %urls(&config), "listening");
        Ok(Self {
            data,
            admin,
            metrics,
            trigger,
            drain,
            workers,
            alive,
            ready_delay: config.shutdown.ready_delay,
            drain_timeout: config.shutdown.drain_timeout,
            pending,
        })
    }

    /// The data port, as bound.
    #[must_use]
    pub fn data(&self) -> SocketAddr {
        self.data
    }

    /// The admin port, as bound.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The families.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What begins and follows the end.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        self.trigger.clone()
    }

    /// Waits for `end` or for `POST /drain`, then drains: not ready, then no new connections, then the deadline. A
    /// second `end` cuts it short; the first behind a `POST /drain` does not, since whoever drains ends the process
    /// afterwards. Returns whether everything had finished by itself.
    pub async fn run_until(mut self, mut end: impl AsyncFnMut()) -> bool {
        let ending = tokio::select! {
            () = end() => true,
            () = self.drain.reached(Stage::Leaving) => false,
        };
        self.trigger.advance(Stage::Leaving);
        tracing::info!(timeout = ?self.drain_timeout, "draining");
        let trigger = self.trigger.clone();
        let (ready_delay, drain_timeout) = (self.ready_delay, self.drain_timeout);
        let finished = tokio::select! {
            finished = async {
                tokio::time::sleep(ready_delay).await;
                trigger.advance(Stage::Draining);
                tokio::time::timeout(drain_timeout, self.alive.recv()).await.is_ok()
            } => finished,
            () = async {
                if !ending {
                    end().await;
                }
                end().await;
            } => false,
        };
        self.trigger.advance(Stage::Cut);
        self.join();
        self.trigger.advance(Stage::Gone);
        // Whoever asked to be told is told.
        let told = async {
            while !self.pending.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _in_time = tokio::time::timeout(TELL, told).await;
        self.trigger.advance(Stage::Over);
        tracing::info!(finished, cut = self.metrics.drain_cut.get(), "stopped");
        finished
    }

    fn join(&mut self) {
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.trigger.advance(Stage::Over);
        self.join();
    }
}

impl Admin {
    fn start(self, listener: TcpListener) -> std::io::Result<()> {
        beside::spawn("admin", move || {
            if let Err(error) = self.run(listener) {
                tracing::error!(%error, "the admin port cannot be served");
            }
        })?;
        Ok(())
    }
}

fn listen(address: SocketAddr, backlog: u32) -> Result<TcpListener, Error> {
    accept::bind(address, backlog).map_err(|source| Error::Listen { address, source })
}

/// Where requests go, and who is polled: the same.
fn upstreams(
    config: &Config,
    metrics: &Arc<Metrics>,
    engine: Option<&Arc<Snapshots>>,
    open: OpenConnections,
) -> Result<(Upstreams, Polled), Error> {
    let failed = |url: &UpstreamUrl, source| Error::UpstreamTls {
        url: url.to_string(),
        source,
    };
    let settings = &config.upstream;
    if let ([url], false) = (&*settings.urls, config.is_gateway()) {
        let ca_file = settings.ca_file.as_deref();
        let connector = Connector::new(url.clone(), settings.connect_timeout, ca_file, open)
            .map_err(|source| failed(url, source))?
            .with_ack_timeout(settings.ack_timeout);
        let upstream = metrics.polled.add(url.to_string());
        if let Some(engine) = engine {
            engine.add(upstream.id(), url.to_string());
        }
        return Ok((
            Upstreams::One(connector.clone(), Arc::clone(&upstream)),
            Polled::One(connector, upstream),
        ));
    }
    let registry = Registry::new(config, metrics);
    let (of_fleet, engine) = (Arc::clone(&registry), engine.cloned());
    let fleet = Fleet::new(config, of_fleet, Arc::clone(metrics), engine, open)
        .map_err(|(url, source)| failed(&url, source))?;
    Ok((Upstreams::Several(registry), Polled::Several(fleet)))
}

/// Where what vLLM says of itself is kept, if anybody wants it.
fn snapshots(config: &Config, metrics: &Metrics) -> Option<Arc<Snapshots>> {
    let names = metrics.names();
    let ours = names.iter().map(|(name, kind)| (name.as_str(), *kind));
    config.engine.metrics.then(|| {
        let snapshots = Snapshots::new((&config.engine).into(), Taken::new(ours), []);
        Arc::new(if config.is_gateway() {
            snapshots.changing()
        } else {
            snapshots
        })
    })
}

fn urls(config: &Config) -> String {
    let urls = config.upstream.urls.iter().map(ToString::to_string);
    let found = config.gateway.discover.iter().map(ToString::to_string);
    urls.chain(found).collect::<Vec<_>>().join(" ")
}

fn estimator(config: &Config, metrics: &Arc<Metrics>) -> std::io::Result<Option<Estimator>> {
    if !config.tokens.estimate || !config.observe.enabled {
        return Ok(None);
    }
    Estimator::start(&config.tokens, Late(Arc::clone(metrics))).map(Some)
}

/// Where the estimator leaves what it has counted.
struct Late(Arc<Metrics>);

impl Sink for Late {
    fn record(&self, done: Estimated) {
        self.0.record_late(&done.record);
        if let Some(ticket) = done.ticket {
            ticket.book(&done.record);
        }
    }

    fn error(&self, model: &str, direction: Direction, share: f64) {
        self.0.record_estimate_error(model, direction, share);
    }
}
