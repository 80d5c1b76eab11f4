//! The simulator and the traffic from a command line.

#![expect(
    clippy::print_stdout,
    reason = "a command line tool reports on its standard output"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use loadtest::sim::{Behaviour, Config, Dist, Fault, Listen, Server};
use loadtest::traffic::{self, Mix, Plan, Steady, Target};

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
    /// Send mixed traffic and print what came back.
    Run(Box<RunArgs>),
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

#[derive(Args)]
struct RunArgs {
    /// http://host:port, or unix:path.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: Target,
    /// Requests in flight at once.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How many; 1000 if there is no duration either.
    #[arg(long)]
    requests: Option<u64>,
    /// For how many seconds.
    #[arg(long, value_parser = seconds)]
    duration: Option<Duration>,
    /// Requests a second, instead of as many as go.
    #[arg(long)]
    rate: Option<f64>,
    /// Share of streams, 0 to 1.
    #[arg(long, default_value_t = 0.8)]
    stream_share: f64,
    /// Share of streams with include_usage, 0 to 1.
    #[arg(long, default_value_t = 0.5)]
    usage_share: f64,
    /// max_tokens: a number or a distribution in JSON.
    #[arg(long, default_value = "16", value_parser = dist)]
    max_tokens: Dist,
    /// Models to ask for.
    #[arg(long = "model", default_value = "tiny")]
    models: Vec<String>,
    /// One client in ten leaves before it has all.
    #[arg(long)]
    cancels: bool,
    /// An `x-sim` header for all requests.
    #[arg(long)]
    directive: Option<String>,
    /// An API key.
    #[arg(long)]
    api_key: Option<String>,
    /// Close the connection after each request.
    #[arg(long)]
    no_keep_alive: bool,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
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
        Command::Run(args) => send(*args),
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

fn send(args: RunArgs) -> anyhow::Result<()> {
    let mix = Mix {
        stream: args.stream_share,
        usage: args.usage_share,
        models: args.models,
        max_tokens: args.max_tokens,
        ..Mix::default()
    };
    let mut plan = Plan::new(args.url);
    plan.concurrency = args.concurrency;
    plan.requests = args.requests.or(args.duration.is_none().then_some(1000));
    plan.duration = args.duration;
    plan.mix = if args.cancels {
        mix.with_cancels()
    } else {
        mix
    };
    plan.directives.extend(args.directive.map(|d| (1.0, d)));
    let key = args.api_key.map(|key| format!("Bearer {key}"));
    plan.headers
        .extend(key.map(|key| ("authorization".to_owned(), key)));
    plan.keep_alive = !args.no_keep_alive;
    plan.keep_records = false;
    plan.seed = args.seed;
    let summary = runtime()?.block_on(async {
        match args.rate {
            Some(rate) => Steady { plan, rate }.run_until(until(args.duration)).await,
            None => traffic::run(plan).await,
        }
    });
    if args.json {
        println!("{}", summary.to_json());
    } else {
        println!("{summary}");
    }
    Ok(())
}

async fn until(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => drop(tokio::signal::ctrl_c().await),
    }
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

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
