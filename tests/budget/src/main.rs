//! Counts the instructions of a fixed replay under callgrind, and holds them against `budget.toml`.
//!
//! Time cannot be a budget: on a shared machine it varies by more than any change that is worth catching. The
//! instructions of one thread that does the same thing every time hardly vary at all. `tests/budget/run` is how to start
//! it.

// It is a test: what is not as expected ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::large_futures
)]

mod budget;
mod capture;
mod check;
mod environment;
mod observed;
mod proxied;
mod scenario;
mod scraped;

use std::process::ExitCode;

/// Where the recorded exchanges are.
const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../captures");

// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["replay", name, n] => {
            let n = n.parse()?;
            let all = scenario::all();
            let scenario = all.iter().find(|scenario| scenario.name == name);
            let run = scenario.map(|scenario| scenario.run);
            run.ok_or_else(|| anyhow::anyhow!("no scenario is called {name}"))?(n);
            Ok(ExitCode::SUCCESS)
        }
        [] => check::run(false),
        ["--update"] => check::run(true),
        _ => {
            eprintln!("usage: tests/budget/run [--update]");
            Ok(ExitCode::from(64))
        }
    }
}
