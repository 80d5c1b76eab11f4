//! What one scrape of a full endpoint costs, in CPU time of the thread that renders it.
//!
//! 200 models on two endpoints, streaming and not, every family that such traffic uses; vLLM's own families; as many samples
//! as eight GPUs have. `cargo run --release --example scrape_cost [MODELS]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenglass::classify::Endpoint;
use tokenglass::config::{Config, GpuMode, Tenants as TenantConfig};
use tokenglass::engine::{Filter, Settings, Snapshots, Taken};
use tokenglass::exposition::{Exposition, Format, Gzip};
use tokenglass::gpu::{Gpu, Place};
use tokenglass::metrics::{Key, Metrics, Series};
use tokenglass::tenants::Tenants;
use tokenglass::upstream::OpenConnections;

// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The clock of a thread may only tick every few milliseconds.
const ROUNDS: u32 = 25;

fn main() {
    let models = std::env::args().nth(1).map_or(200, |n| n.parse().unwrap());
    let exposition = full(models);
    let recorded = engine_text();
    let snapshots = engine(Taken::default());
    let reading = mean(|| {
        assert!(snapshots.update(0, recorded.as_bytes(), Instant::now()));
    });
    println!(
        "reading vLLM's {} KiB: {reading:.2} ms",
        recorded.len() / 1024
    );
    for format in [Format::Text, Format::OpenMetrics] {
        let text = exposition.render(format);
        let packed = exposition.render_packed(format).len();
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        println!(
            "{format:?}: {lines} lines, {} KiB, {} KiB packed",
            text.len() / 1024,
            packed / 1024
        );
        println!(
            "  render             {:6.2} ms",
            mean(|| drop(exposition.render(format)))
        );
        println!(
            "  gzip alone         {:6.2} ms",
            mean(|| {
                let mut gzip = Gzip::default();
                gzip.pack(&text);
                drop(gzip.finish());
            })
        );
        println!(
            "  render and gzip    {:6.2} ms",
            mean(|| drop(exposition.render_packed(format)))
        );
    }
}

/// The mean of many rounds, in milliseconds on the CPU.
fn mean(mut work: impl FnMut()) -> f64 {
    work();
    let before = on_cpu();
    for _ in 0..ROUNDS {
        work();
    }
    ((on_cpu() - before) / ROUNDS).as_secs_f64() * 1e3
}

/// The time that this thread has been running.
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn full(models: usize) -> Exposition {
    let registry = prometheus::Registry::new();
    let tenants = Tenants::new(&TenantConfig::default()).unwrap();
    let mut config = Config::default();
    config.observe.max_models = 1000;
    let metrics = Metrics::new(&registry, OpenConnections::default(), &config, tenants).unwrap();
    let endpoints = [Endpoint::ChatCompletions, Endpoint::Completions];
    for model in 0..models {
        for endpoint in endpoints {
            for stream in [true, false] {
                let key = Key {
                    model: format!("organisation/some-model-{model}-instruct").into(),
                    endpoint,
                    stream,
                    tenants: Default::default(),
                };
                fill(&metrics, &key, model as f64);
            }
        }
    }
    let names = metrics.names();
    let taken = Taken::new(names.iter().map(|(name, kind)| (name.as_str(), *kind)));
    let engine = engine(taken);
    assert!(engine.update(0, engine_text().as_bytes(), Instant::now()));
    let mut off = Config::default().gpu;
    off.mode = GpuMode::Off;
    let gpu = Gpu::start(&off, &Place::default()).unwrap();
    Exposition::new(Arc::new(metrics), Some(Arc::new(engine)), gpu)
}

fn engine(taken: Taken) -> Snapshots {
    let settings = Settings {
        filter: Filter::default(),
        aliases: true,
        fresh: Duration::from_secs(3600),
    };
    Snapshots::new(settings, taken, ["http://127.0.0.1:8000".to_owned()])
}

/// What traffic of every kind leaves in one series of each family.
fn fill(metrics: &Metrics, key: &Key, model: f64) {
    let series = Series::new(metrics, key);
    series.in_flight.inc();
    let labels = key.values(&[]);
    // What has no first token has no time to it.
    let streams = [
        (&metrics.ttft, 0.2),
        (&metrics.first_answer, 0.3),
        (&metrics.itl, 0.02),
        (&metrics.tpot, 0.02),
        (&metrics.longest_stall, 0.1),
        (&metrics.frontend, 0.003),
    ];
    let streams = streams.into_iter().filter(|_| key.stream);
    for (family, scale) in streams.chain([(&metrics.duration, 3.0)]) {
        for n in 1..50 {
            family
                .with_label_values(&labels)
                .observe(scale * (1.0 + model.sin()) * f64::from(n) / 10.0);
        }
    }
    for family in [&metrics.input_tokens, &metrics.output_tokens] {
        for n in 1..50 {
            family
                .with_label_values(&key.values(&["usage"]))
                .observe(f64::from(n * 17));
        }
    }
    for family in [
        &metrics.success,
        &metrics.cached_tokens,
        &metrics.reasoning_tokens,
    ] {
        family
            .with_label_values(&labels)
            .inc_by(1 + model as u64 * 7919);
    }
    for reason in ["stop", "length", "tool_calls"] {
        metrics
            .finish
            .with_label_values(&key.values(&[reason]))
            .inc();
    }
}

/// A recorded vLLM's, and gauges as eight GPUs have them.
fn engine_text() -> String {
    let recorded = include_str!("captures/metrics-under-load.resp");
    let mut text = recorded
        .split_once("\n\n")
        .or(recorded.split_once("\r\n\r\n"))
        .unwrap()
        .1
        .to_owned();
    for family in 0..40 {
        writeln!(
            text,
            "# HELP gpu_field_{family} Something.\n# TYPE gpu_field_{family} gauge"
        )
        .unwrap();
        for gpu in 0..8 {
            writeln!(text, "gpu_field_{family}{{gpu=\"{gpu}\",UUID=\"GPU-00000000-0000-0000-0000-00000000000{gpu}\",device=\"nvidia{gpu}\",modelName=\"NVIDIA H100 80GB HBM3\",Hostname=\"node-1\"}} {}", family * gpu).unwrap();
        }
    }
    text
}
