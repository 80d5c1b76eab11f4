//! Upstreams that come and go: by DNS ([`Dns`]) and by Kubernetes' EndpointSlices (`kubernetes.rs`).
//!
//! Each configured [`Target`] has a source; [`Discovery`] drives them all and says what came and what went. What holds
//! for every source:
//!
//! - **It never ends and never fails.** What goes wrong is logged, at most once a second and source, told to the
//!   [`Report`], and tried again with growing pauses.
//! - **Stale beats empty.** While a source cannot be reached, what it said last stays: that the resolver or the API
//!   server is down says nothing of vLLM, and whether an upstream answers is found out by health checks. Only a source
//!   that answers can take an upstream away.
//! - **New ones come before the old ones go**, where both change at once.
//! - An upstream that two sources have found is there once, until the last of them loses it.
//!
//! Everything runs on the thread that made the [`Discovery`]. A client for Kubernetes is made only if a target asks for it.

mod dns;
mod hold;
mod outlet;
mod report;
mod resolve;
mod target;
mod union;

#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "kubernetes")]
mod slices;

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use dns::Dns;
#[cfg(feature = "kubernetes")]
pub use kubernetes::Kubernetes;
pub use report::{Failure, Report};
pub use resolve::Servers;
pub use target::{KubernetesError, Scheme, ServicePort, Target, TargetError};

use crate::config::UpstreamUrl;
use outlet::Outlet;
use union::{Found, Union};

/// An upstream that came, with itself as its key, or one that went.
pub type Change = tower::discover::Change<UpstreamUrl, UpstreamUrl>;

/// How sources ask.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names.
    pub dns: Dns,
    /// EndpointSlices.
    #[cfg(feature = "kubernetes")]
    pub kubernetes: Kubernetes,
}

/// The changes of all targets, as a stream without an end. The first say what is there at the start.
#[derive(Debug)]
pub struct Discovery {
    /// They end with this.
    sources: JoinSet<()>,
    found: mpsc::UnboundedReceiver<(usize, Found)>,
    union: Union,
    changes: VecDeque<Change>,
}

// === impl Settings ===

impl Settings {
    /// Names are resolved each `dns_interval`; the rest is as it should be.
    #[must_use]
    pub fn new(dns_interval: std::time::Duration) -> Self {
        Self {
            dns: Dns::new(dns_interval),
            #[cfg(feature = "kubernetes")]
            kubernetes: Kubernetes::default(),
        }
    }
}

// === impl Discovery ===

impl Discovery {
    /// Starts to look at `targets`, with tasks of the thread it is called on.
    ///
    /// # Panics
    /// Outside a runtime whose tasks may stay on their thread (`LocalRuntime`, `LocalSet`).
    #[must_use]
    pub fn start(targets: &[Target], settings: &Settings, report: &Rc<dyn Report>) -> Self {
        let (sender, found) = mpsc::unbounded_channel();
        let mut sources = JoinSet::new();
        let dns = Rc::new(settings.dns.clone());
        let mut schemes = Vec::new();
        for (place, target) in targets.iter().enumerate() {
            let outlet = Outlet::new(place, target.clone(), sender.clone(), Rc::clone(report));
            match target.clone() {
                Target::Dns { scheme, host, port } => {
                    schemes.push(scheme);
                    sources.spawn_local(dns::follow(host, port, Rc::clone(&dns), outlet));
                }
                #[cfg(feature = "kubernetes")]
                Target::Kubernetes {
                    namespace,
                    service,
                    port,
                } => {
                    schemes.push(Scheme::Http);
                    let service = kubernetes::Service {
                        namespace,
                        name: service,
                        port,
                    };
                    let settings = settings.kubernetes.clone();
                    sources.spawn_local(kubernetes::follow(service, settings, outlet));
                }
                // Refused where targets are read; whoever made one all the same gets no upstream from it.
                #[cfg(not(feature = "kubernetes"))]
                Target::Kubernetes { .. } => {
                    schemes.push(Scheme::Http);
                    outlet.failed(Failure::Setup, &TargetError::NotBuilt);
                }
            }
        }
        Self {
            sources,
            found,
            union: Union::new(schemes),
            changes: VecDeque::new(),
        }
    }

    /// The next change; waits for it as long as it takes.
    pub async fn next(&mut self) -> Change {
        std::future::poll_fn(|cx| self.poll_change(cx)).await
    }

    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(change);
            }
            while let Poll::Ready(Some(ended)) = self.sources.poll_join_next(cx) {
                if let Err(error) = ended {
                    tracing::error!(%error, "a source of upstreams broke; what it found last stays");
                }
            }
            match self.found.poll_recv(cx) {
                Poll::Ready(Some((place, found))) => {
                    self.changes.extend(self.union.replace(place, &found));
                }
                // Without a source there is nothing to wait for, and yet no end.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for Discovery {
    /// As `tower::discover::Discover` wants it.
    type Item = Result<Change, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_change(cx).map(|change| Some(Ok(change)))
    }
}
