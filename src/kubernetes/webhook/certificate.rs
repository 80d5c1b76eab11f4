//! The webhook's certificate, read again when its files change.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::counters::Counters;
use crate::config::TlsFiles;
use crate::listen::tls;

/// How often the files are looked at. A Secret changes by a symlink above its files, which watchers on them never see, and
/// by content, not always by time.
const LOOK: Duration = Duration::from_secs(2);

/// Replaces the acceptor for as long as it is polled. Connections that are open keep what they began with.
pub(super) async fn watch(
    files: &TlsFiles,
    acceptor: watch::Sender<TlsAcceptor>,
    counters: &Counters,
) {
    let read = || {
        Some((
            std::fs::read(&files.cert).ok()?,
            std::fs::read(&files.key).ok()?,
        ))
    };
    let mut seen = read();
    let mut failed = false;
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let now = read();
        // While they are replaced, files may be missing; and what failed may have been half of a pair.
        if now.is_none() || (now == seen && !failed) {
            continue;
        }
        let again = now == seen;
        seen = now;
        match tls::acceptor(files) {
            Ok(new) => {
                failed = false;
                counters.reload("success");
                tracing::info!(certificate = %shown(&files.cert), "certificate reloaded");
                acceptor.send_replace(new);
            }
            Err(error) => {
                failed = true;
                if !again {
                    counters.reload("failure");
                    tracing::error!(error = %chain(&error), "certificate not reloaded; the old one stays in use");
                }
            }
        }
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
