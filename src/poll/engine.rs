//! Asks one vLLM for its own metrics, again and again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::CONTENT_ENCODING;

use super::client::{Client, ProbeError, Reply};
use super::jitter::jittered;
use crate::config::Config;
use crate::engine::Snapshots;

/// What we can read. Asked for nothing in particular, python's client answers in 1.0.0, which has quoted names.
const ACCEPT: &str = "text/plain; version=0.0.4";

/// One upstream's poll.
pub(super) struct Poll {
    pub(super) client: Rc<Client>,
    pub(super) config: Arc<Config>,
    pub(super) snapshots: Arc<Snapshots>,
    /// Its place among the upstreams.
    pub(super) upstream: usize,
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
        // The key is for vLLM's guarded paths, of which /metrics is none; sending it does no harm where somebody guards it.
        let key = self.config.health.api_key.as_ref();
        let reply = self
            .client
            .get(
                "/metrics",
                ACCEPT,
                key,
                settings.timeout,
                settings.max_bytes,
            )
            .await?;
        if reply.status != StatusCode::OK {
            return Err(ScrapeError::Status(reply.status));
        }
        match reply.headers.get(CONTENT_ENCODING) {
            Some(encoding) if encoding != "identity" => Err(ScrapeError::Encoded(
                String::from_utf8_lossy(encoding.as_bytes()).into_owned(),
            )),
            _ => Ok(reply),
        }
    }

    /// What one scrape has brought, and how long it took. Returns whether there are metrics.
    ///
    /// This is the one place where others who want the text or the timing are told: scrape duration and errors, the
    /// engine's own totals.
    fn on_scrape(&self, _duration: Duration, result: &Result<Reply, ScrapeError>) -> bool {
        let now = Instant::now();
        match result {
            Ok(reply) => self.snapshots.update(self.upstream, &reply.body, now),
            Err(_) => {
                self.snapshots.failed(self.upstream, now);
                false
            }
        }
    }
}
