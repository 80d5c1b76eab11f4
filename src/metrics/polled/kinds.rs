//! The closed sets of the pollers' labels and verdicts.

use crate::poll::Model;

/// The `endpoint` label of `vllm_exporter_scrape_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/health`
    Health,
    /// `/v1/models`
    Models,
    /// `/metrics`
    Metrics,
}

crate::outcome::labels!(Endpoint {
    Health => "health",
    Models => "models",
    Metrics => "metrics",
});

/// The `error_type` label of `vllm_probe_request_error_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Not reached, or broken off.
    Connection,
    /// No whole answer in time.
    Timeout,
    /// An answer whose status is not 2xx.
    Status,
}

crate::outcome::labels!(ProbeFailure {
    Connection => "connection_error",
    Timeout => "timeout",
    Status => "http_status",
});

/// What is known of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing<'a> {
    /// They are these.
    Models(&'a [Model]),
    /// The list is not ours to see (401, 403).
    Withheld,
    /// There should be one, and was not.
    Failed,
}
