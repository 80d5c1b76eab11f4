//! What the traffic says of each of several upstreams, and what the gateway had to turn away.
//!
//! Requests are counted here once for each time that they are sent; that is all there is by upstream: the request
//! families have no such label, or each pod would multiply them.

use std::array;
use std::sync::{Arc, OnceLock, Weak};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::family::Maker;
use super::{Metrics, buckets};
use crate::config::UpstreamUrl;
use crate::discover::{Failure, Report, Target};
use crate::gateway::Registry;

/// The `reason` label of `tokenglass_upstream_errors_total`, in the words of `error_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection.
    Connect,
    /// No head in time.
    Timeout,
    /// Closed, reset or not HTTP, before the head or inside the body.
    Reset,
    /// 503.
    Overloaded,
    /// A 500 that says so.
    EngineDead,
    /// Another 500.
    InternalError,
    /// Another 5xx.
    ServerError,
}

crate::outcome::labels!(Reason {
    Connect => "upstream_connect",
    Timeout => "upstream_timeout",
    Reset => "upstream_reset",
    Overloaded => "overloaded",
    EngineDead => "engine_dead",
    InternalError => "internal_error",
    ServerError => "server_error",
});

/// The `reason` label of `tokenglass_gateway_rejected_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// All upstreams have `gateway.max_in_flight` requests, and no more may wait.
    Full,
    /// It waited for `gateway.queue_timeout`.
    Timeout,
    /// There is no upstream.
    NoUpstream,
}

crate::outcome::labels!(Rejected {
    Full => "full",
    Timeout => "timeout",
    NoUpstream => "no_upstream",
});

/// The families.
#[derive(Debug)]
pub struct Upstreams {
    requests: IntCounterVec,
    errors: IntCounterVec,
    latency: HistogramVec,
    in_flight: IntGaugeVec,
    healthy: IntGaugeVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
    /// By [`Rejected`].
    rejected: [IntCounter; Rejected::ALL.len()],
    queue: IntGauge,
    found: IntGaugeVec,
    failures: IntCounterVec,
    /// It has the families, not the other way round.
    registry: OnceLock<Weak<Registry>>,
}

/// The series of one upstream.
#[derive(Debug)]
pub struct Meters {
    /// `tokenglass_upstream_requests_total`
    pub requests: IntCounter,
    errors: [IntCounter; Reason::ALL.len()],
    /// `tokenglass_upstream_latency_seconds`
    pub latency: Histogram,
    /// `tokenglass_upstream_in_flight`
    pub in_flight: IntGauge,
    /// `tokenglass_upstream_healthy`
    pub healthy: IntGauge,
    /// `tokenglass_upstream_ejections_total`
    pub ejections: IntCounter,
    /// `tokenglass_upstream_retries_total`
    pub retries: IntCounter,
}

