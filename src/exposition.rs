//! `/metrics`: what is measured here, what the pollers have found and what vLLM says of itself, in one text.

mod accept;
pub mod gzip;
pub(crate) mod help;
mod number;
pub(crate) mod registry;
mod writer;

use std::sync::Arc;
use std::time::Instant;

pub use accept::{format, takes_gzip};
pub use writer::{Format, Kind, Writer};

use crate::engine::Snapshots;
use crate::metrics::Metrics;

/// All that a scrape shows.
#[derive(Debug)]
pub struct Exposition {
    /// What is measured here, and what the pollers count.
    pub metrics: Arc<Metrics>,
    /// What vLLM says of itself; `None` if nobody asks it.
    pub engine: Option<Arc<Snapshots>>,
}

impl Exposition {
    /// The whole text.
    #[must_use]
    pub fn render(&self, format: Format) -> Vec<u8> {
        let mut out = Writer::new(format);
        self.metrics.write(&mut out);
        // The GPUs come here: gpu.write(&mut out).
        if let Some(engine) = &self.engine {
            engine.write(&mut out, Instant::now());
        }
        out.finish()
    }
}

impl Format {
    /// What `Content-Type` calls it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}
