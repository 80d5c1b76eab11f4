//! One thread that carries traffic: its own runtime, its own upstream pools, its share of the connections.
//!
//! Both sides of a request live on one thread, so that a frame crosses no core on its way. Nothing else runs here:
//! metrics are rendered, and everything is polled and logged about, elsewhere.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::drain::{Drain, Stage};
use crate::gateway::{Balance, Registry};
use crate::listen;
use crate::listen::accept::Acceptor;
use crate::listen::conn::Http;
use crate::metrics::{Metrics, polled};
use crate::proxy::{Backend, Proxy};
use crate::task::Tasks;
use crate::tokens::Estimator;
use crate::track::Recorder;
use crate::upstream::{Connector, Upstream};

/// How often pools are looked through.
const REAP: Duration = Duration::from_millis(500);

/// What all workers share.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "rustls' acceptor has none")]
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// The families.
    pub metrics: Arc<Metrics>,
    /// Counts tokens elsewhere, if at all.
    pub estimator: Option<Estimator>,
    /// Where requests go.
    pub upstreams: Upstreams,
    /// TLS towards clients.
    pub tls: Option<TlsAcceptor>,
    /// Places for connections.
    pub permits: Arc<Semaphore>,
    /// When to end.
    pub drain: Drain,
}

/// What requests are forwarded to.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// One upstream.
    One(Connector, Arc<polled::Upstream>),
    /// Several, or one that may become several.
    Several(Arc<Registry>),
}

/// Starts a worker on `listener`, its own handle of the one socket. `alive` is dropped when it has ended.
///
/// # Errors
/// If the thread or its runtime cannot be had.
pub fn spawn(
    index: usize,
    shared: Shared,
    listener: TcpListener,
    alive: impl Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            if let Err(error) = run(index, shared, listener) {
                tracing::error!(%error, index, "a worker cannot run");
            }
            drop(alive);
        })
}

fn run(index: usize, shared: Shared, listener: TcpListener) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let metrics = Arc::clone(&shared.metrics);
    runtime.block_on(async move {
        let tasks = Rc::new(Tasks::default());
        let mut drain = shared.drain.clone();
        let proxy = proxy(index, &shared, &tasks);
        tokio::task::spawn_local(reap(Rc::clone(&proxy)));
        let acceptor = Acceptor {
            listener: tokio::net::TcpListener::from_std(listener)?,
            tls: shared.tls,
            permits: shared.permits,
            open: shared.metrics.downstream_connections.clone(),
            http: Rc::new(Http::new(&shared.config.server)),
            proxy,
            tasks: Rc::clone(&tasks),
        };
        acceptor.run(drain.clone()).await;
        tokio::select! {
            () = tasks.idle() => {}
            () = drain.reached(Stage::Cut) => {
                tracing::warn!(connections = tasks.running(), "cut at the end of the drain");
            }
        }
        io::Result::Ok(())
    })?;
    listen::begin_cut();
    drop(runtime);
    metrics.drain_cut.inc_by(listen::end_cut());
    Ok(())
}

fn proxy(index: usize, shared: &Shared, tasks: &Rc<Tasks>) -> Rc<Proxy> {
    let config = &shared.config;
    let backend = match &shared.upstreams {
        Upstreams::One(connector, known) => Backend::One {
            upstream: Upstream::new(connector.clone(), &config.upstream),
            books: known.books(index),
        },
        Upstreams::Several(registry) => {
            Backend::Several(Balance::new(index, Arc::clone(registry), config))
        }
    };
    let recorder = config.observe.enabled.then(|| {
        Recorder::new(
            config,
            Arc::clone(&shared.metrics),
            shared.estimator.clone(),
        )
    });
    Proxy::new(config, backend, recorder, Rc::clone(tasks))
}

async fn reap(proxy: Rc<Proxy>) {
    let mut tick = tokio::time::interval(REAP);
    loop {
        tick.tick().await;
        proxy.reap();
    }
}
