//! `loadtest run`: traffic from a command line.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use loadtest::sim::Dist;
use loadtest::traffic::{self, Mix, Plan, Steady, Summary, Target};

use crate::{dist, runtime};

/// The options of `loadtest run`.
#[derive(clap::Args)]
pub(crate) struct Args {
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
    /// Bytes of prompt: a number or a distribution in JSON.
    #[arg(long, value_parser = dist)]
    prompt_bytes: Option<Dist>,
    /// When a client gives up on an answer, in seconds.
    #[arg(long, default_value = "600", value_parser = seconds)]
    timeout: Duration,
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

/// A bar of requests or of time, on a terminal only.
struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// What the bar measures, if it is time.
    duration: Option<Duration>,
}

/// Sends, shows how far it is on a terminal, and prints the report.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mix = Mix {
        stream: args.stream_share,
        usage: args.usage_share,
        models: args.models,
        max_tokens: args.max_tokens,
        prompt_bytes: args.prompt_bytes,
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
    plan.timeout = args.timeout;
    plan.keep_records = false;
    plan.seed = args.seed;
    let mut progress = Progress::new(plan.requests.filter(|_| args.rate.is_none()), args.duration);
    let watch = |summary: &Summary| progress.show(summary);
    let summary = runtime()?.block_on(async {
        match args.rate {
            Some(rate) => {
                Steady { plan, rate }
                    .watch_until(until(args.duration), watch)
                    .await
            }
            None => traffic::watch(plan, watch).await,
        }
    });
    progress.end();
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

// === impl Progress ===

impl Progress {
    fn new(requests: Option<u64>, duration: Option<Duration>) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // It draws on standard error, and on no pipe.
        let (bar, template) = match (requests, duration) {
            (_, Some(duration)) => (
                ProgressBar::new(millis(duration)),
                "{elapsed} {wide_bar} {percent}%  {msg}",
            ),
            (Some(requests), None) => (
                ProgressBar::new(requests),
                "{elapsed} {wide_bar} {pos}/{len}  {msg}",
            ),
            (None, None) => (ProgressBar::new_spinner(), "{elapsed} {spinner} {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bar,
            started: Instant::now(),
            duration,
        }
    }

    fn show(&mut self, summary: &Summary) {
        let requests = summary.requests();
        let elapsed = self.started.elapsed();
        let position = match self.duration {
            Some(_) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            None => requests,
        };
        self.bar.set_position(position);
        // A string for each of thousands of requests a second would be load of its own.
        if requests.is_multiple_of(16) {
            let rate = requests as f64 / elapsed.as_secs_f64().max(1e-3);
            let errors = summary.errors();
            self.bar
                .set_message(format!("{rate:.0} requests/s, {errors} errors"));
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
