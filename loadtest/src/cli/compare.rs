//! `loadtest compare` and the processes that it starts.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use loadtest::compare::{Common, Origin, Pace, Peer, Plan};

use super::cache;
use crate::runtime;

/// The options of `loadtest compare`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these scenarios. streams-… come only when asked for.
    #[arg(long = "scenario", value_name = "NAME", num_args = 1..)]
    scenarios: Vec<String>,
    /// Only these contestants, and direct. litellm and tokenglass-scraped come only when asked for.
    #[arg(long = "peer", value_name = "NAME", num_args = 1..)]
    peers: Vec<Peer>,
    /// Workers of each; twice for both numbers, one after the other.
    #[arg(long, default_values_t = [1])]
    workers: Vec<usize>,
    /// tokenglass.
    #[arg(long, default_value = "target/release/tokenglass")]
    bin: PathBuf,
    /// Another build of tokenglass, measured beside it.
    #[arg(long, value_name = "BIN")]
    other: Option<PathBuf>,
    /// Where peers/install.sh has put the others.
    #[arg(long)]
    peers_dir: Option<PathBuf>,
    /// Write everything measured here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A fraction of the time and of the open streams: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
}

/// The options of `loadtest origin`.
#[derive(clap::Args)]
pub(crate) struct OriginArgs {
    #[arg(long, default_value_t = 0)]
    first_us: u64,
    #[arg(long, default_value_t = 0)]
    gap_us: u64,
    #[arg(long)]
    eager: bool,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 1)]
    streams: usize,
    #[arg(long, default_value_t = 0)]
    models: usize,
}

/// The options of `loadtest relay`.
#[derive(clap::Args)]
pub(crate) struct RelayArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
}

/// Measures and prints.
pub(crate) fn compare(args: &Args) -> anyhow::Result<()> {
    if args.list {
        for (name, about, asked) in Plan::scenarios() {
            let when = if asked { " (only when asked for)" } else { "" };
            println!("{name:<12} {about}{when}");
        }
        return Ok(());
    }
    let plan = Plan {
        rounds: args.rounds.max(1),
        scenarios: args.scenarios.clone(),
        peers: args.peers.clone(),
        workers: args.workers.clone(),
        binary: args.bin.clone(),
        other: args.other.clone(),
        installed: args.peers_dir.clone().unwrap_or_else(|| cache("peers")),
        quick: args.quick,
    };
    let progress = |line: &str| drop(writeln!(io::stderr(), "{line}"));
    let report = runtime()?.block_on(async {
        // Dropping the comparison ends what it has started; dying of the signal would not.
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
    let damaged = report.damaged();
    anyhow::ensure!(
        damaged == 0,
        "{damaged} answers did not come through tokenglass as they were"
    );
    Ok(())
}

/// Says where it listens, and ends when its standard input does.
pub(crate) fn origin(args: &OriginArgs) -> anyhow::Result<()> {
    let common = Common::new(Pace {
        first: Duration::from_micros(args.first_us),
        gap: Duration::from_micros(args.gap_us),
        eager: args.eager,
        streams: args.streams,
        models: args.models,
    });
    let (say, addr) = std::sync::mpsc::channel();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let serve = move |listen: SocketAddr| -> anyhow::Result<()> {
        let (say, common) = (say.clone(), Arc::clone(&common));
        std::thread::Builder::new().spawn(move || -> anyhow::Result<()> {
            runtime()?.block_on(async {
                let origin = Origin::bind(listen, true, common)?;
                say.send(origin.addr())?;
                origin.serve().await;
                Ok(())
            })
        })?;
        Ok(())
    };
    serve(any)?;
    let first = addr.recv()?.context("no address")?;
    for _ in 1..args.threads {
        serve(first)?;
        addr.recv()?;
    }
    println!("{first}");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Until it is killed.
pub(crate) fn relay(args: &RelayArgs) -> anyhow::Result<()> {
    runtime()?.block_on(loadtest::compare::relay(args.listen, args.upstream))?;
    Ok(())
}
