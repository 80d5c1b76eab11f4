//! The endpoints of a Service, from its EndpointSlices, listed and then watched.
//!
//! # Rights
//!
//! The service account (or whom the kubeconfig names) needs, in the namespace of each target and nothing beyond it:
//!
//! ```yaml
//! apiVersion: rbac.authorization.k8s.io/v1
//! kind: Role
//! metadata: {name: tokenglass-discovery, namespace: NAMESPACE}
//! rules:
//!   - apiGroups: [discovery.k8s.io]
//!     resources: [endpointslices]
//!     verbs: [list, watch]
//! ```
//!
//! and a RoleBinding to its ServiceAccount in that namespace. `get` is not needed, nor are Services, Endpoints or Pods.
//! Slices are selected by the label `kubernetes.io/service-name`, which RBAC cannot be narrowed to. A target in another
//! namespace than the proxy's needs Role and RoleBinding there. `automountServiceAccountToken` must not be false.
//!
//! # Who is asked
//!
//! `$KUBECONFIG` if it is set; else in a pod (`$KUBERNETES_SERVICE_HOST`) the API server, by the pod's service account; else
//! `~/.kube/config`. It is TLS by rustls with the provider of everything else here. The account's token and the cluster's
//! certificate are read again each minute, as they rotate, and at once after a refusal.
//!
//! # When something fails
//!
//! What is known stays; after a pause that doubles up to 30 s all is set up anew and listed again. So a missing right or a
//! proxy that starts before its token needs no restart. A watch that the server ends in order goes on where it was,
//! without a list; one whose history is gone (410, in the stream or as a status) is listed again. What a list does not
//! name is gone. A Service that does not exist has no slices and so no upstreams: the API makes no difference there.
//!
//! kube's `watcher` alone would not do: it tries a watch that was refused with the *status* 410 again forever, it has no
//! time limit for an answer's head, and to a server that closes each watch at once it returns without a pause.

mod client;
mod error;

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_core::Stream as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};

use super::slices::Slices;
use super::{Failure, Outlet, ServicePort};
use crate::poll::jitter::jittered;
use error::Error;

/// How the API server is asked.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// A kubeconfig to use instead of what is found.
    pub kubeconfig: Option<PathBuf>,
    /// After the first failure, doubled with each that follows. On the average also the least time between two requests.
    /// 800 ms, as client-go
    pub pause: Duration,
    /// The longest pause. 30 s
    pub longest_pause: Duration,
    /// For the head of an answer, and for a whole list. 15 s
    pub limit: Duration,
    /// After so many seconds a watch is ended and begun again, in order and without a list; with 5 more, one over a
    /// connection that is silently dead. 60 s: client-go takes 5 to 10 minutes, but sends pings over HTTP/2
    pub watch_seconds: u32,
}

/// Whose endpoints.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port: ServicePort,
}

/// Pauses that double while failures follow each other.
#[derive(Debug)]
struct Pauses {
    first: Duration,
    longest: Duration,
    next: Duration,
    last: Option<Instant>,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            pause: Duration::from_millis(800),
            longest_pause: Duration::from_secs(30),
            limit: Duration::from_secs(15),
            watch_seconds: 60,
        }
    }
}

/// Never ends.
pub(super) async fn follow(service: Service, settings: Kubernetes, outlet: Outlet) {
    let mut pauses = Pauses::new(settings.pause, settings.longest_pause);
    loop {
        let Err(error) = watch(&service, &settings, &outlet).await;
        match error.failure() {
            Failure::Expired => outlet.expired(),
            failure => outlet.failed(failure, &error),
        }
        let asked_for = error.retry_after().min(settings.longest_pause);
        let pause = jittered(pauses.failed(Instant::now()));
        tokio::time::sleep(pause.max(asked_for)).await;
    }
}

/// Lists and watches until something fails.
async fn watch(
    service: &Service,
    settings: &Kubernetes,
    outlet: &Outlet,
) -> Result<std::convert::Infallible, Error> {
    let client = client::make(settings).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client, &service.namespace);
    let config = watcher::Config::default()
        .labels(&format!("kubernetes.io/service-name={}", service.name))
        .timeout(settings.watch_seconds);
    let mut events = pin!(watcher(slices, config));
    let mut known = Slices::new(service.port.clone());
    let mut listing = true;
    loop {
        let next = std::future::poll_fn(|cx| events.as_mut().poll_next(cx));
        let event = if listing {
            tokio::time::timeout(settings.limit, next)
                .await
                .map_err(|_elapsed| Error::Slow)?
        } else {
            next.await
        };
        match event.ok_or(Error::Ended)?.map_err(Box::new)? {
            Event::Init => {
                listing = true;
                known.clear();
            }
            Event::InitApply(slice) => known.apply(&slice),
            Event::InitDone => listing = false,
            Event::Apply(slice) => known.apply(&slice),
            Event::Delete(slice) => known.delete(&slice),
        }
        // Half a list says of what it does not name nothing.
        if !listing {
            if known.lacks_port() {
                outlet.doubtful("the Service has endpoints, but none with this port: a number is the one that the pods listen on, a name the Service's");
            }
            outlet.found(known.found());
        }
    }
}

// === impl Pauses ===

impl Pauses {
    fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
            last: None,
        }
    }

    /// How long to wait now. Long after the last failure it is the first one again; a success alone is no reason, for a
    /// list may work each time and the watch never.
    fn failed(&mut self, now: Instant) -> Duration {
        let calm = self.longest * 2;
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) > calm)
        {
            self.next = self.first;
        }
        self.last = Some(now);
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_begin_anew_after_calm() {
        let seconds = Duration::from_secs;
        let (mut pauses, now) = (Pauses::new(seconds(1), seconds(5)), Instant::now());
        let waited: Vec<_> = (0..5).map(|_| pauses.failed(now).as_secs()).collect();
        assert_eq!(waited, [1, 2, 4, 5, 5]);
        assert_eq!(pauses.failed(now + seconds(10)), seconds(5));
        assert_eq!(pauses.failed(now + seconds(21)), seconds(1));
        assert_eq!(pauses.failed(now + seconds(21)), seconds(2));
    }
}
