//! Logs: what, in which form, to stderr.
//!
//! `RUST_LOG` is not read: a second switch beside `log.level` that wins without being seen is how a proxy ends up at
//! debug level in production.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Changes the filter of a running process.
#[derive(Clone, Debug)]
pub struct Handle(reload::Handle<EnvFilter, Registry>);

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is none. A validated configuration does not have such.
    #[error("log filter: {0}")]
    Filter(#[from] ParseError),
    /// There is a subscriber already.
    #[error("logging is already set up")]
    Twice(#[from] TryInitError),
    /// The subscriber is gone.
    #[error("log filter cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Makes this process log.
///
/// # Errors
///
/// If the filter does not parse, or a second time.
pub fn init(log: &Log) -> Result<Handle, Error> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let is_terminal = io::stderr().is_terminal();
    let text = match log.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    // When stderr is closed, the layer would report that on stderr with `eprintln!`, which panics.
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .log_internal_errors(false);
    let layer = if text {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        layer.with_ansi(is_terminal && !plain).boxed()
    } else {
        layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Handle(handle))
}

/// A panic is one line like any other, and says where, not what: its message may quote a request.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(place, thread = thread.name(), "a bug: this code panicked");
}

// === impl Handle ===

impl Handle {
    /// From now on `level`.
    ///
    /// # Errors
    ///
    /// If it does not parse; the old filter stays.
    pub fn set(&self, level: &str) -> Result<(), Error> {
        self.0.reload(filter(level)?)?;
        Ok(())
    }
}

/// Spaces after commas, which people write and `EnvFilter` takes for part of the directive, are dropped.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let directives: Vec<_> = level.split(',').map(str::trim).collect();
    EnvFilter::builder()
        .with_default_directive(LevelFilter::ERROR.into())
        .parse(directives.join(","))
}

/// Whether `level` is a filter, and one that its writer meant: `EnvFilter` takes any bare word for a target and logs
/// it at trace, so that `inof` would silence everything else.
///
/// # Errors
///
/// The reason in one line.
pub(crate) fn check_filter(level: &str) -> Result<(), String> {
    if level.is_empty() {
        return Err("expected a log filter such as \"info\", found nothing".to_owned());
    }
    for directive in level.split(',').map(str::trim) {
        let is_bare = !directive.contains(['=', '[']);
        if is_bare
            && !LEVELS
                .iter()
                .any(|level| level.eq_ignore_ascii_case(directive))
        {
            return Err(match crate::config::nearest(directive, LEVELS) {
                Some(near) => format!("unknown level {directive:?}, did you mean \"{near}\"?"),
                None => format!(
                    "unknown level {directive:?}: expected one of {}, or target=level",
                    LEVELS.join(", ")
                ),
            });
        }
    }
    filter(level)
        .map(drop)
        .map_err(|error| format!("{level:?} is no log filter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for level in [
            "info",
            "INFO",
            "off",
            "tokenglass=debug,info",
            "warn, tokenglass::observe=trace",
            "tokenglass[request{model}]=debug",
        ] {
            assert_eq!(check_filter(level), Ok(()), "{level}");
        }
        for (level, want) in [
            ("", "found nothing"),
            ("inof", "did you mean \"info\"?"),
            ("tokenglass", "or target=level"),
            ("tokenglass=loud", "is no log filter"),
            ("info,", "unknown level \"\""),
        ] {
            let error = check_filter(level).unwrap_err();
            assert!(error.contains(want), "{level}: {error}");
        }
    }
}
