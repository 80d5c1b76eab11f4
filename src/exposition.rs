//! `/metrics`: what is measured here, what the pollers have found and what vLLM says of itself, in one text.

mod accept;
mod gzip;
pub(crate) mod help;
mod number;
pub(crate) mod registry;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use accept::{format, takes_gzip};
pub use gzip::Gzip;
pub use writer::{Format, Kind, Writer};

use crate::engine::Snapshots;
use crate::gpu::Gpu;
use crate::metrics::Metrics;

/// All that a scrape shows.
#[derive(Debug)]
pub struct Exposition {
    /// What is measured here, and what the pollers count.
    pub metrics: Arc<Metrics>,
    /// What vLLM says of itself; `None` if nobody asks it.
    engine: Option<Arc<Snapshots>>,
    gpu: Gpu,
    /// How long the last one was.
    last: AtomicUsize,
    pause: Duration,
}

/// Enough for the workers on this core to do what has come in meanwhile. Megabytes of text take a tenth of a second or two
/// with it, which no scraper notices.
const PAUSE: Duration = Duration::from_micros(250);

impl Exposition {
    /// Shows these.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, engine: Option<Arc<Snapshots>>, gpu: Gpu) -> Self {
        Self {
            metrics,
            engine,
            gpu,
            last: AtomicUsize::new(0),
            pause: Duration::ZERO,
        }
    }

    /// Rests again and again while it renders, on a thread that may be blocked for it ([`Writer::pausing`]).
    #[must_use]
    pub fn beside_traffic(self) -> Self {
        Self {
            pause: PAUSE,
            ..self
        }
    }

    /// The whole text.
    #[must_use]
    pub fn render(&self, format: Format) -> Vec<u8> {
        // One piece of memory of the right size, instead of ever larger ones that are copied.
        let last = self.last.load(Ordering::Relaxed);
        let text = self.write(Writer::new(format, last + last / 16));
        self.last.store(text.len(), Ordering::Relaxed);
        text
    }

    /// The whole text in gzip.
    #[must_use]
    pub fn render_packed(&self, format: Format) -> Vec<u8> {
        self.write(Writer::packed(format))
    }

    fn write(&self, mut out: Writer) -> Vec<u8> {
        out = out.pausing(self.pause);
        self.metrics.write(&mut out);
        self.gpu.write(&mut out);
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
