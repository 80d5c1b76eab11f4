//! The commands that only print.

use std::io::{self, Write};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::exit::Failure;
use crate::config::{Sources, check_files, show};

/// `tokenglass validate`
///
/// # Errors
///
/// Every mistake in the configuration, the files that it names included.
pub fn validate(sources: &Sources) -> Result<(), Failure> {
    let loaded = sources.load()?;
    check_files(&loaded)?;
    match loaded.file() {
        Some(path) => print(format!("ok: {}\n", path.display()).as_bytes()),
        None => print(b"ok: no file, defaults and environment only\n"),
    }
}

/// `tokenglass config`
///
/// # Errors
///
/// As [`Sources::load`], or if stdout takes nothing.
pub fn config(sources: &Sources) -> Result<(), Failure> {
    print(show(&sources.load()?).as_bytes())
}

/// `tokenglass completions SHELL`
///
/// # Errors
///
/// If stdout takes nothing.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    // Into memory first: clap_complete panics where its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut super::Arguments::command(),
        "tokenglass",
        &mut script,
    );
    print(&script)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // The reader is gone (`| head`): that is its way to say that it has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to stdout")?),
    }
}
