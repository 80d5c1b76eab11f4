//! `loadtest drill`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use loadtest::drill::Plan;

use super::cache;
use crate::runtime;

/// The options of `loadtest drill`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these alerts.
    #[arg(long, value_name = "ALERT", num_args = 1..)]
    only: Vec<String>,
    /// List the alerts with their faults.
    #[arg(long)]
    list: bool,
    /// Write the table here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// tokenglass.
    #[arg(long, default_value = "target/release/tokenglass")]
    bin: PathBuf,
    /// The stub of NVML.
    #[arg(long, default_value = "target/release/libnvml_stub.so")]
    nvml: PathBuf,
    /// Where tests/prometheus/install.sh has put Prometheus and Alertmanager.
    #[arg(long, value_name = "DIR")]
    prometheus_dir: Option<PathBuf>,
    /// The rule files.
    #[arg(long, value_name = "DIR", default_value = "deploy/prometheus/rules")]
    rules: PathBuf,
    /// Alertmanager's configuration.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "deploy/alertmanager/alertmanager.yml"
    )]
    alertmanager_config: PathBuf,
    /// What durations are divided by; those above 5 min by less and less.
    #[arg(long, default_value_t = 50.0)]
    scale: f64,
}

/// Drills and prints.
pub(crate) fn drill(args: Args) -> anyhow::Result<()> {
    if args.list {
        for [alert, severity, fault, hidden] in Plan::alerts() {
            println!(
                "{}",
                format!("{alert:<32} {severity:<12} {fault:<40} {hidden}").trim_end()
            );
        }
        return Ok(());
    }
    let absolute = |path: PathBuf| {
        let found = path.canonicalize();
        found.with_context(|| format!("{} is not there", path.display()))
    };
    let plan = Plan {
        only: args.only,
        binary: absolute(args.bin)?,
        nvml: absolute(args.nvml)?,
        installed: absolute(args.prometheus_dir.unwrap_or_else(|| cache("prometheus")))?,
        rules: absolute(args.rules)?,
        routing: absolute(args.alertmanager_config)?,
        scale: args.scale,
    };
    let progress = |line: &str| drop(writeln!(io::stderr(), "{line}"));
    let report = runtime()?.block_on(async {
        // Dropping the drill ends what it has started; dying of the signal would not.
        let mut terminated =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            report = plan.run(progress) => report,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminated.recv() => anyhow::bail!("terminated"),
        }
    })?;
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, report.to_json())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    anyhow::ensure!(report.passed(), "not every alert did what it should");
    Ok(())
}
