//! The commands that only print.

use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::exit::Failure;
use crate::config::{Sources, check_files, show};
use crate::kubernetes::injector::Settings;
use crate::kubernetes::manifest;

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

/// `tokenglass inject -f FILE`: the manifests to stdout, what was done and what not to stderr.
///
/// # Errors
///
/// If the file cannot be read or is no YAML; with `check` also if any pod is refused.
pub fn inject(file: &Path, check: bool, settings: &Settings) -> Result<(), Failure> {
    let shown = if file == Path::new("-") {
        "stdin".into()
    } else {
        file.to_string_lossy()
    };
    let text = read(file).with_context(|| format!("cannot read {shown}"))?;
    let done = manifest::rewrite(&text, settings)
        .map_err(anyhow::Error::from)
        .context(shown.into_owned())?;
    let mut stderr = io::stderr().lock();
    for report in &done.reports {
        // As in `exit`: nobody is left to tell where stderr is closed.
        let _ = writeln!(stderr, "{report}");
    }
    drop(stderr);
    if !check {
        return print(done.text.as_bytes());
    }
    match done.refused() {
        0 => Ok(()),
        refused => Err(anyhow::anyhow!("{refused} of {} refused", done.reports.len()).into()),
    }
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // The reader is gone (`| head`): that is its way to say that it has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to stdout")?),
    }
}
