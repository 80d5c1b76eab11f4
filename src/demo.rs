//! `tokenglass demo`: a simulated vLLM, the proxy in front of it, steady mixed traffic with some failures. What a
//! newcomer sees first, on a machine with nothing on it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use loadtest::sim::{self, Behaviour, Dist, Fault};
use loadtest::traffic::{Mix, Plan, Steady};
use tokio::sync::watch;

use crate::app::{App, Error};
use crate::config::{self, Config, Loaded, UpstreamUrl};
use crate::metrics::Metrics;
use crate::signals::Signals;

/// Requests a second.
const RATE: f64 = 8.0;
/// How often a line is printed.
const REPORT: Duration = Duration::from_secs(5);
/// Faults of the simulated vLLM, each with its share of requests.
const FAULTS: &str = r#"[
    [0.010, {"kind":"http","status":503,"shape":"nested","type":"Service Unavailable",
             "message":"The engine is currently busy and cannot accept new requests."}],
    [0.006, {"kind":"http","status":400,"shape":"nested","type":"BadRequestError",
             "message":"This model's maximum context length is 2048 tokens. However, your request has 4096 input tokens."}],
    [0.006, {"kind":"error_frame","after":3}],
    [0.006, {"kind":"truncate","after":5}],
    [0.004, {"kind":"reset","after":2}],
    [0.010, {"kind":"stall","after":4,"ms":2500}]
]"#;

/// Runs until a signal, or for `duration`.
///
/// # Errors
/// [`Error`] if a port or a thread cannot be had.
pub fn run(loaded: Loaded, duration: Option<Duration>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let vllm = simulator()?;
        let app = start(loaded, vllm.addr())?;
        welcome(&app, vllm.addr(), duration);
        let (stop, stopped) = watch::channel(());
        let traffic = tokio::spawn(steady(app.data()).run_until(until(stopped)));
        {
            let ended = async {
                match duration {
                    Some(duration) => tokio::time::sleep(duration).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => {}
                () = signals.end() => {}
                () = report(app.metrics(), vllm.truth()) => {}
            }
        }
        drop(stop);
        // The clients leave; then nothing is left to drain.
        let _summary = traffic.await;
        print(&totals(app.metrics()));
        let mut at_once = true;
        app.run_until(async || {
            // The first end begins the drain, the second (a signal) would cut it.
            if !std::mem::take(&mut at_once) {
                signals.end().await;
            }
        })
        .await;
        vllm.shutdown().await;
        Ok(())
    })
}

fn simulator() -> Result<sim::Server, Error> {
    let faults: Vec<(f64, Fault)> = serde_json::from_str(FAULTS).map_err(std::io::Error::other)?;
    let config = sim::Config {
        models: vec!["demo-8b".to_owned(), "demo-70b".to_owned()],
        behaviour: Behaviour {
            ttft_ms: Some(Dist::LogNormal {
                mean: 180.0,
                std: 120.0,
            }),
            itl_ms: Some(Dist::Normal {
                mean: 14.0,
                std: 4.0,
            }),
            faults,
            ..Behaviour::default()
        },
        ..sim::Config::default()
    };
    Ok(sim::Server::start(config).map_err(std::io::Error::other)?)
}

fn start(loaded: Loaded, vllm: SocketAddr) -> Result<App, Error> {
    let shown = config::show(&loaded);
    let mut config: Config = loaded.config;
    config.upstream.urls = vec![UpstreamUrl::Http {
        host: vllm.ip().to_string(),
        port: vllm.port(),
    }];
    App::start(config, shown)
}

fn steady(proxy: SocketAddr) -> Steady {
    let mut plan = Plan::new(reachable(proxy));
    plan.concurrency = 64;
    plan.keep_records = false;
    plan.id_prefix = "demo".to_owned();
    plan.mix = Mix {
        models: models(),
        max_tokens: Dist::LogNormal {
            mean: 90.0,
            std: 60.0,
        },
        ..Mix::default().with_cancels()
    };
    Steady { plan, rate: RATE }
}

/// Mostly the small one; now and then a client asks for one that is not there.
fn models() -> Vec<String> {
    [("demo-8b", 20), ("demo-70b", 9), ("no-such-model", 1)]
        .into_iter()
        .flat_map(|(name, share)| std::iter::repeat_n(name.to_owned(), share))
        .collect()
}

async fn until(mut stopped: watch::Receiver<()>) {
    let _closed = stopped.changed().await;
}

/// A wildcard address is no place to go to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

fn welcome(app: &App, vllm: SocketAddr, duration: Option<Duration>) {
    let (data, admin) = (reachable(app.data()), reachable(app.admin()));
    let length = duration.map_or("until ctrl-c".to_owned(), |d| {
        format!("for {} s", d.as_secs())
    });
    print(&format!(
        "tokenglass demo, {length}: clients → proxy → a simulated vLLM at {vllm}, about {RATE} requests a second.

Open
  http://{admin}/metrics    what is measured
  http://{admin}/config     what is configured
  http://{admin}/readyz     ready to serve?

Send your own through the proxy
  curl http://{data}/v1/models
  curl -N http://{data}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{\"model\":\"demo-8b\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}],\"stream\":true}}'
"
    ));
}

async fn report(metrics: &Metrics, truth: &sim::Truth) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + REPORT, REPORT);
    loop {
        tick.tick().await;
        // Nobody compares with it here, and a demo may run for days.
        truth.clear();
        print(&totals(metrics));
    }
}

/// One line from the same numbers that `/metrics` gives.
fn totals(metrics: &Metrics) -> String {
    let totals = metrics.totals();
    format!(
        "{:>6} ok {:>5} failed {:>5} cancelled {:>4} in flight   mean TTFT {:>5.0} ms   mean ITL {:>5.1} ms   {:>8.0} tokens out",
        totals.success,
        totals.error,
        totals.cancelled,
        totals.in_flight,
        totals.mean_ttft.as_secs_f64() * 1e3,
        totals.mean_itl.as_secs_f64() * 1e3,
        totals.output_tokens,
    )
}

/// Whoever closed our output does not want the rest of it.
fn print(line: &str) {
    let _closed = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faults_are_faults() {
        let faults: Vec<(f64, Fault)> = serde_json::from_str(FAULTS).unwrap();
        assert!(faults.iter().map(|(share, _)| share).sum::<f64>() < 0.1);
    }
}
