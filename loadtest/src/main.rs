//! The simulator, the traffic and the comparison from a command line.

#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on its standard output"
)]

mod cli;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use loadtest::sim::{Behaviour, Config, Dist, Fault, Listen, Server};

use cli::{compare, drill, run};

#[derive(Parser)]
#[command(name = "loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a simulated vLLM until ctrl-c.
    Sim(Box<SimArgs>),
    /// Send mixed traffic to any vLLM or proxy and print what came back: to size a deployment.
    Run(Box<run::Args>),
    /// Measure what tokenglass costs, beside other proxies, on this machine.
    Compare(compare::Args),
    /// Make each alert's fault happen, with real Prometheus and Alertmanager, and see what becomes of it.
    Drill(Box<drill::Args>),
    /// The origin of a comparison, which starts it.
    #[command(hide = true)]
    Origin(compare::OriginArgs),
    /// A contestant of a comparison, which starts it: bytes copied and nothing else.
    #[command(hide = true)]
    Relay(compare::RelayArgs),
}

#[derive(Args)]
struct SimArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Listen on this Unix socket instead.
    #[arg(long)]
    unix: Option<PathBuf>,
    /// Models to serve.
    #[arg(long = "model", default_value = "tiny")]
    models: Vec<String>,
    /// Time to first token, ms: a number or a distribution in JSON.
    #[arg(long, value_parser = dist)]
    ttft_ms: Option<Dist>,
    /// Time between tokens, ms: a number or a distribution in JSON.
    #[arg(long, value_parser = dist)]
    itl_ms: Option<Dist>,
    /// Tokens a choice: a number or a distribution in JSON.
    #[arg(long, value_parser = dist)]
    output_tokens: Option<Dist>,
    /// The whole default behaviour as JSON; the options above speak over it.
    #[arg(long, default_value = "{}", value_parser = json::<Behaviour>)]
    behaviour: Behaviour,
    /// Faults and their probabilities, `[[0.01,{"kind":"reset"}],…]`, or `mixed` for a little of each.
    #[arg(long)]
    faults: Option<String>,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ask for this key.
    #[arg(long)]
    api_key: Option<String>,
    /// Threads, each with a simulator of its own on the same port.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

const MIXED: &str = r#"[[0.01,{"kind":"http","status":503}],[0.01,{"kind":"http","status":500}],
    [0.01,{"kind":"http","status":400}],[0.01,{"kind":"error_frame","after":4}],
    [0.005,{"kind":"cut_mid_frame","after":3}],[0.005,{"kind":"cut_no_done","after":3}],
    [0.005,{"kind":"truncate","after":3}],[0.005,{"kind":"reset","after":3}],[0.005,{"kind":"reset"}],
    [0.005,{"kind":"close_before_head"}],[0.01,{"kind":"slow_head","ms":200}],
    [0.01,{"kind":"stall","after":4,"ms":500}]]"#;

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Sim(args) => simulate(*args),
        Command::Run(args) => run::run(*args),
        Command::Compare(args) => compare::compare(&args),
        Command::Drill(args) => drill::drill(*args),
        Command::Origin(args) => compare::origin(&args),
        Command::Relay(args) => compare::relay(&args),
    }
}

fn simulate(args: SimArgs) -> anyhow::Result<()> {
    let mut behaviour = args.behaviour;
    behaviour.ttft_ms = args.ttft_ms.or(behaviour.ttft_ms);
    behaviour.itl_ms = args.itl_ms.or(behaviour.itl_ms);
    behaviour.output_tokens = args.output_tokens.or(behaviour.output_tokens);
    if let Some(faults) = &args.faults {
        let text = if faults == "mixed" { MIXED } else { faults };
        behaviour.faults = serde_json::from_str::<Vec<(f64, Fault)>>(text).context("--faults")?;
    }
    let config = Config {
        listen: args.unix.map_or(Listen::Tcp(args.listen), Listen::Unix),
        models: args.models,
        behaviour,
        seed: args.seed,
        api_key: args.api_key,
        keep_alive: None,
        reuse_port: args.threads > 1,
    };
    println!("simulating vLLM on {:?}", config.listen);
    for thread in 1..args.threads {
        let mut config = config.clone();
        config.seed = config.seed.wrapping_add(thread as u64);
        std::thread::spawn(move || serve(config));
    }
    // The other threads end with the process.
    serve(config)
}

fn serve(config: Config) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let server = Server::start(config)?;
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                result = &mut interrupted => {
                    result?;
                    break;
                }
                // Nobody reads the ground truth here, and it must not fill the memory.
                () = tokio::time::sleep(Duration::from_secs(1)) => server.truth().clear(),
            }
        }
        println!("{} requests seen", server.requests_seen());
        server.shutdown().await;
        Ok(())
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn dist(text: &str) -> Result<Dist, String> {
    json(text)
}
