//! Asks one vLLM for its own metrics, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};

use super::client::{Client, ProbeError, Reply};
use super::jitter::jittered;
use super::totals::{EngineTotals, engine_totals};
use crate::config::Config;
use crate::engine::Snapshots;
use crate::metrics::Metrics;
use crate::metrics::polled::{Endpoint, Upstream};

/// What we can read. Asked for nothing in particular, python's client answers in 1.0.0, which has quoted names.
const ACCEPT: &str = "text/plain; version=0.0.4";

/// One upstream's poll.
pub(super) struct Poll {
    pub(super) client: Client,
    pub(super) config: Arc<Config>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) upstream: Arc<Upstream>,
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("status {0}")]
    Status(StatusCode),
    /// Nobody has asked for that.
    #[error("an answer in {0:?}")]
    Encoded(String),
    #[error("an answer without any metrics")]
    Empty,
}

impl Poll {
    /// Polls for as long as it is polled.
    pub(super) async fn run(self) {
        let settings = &self.config.engine;
        let mut next = tokio::time::Instant::now();
        let mut was_up = None;
        loop {
            let began = Instant::now();
            self.metrics.polled.asking(&self.upstream);
            let result = self.ask().await;
            let up = self.on_scrape(began.elapsed(), &result);
            // Once each time it turns, not every few seconds.
            if was_up != Some(up) {
                let url = self.client.url();
                match &result {
                    Err(error) => {
                        tracing::warn!(upstream = %url, %error, "vLLM's own metrics cannot be read");
                    }
                    Ok(_) if !up => {
                        tracing::warn!(upstream = %url, error = %ScrapeError::Empty, "vLLM's own metrics cannot be read");
                    }
                    Ok(_) => tracing::info!(upstream = %url, "vLLM's own metrics are read"),
                }
            }
            was_up = Some(up);
            // A slow answer does not shift the rhythm, and a very slow one does not cause a burst.
            next = (next + jittered(settings.interval)).max(tokio::time::Instant::now());
            tokio::time::sleep_until(next).await;
        }
    }

    async fn ask(&self) -> Result<Reply, ScrapeError> {
        let settings = &self.config.engine;
        let reply = self
            .client
            .get(
                "/metrics",
                ACCEPT,
                None,
                settings.timeout,
                settings.max_bytes,
            )
            .await?;
        if reply.status != StatusCode::OK {
            return Err(ScrapeError::Status(reply.status));
        }
        match encoding(&reply.headers) {
            Some(encoding) => Err(ScrapeError::Encoded(encoding)),
            None => Ok(reply),
        }
    }

    /// What one scrape has brought, and how long it took. Returns whether there are metrics.
    fn on_scrape(&self, took: Duration, result: &Result<Reply, ScrapeError>) -> bool {
        let now = Instant::now();
        let text = result.as_ref().map(|reply| &*reply.body);
        let up = match text {
            Ok(text) => self.snapshots.update(self.upstream.id(), text, now),
            Err(_) => {
                self.snapshots.failed(self.upstream.id());
                false
            }
        };
        let polled = &self.metrics.polled;
        polled.scraped(&self.upstream, Endpoint::Metrics, took, up);
        polled.engine(&self.upstream, text.ok().and_then(totals), now);
        up
    }
}

/// What the answer is packed with, if it is.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let encoding = headers.get(CONTENT_ENCODING)?.as_bytes();
    (!encoding.eq_ignore_ascii_case(b"identity"))
        .then(|| String::from_utf8_lossy(encoding).into_owned())
}

/// The engine's counters. A byte that is no text costs only its own line, as where the lines are shown.
fn totals(text: &[u8]) -> Option<EngineTotals> {
    engine_totals(&String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_byte_costs_no_totals() {
        let text = b"a{x=\"\xff\"} 1\nvllm:prompt_tokens_total{m=\"\xc3\"} 7\nvllm:generation_tokens_total 8\n";
        let totals = totals(text).unwrap();
        assert_eq!((totals.prompt, totals.generation), (7.0, 8.0));
        assert_eq!(super::totals(b"\xff"), None);
    }

    #[test]
    fn identity_is_no_encoding_however_it_is_written() {
        for (value, packed) in [
            ("identity", false),
            ("IDENTITY", false),
            ("gzip", true),
            ("", true),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, value.parse().unwrap())]);
            assert_eq!(encoding(&headers).is_some(), packed, "{value}");
        }
        assert_eq!(encoding(&HeaderMap::new()), None);
    }
}