impl Upstreams {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let label = &["upstream"];
        let rejected = make.counter_vec(
            "tokenglass_gateway_rejected_total",
            "Requests that the gateway answered with 503 itself, by why.",
            &["reason"],
        )?;
        Ok(Self {
            requests: make.counter_vec("tokenglass_upstream_requests_total", "Requests sent to an upstream, each time that one is sent.", label)?,
            errors: make.counter_vec("tokenglass_upstream_errors_total", "Requests that an upstream failed, by how; those that were then tried elsewhere included.", &["upstream", "reason"])?,
            latency: make.histograms("tokenglass_upstream_latency_seconds", "Request head sent to an upstream to response head received from it.", buckets::DURATION, label)?,
            in_flight: make.gauges("tokenglass_upstream_in_flight", "Requests that an upstream has, until their answers have ended.", label)?,
            healthy: make.gauges("tokenglass_upstream_healthy", "Whether requests go to an upstream: 0 while /health fails, or while it is left alone after failures.", label)?,
            ejections: make.counter_vec("tokenglass_upstream_ejections_total", "Times that an upstream was left alone after gateway.eject_after failures in a row.", label)?,
            retries: make.counter_vec("tokenglass_upstream_retries_total", "Requests that were taken from an upstream to another.", label)?,
            rejected: array::from_fn(|index| {
                let reason = Rejected::ALL.get(index).map_or("", |reason| reason.as_label());
                rejected.with_label_values(&[reason])
            }),
            queue: make.gauge("tokenglass_gateway_queue", "Requests that wait for a place at an upstream.")?,
            found: make.gauges("tokenglass_discovery_upstreams", "Upstreams that are there by what gateway.discover says.", &["target"])?,
            failures: make.counter_vec("tokenglass_discovery_failures_total", "Times that a source of upstreams could not be asked; what it found last stays.", &["target", "reason"])?,
            registry: OnceLock::new(),
        })
    }

    /// Whose upstreams they are.
    pub fn of(&self, registry: &Arc<Registry>) {
        // There is one gateway in a process.
        let _second = self.registry.set(Arc::downgrade(registry));
    }

    /// Upstreams are looked for there. Born at 0.
    pub fn looks(&self, target: &Target) {
        let target = target.to_string();
        self.found.with_label_values(&[&target]).set(0);
        for failure in Failure::ALL {
            let values = &[&*target, failure.as_label()];
            self.failures.with_label_values(values);
        }
    }

    /// The series of an upstream, born now.
    #[must_use]
    pub fn add(&self, url: &UpstreamUrl) -> Meters {
        let name = name(url);
        let label = &[&*name];
        Meters {
            requests: self.requests.with_label_values(label),
            errors: array::from_fn(|index| {
                let reason = Reason::ALL
                    .get(index)
                    .map_or("", |reason| reason.as_label());
                self.errors.with_label_values(&[&name, reason])
            }),
            latency: self.latency.with_label_values(label),
            in_flight: self.in_flight.with_label_values(label),
            healthy: self.healthy.with_label_values(label),
            ejections: self.ejections.with_label_values(label),
            retries: self.retries.with_label_values(label),
        }
    }

    /// The upstream is gone. What still runs there is counted on series that nobody sees.
    pub fn remove(&self, url: &UpstreamUrl) {
        let name = name(url);
        let label = &[&*name];
        for family in [&self.requests, &self.ejections, &self.retries] {
            let _absent = family.remove_label_values(label);
        }
        for family in [&self.in_flight, &self.healthy] {
            let _absent = family.remove_label_values(label);
        }
        let _absent = self.latency.remove_label_values(label);
        for reason in Reason::ALL {
            let _absent = self.errors.remove_label_values(&[&name, reason.as_label()]);
        }
    }

    /// A request was turned away.
    pub fn reject(&self, why: Rejected) {
        if let Some(counter) = self.rejected.get(why as usize) {
            counter.inc();
        }
    }

    pub(super) fn refresh(&self) {
        if let Some(registry) = self.registry.get().and_then(Weak::upgrade) {
            let waiting = registry.show();
            self.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }
}

impl Meters {
    /// `tokenglass_upstream_errors_total`
    #[must_use]
    pub fn error(&self, reason: Reason) -> &IntCounter {
        // One for each reason.
        self.errors.get(reason as usize).unwrap_or(&self.requests)
    }
}

/// `host:port`, or a socket's path.
fn name(url: &UpstreamUrl) -> String {
    match url {
        UpstreamUrl::Http { host, port } | UpstreamUrl::Https { host, port } => {
            if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        }
        UpstreamUrl::Unix { path } => path.display().to_string(),
    }
}

impl Report for Arc<Metrics> {
    fn reached(&self, target: &Target, upstreams: usize) {
        let found = self
            .upstreams
            .found
            .with_label_values(&[&*target.to_string()]);
        found.set(i64::try_from(upstreams).unwrap_or(i64::MAX));
    }

    fn failed(&self, target: &Target, failure: Failure) {
        let values = &[&*target.to_string(), failure.as_label()];
        self.upstreams.failures.with_label_values(values).inc();
    }
}
