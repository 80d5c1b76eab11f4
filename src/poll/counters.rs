//! Reads vLLM's own counters, for what they are held against.

use std::sync::Arc;
use std::time::Instant;

use super::pace::jittered;
use super::totals::engine_totals;
use super::{Client, ProbeError, Reply};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::metrics::polled::Endpoint;

/// Round after round. Never returns.
pub(super) async fn run(
    upstream: usize,
    client: Client,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
) {
    let engine = &config.engine;
    loop {
        let started = Instant::now();
        let next = tokio::time::Instant::now() + jittered(engine.interval);
        metrics.polled.asking(upstream);
        let get = client.get(
            "/metrics",
            "text/plain",
            None,
            engine.timeout,
            engine.max_bytes,
        );
        let totals = totals(&get.await);
        let polled = &metrics.polled;
        polled.scraped(
            upstream,
            Endpoint::Metrics,
            started.elapsed(),
            totals.is_some(),
        );
        polled.engine(upstream, totals, Instant::now());
        tokio::time::sleep_until(next).await;
    }
}

fn totals(result: &Result<Reply, ProbeError>) -> Option<super::EngineTotals> {
    let reply = result.as_ref().ok()?;
    if !reply.status.is_success() {
        return None;
    }
    engine_totals(std::str::from_utf8(&reply.body).ok()?)
}
