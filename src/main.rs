//! Parse, load, start; everything else is in the library.

use std::env;
use std::process::ExitCode;

use tokenglass::cli::{self, Command, Failure};
use tokenglass::config::{self, Loaded, Sources};
use tokenglass::kubernetes::webhook;
use tokenglass::{app, demo, telemetry};

// A feature, so that sanitizers, heap profilers and odd platforms can have the system's allocator.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    small_pages();
    let command = match cli::parse(env::args_os(), env::vars_os()) {
        Ok(command) => command,
        Err(error) => return cli::usage(&error),
    };
    cli::exit(match command {
        Command::Run(sources) => start(&sources, |loaded, log| Ok(app::run(loaded, &log)?)),
        Command::Demo { sources, duration } => {
            start(&sources, |loaded, _log| Ok(demo::run(loaded, duration)?))
        }
        Command::Validate(sources) => cli::validate(&sources),
        Command::Config(sources) => cli::config(&sources),
        Command::Inject {
            file,
            check,
            settings,
        } => cli::inject(&file, check, &settings),
        Command::Webhook { sources, options } => {
            start(&sources, |_loaded, _log| Ok(webhook::run(*options)?))
        }
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

/// Where the system gives huge pages unasked (`transparent_hugepage/enabled` is `always`), a thread's first byte costs
/// 2 MiB, and what streams have left is never given back. Refused, it is a matter of memory only.
#[cfg(target_os = "linux")]
fn small_pages() {
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}
