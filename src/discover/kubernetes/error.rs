//! Why the API server did not say what is there.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use kube::client::AuthError;
use kube::config::{InClusterError, KubeconfigError};
use kube::core::Status;
use kube::runtime::watcher;
use tower::timeout::error::Elapsed;

use super::Failure;

/// What ends a watch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("Kubernetes cannot be asked: {}", Chain(.0.as_ref()))]
    Setup(#[from] Box<Setup>),
    #[error("{}", Shown(.0))]
    Watch(#[from] Box<watcher::Error>),
    /// Within a list, which kube does not limit.
    #[error("the list did not come in time")]
    Slow,
    /// kube promises that it does not.
    #[error("the watch ended")]
    Ended,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Setup {
    #[error("kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("service account")]
    InCluster(#[from] InClusterError),
    #[error("client")]
    Client(#[source] kube::Error),
    #[error("a proxy-url in the kubeconfig is not supported")]
    Proxy,
}

// === impl Error ===

impl Error {
    pub(super) fn failure(&self) -> Failure {
        let error = match self {
            Self::Setup(_) => return Failure::Setup,
            Self::Slow => return Failure::Timeout,
            Self::Ended => return Failure::Answer,
            Self::Watch(error) => error.as_ref(),
        };
        if let Some(status) = status(error) {
            return match status.code {
                401 | 403 => Failure::Denied,
                410 => Failure::Expired,
                429 | 500.. => Failure::Server,
                _ => Failure::Answer,
            };
        }
        match client_error(error) {
            Some(kube::Error::Service(error)) if error.is::<Elapsed>() => Failure::Timeout,
            Some(kube::Error::Service(error)) if error.is::<AuthError>() => Failure::Setup,
            Some(kube::Error::Auth(_)) => Failure::Setup,
            Some(
                kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_),
            ) => Failure::Unreachable,
            Some(_) | None => Failure::Answer,
        }
    }

    /// What the server asks for, as with 429.
    pub(super) fn retry_after(&self) -> Duration {
        let Self::Watch(error) = self else {
            return Duration::ZERO;
        };
        let details = status(error).and_then(|status| status.details.as_ref());
        let seconds = details.map_or(0, |details| details.retry_after_seconds);
        Duration::from_secs(seconds.into())
    }
}

fn client_error(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

fn status(error: &watcher::Error) -> Option<&Status> {
    match (error, client_error(error)) {
        (watcher::Error::WatchError(status), _) | (_, Some(kube::Error::Api(status))) => {
            Some(status)
        }
        _ => None,
    }
}

/// A server's own words if there are such: kube adds the whole status as a debugging aid.
struct Shown<'a>(&'a watcher::Error);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match status(self.0) {
            Some(status) => write!(f, "{} ({})", status.message, status.code),
            None => Chain(self.0).fmt(f),
        }
    }
}

/// With its causes, unless a text has its cause's already.
struct Chain<'a>(&'a dyn StdError);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}
