//! Parse, load, start; everything else is in the library.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use tokenglass::cli::{self, Command, Failure};
use tokenglass::config::{self, Loaded, Sources};
use tokenglass::telemetry;

// A feature, so that sanitizers, heap profilers and odd platforms can have the system's allocator.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match cli::parse(env::args_os(), env::vars_os()) {
        Ok(command) => command,
        Err(error) => return cli::usage(&error),
    };
    cli::exit(match command {
        Command::Run(sources) => start(&sources, |loaded, _log| run_proxy(&loaded)),
        Command::Demo { sources, duration } => {
            start(&sources, |loaded, _log| run_demo(&loaded, duration))
        }
        Command::Validate(sources) => cli::validate(&sources),
        Command::Config(sources) => cli::config(&sources),
        Command::Completions(shell) => cli::completions(shell),
    })
}

fn start(
    sources: &Sources,
    run: impl FnOnce(Loaded, telemetry::Handle) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    let loaded = sources.load()?;
    config::check_files(&loaded)?;
    let log = telemetry::init(&loaded.config.log).map_err(anyhow::Error::from)?;
    Ok(run(loaded, log)?)
}

// STUB: to become `tokenglass::app::run(loaded, log)`.
fn run_proxy(loaded: &Loaded) -> anyhow::Result<()> {
    anyhow::bail!(
        "the proxy on {} is not wired yet",
        loaded.config.server.listen
    )
}

// STUB: to become `tokenglass::demo::run(loaded, duration)`.
fn run_demo(loaded: &Loaded, duration: Option<Duration>) -> anyhow::Result<()> {
    anyhow::bail!(
        "the demo on {} for {duration:?} is not wired yet",
        loaded.config.server.listen
    )
}
