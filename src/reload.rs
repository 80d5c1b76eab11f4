//! SIGHUP, or a change of the file: the configuration is read again and what can change while running does, all or
//! nothing.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, Loaded};
use crate::metrics::Metrics;
use crate::telemetry;

/// How often the file is looked at. Looking beats notifications here: a Kubernetes ConfigMap changes by a symlink
/// above it, which watchers on the file itself never see.
const LOOK: Duration = Duration::from_secs(5);

/// SIGHUP, handled from its making on.
#[derive(Debug)]
pub(crate) struct Hangup(Signal);

impl Hangup {
    /// Installs the handler.
    pub(crate) fn new() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }
}

/// Applies changes for as long as it is polled. Never returns.
pub(crate) async fn watch(
    mut hangup: Hangup,
    mut loaded: Loaded,
    log: &telemetry::Handle,
    metrics: &Metrics,
) {
    let file = loaded.file().map(Path::to_owned);
    let read = || file.as_ref().and_then(|file| std::fs::read(file).ok());
    let mut seen = read();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = hangup.0.recv() => seen = read(),
            _ = look.tick() => {
                let now = read();
                // A file that is being replaced may be missing for a moment.
                if now.is_none() || now == seen {
                    continue;
                }
                seen = now;
            }
        }
        let result = match apply(&loaded, log) {
            Ok(new) => {
                tracing::info!("configuration reloaded");
                loaded = new;
                "success"
            }
            Err(reason) => {
                tracing::error!(%reason, "configuration not reloaded; the old one stays in force");
                "failure"
            }
        };
        metrics.reloads.with_label_values(&[result]).inc();
    }
}

fn apply(loaded: &Loaded, log: &telemetry::Handle) -> Result<Loaded, String> {
    let new = loaded.reload().map_err(|errors| errors.to_string())?;
    let unchanged = Config {
        log: loaded.config.log.clone(),
        ..new.config.clone()
    };
    if unchanged != loaded.config || new.config.log.format != loaded.config.log.format {
        return Err("only log.level can change while running; restart for the rest".to_owned());
    }
    if new.config.log.level != loaded.config.log.level {
        log.set(&new.config.log.level)
            .map_err(|error| error.to_string())?;
    }
    Ok(new)
}
