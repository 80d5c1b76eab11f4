//! What a scrape costs: rendering what traffic has left, and reading what vLLM says of itself.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenglass::config::{Config, GpuMode};
use tokenglass::engine::{Filter, Settings, Snapshots, Taken};
use tokenglass::exposition::{Exposition, Format};
use tokenglass::gpu::{Gpu, Place};

use crate::capture::Capture;
use crate::observed::{Replay, metrics, recorder};

/// Models in the exposition.
const MODELS: usize = 10;

/// What vLLM said of itself.
const ENGINE: &str = "metrics-under-load";

/// An endpoint as a scraper asks, `n` times.
pub(crate) fn rendered(packed: bool, n: usize) {
    let exposition = full();
    for _ in 0..n {
        let text = if packed {
            exposition.render_packed(Format::Text)
        } else {
            exposition.render(Format::Text)
        };
        assert!(black_box(text).len() > 10_000);
    }
}

/// A recorded vLLM's metrics, read `n` times.
pub(crate) fn read(n: usize) {
    let snapshots = snapshots(Taken::default());
    let text = Capture::read(ENGINE).body;
    for _ in 0..n {
        assert!(snapshots.update(0, &text, Instant::now()));
    }
}

/// What a few models' traffic leaves.
pub(crate) fn full() -> Exposition {
    let config = Config::default();
    let metrics = metrics(&config);
    let mut replay = Replay::on(recorder(&config, &metrics));
    for name in ["chat-stream-usage", "chat-nonstream"] {
        for model in 0..MODELS {
            let mut capture = Capture::read(name);
            let body = std::str::from_utf8(&capture.body).unwrap();
            let body = body.replace("\"tiny\"", &format!("\"some/model-{model}-instruct\""));
            capture.body = body.into();
            let reads = capture.body.chunks(300);
            replay.exchange("/v1/chat/completions", &capture, reads);
        }
    }
    let names = metrics.names();
    let taken = Taken::new(names.iter().map(|(name, kind)| (name.as_str(), *kind)));
    let engine = snapshots(taken);
    assert!(engine.update(0, &Capture::read(ENGINE).body, Instant::now()));
    let mut off = config.gpu;
    off.mode = GpuMode::Off;
    let gpu = Gpu::start(&off, &Place::default()).unwrap();
    Exposition::new(metrics, Some(Arc::new(engine)), gpu)
}

fn snapshots(taken: Taken) -> Snapshots {
    let settings = Settings {
        filter: Filter::default(),
        aliases: true,
        fresh: Duration::from_secs(3600),
    };
    Snapshots::new(settings, taken, ["http://127.0.0.1:8000".to_owned()])
}
