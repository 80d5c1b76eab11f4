//! How the process ends: one line for each thing that went wrong, and a status that scripts can tell apart.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{Errors, reason};

/// sysexits(3) `EX_CONFIG`: a restart will not help, the configuration must change.
const CONFIG: u8 = 78;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong: exit status 78.
    #[error(transparent)]
    Config(#[from] Errors),
    /// Anything later, a port in use for one: exit status 1.
    #[error(transparent)]
    Runtime(#[from] anyhow::Error),
}

/// Says what went wrong, if anything, and gives the exit status.
pub fn exit(result: Result<(), Failure>) -> ExitCode {
    let (lines, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Config(errors)) => (
            errors.problems().iter().map(ToString::to_string).collect(),
            ExitCode::from(CONFIG),
        ),
        Err(Failure::Runtime(error)) => (vec![one_line(&error)], ExitCode::FAILURE),
    };
    let mut stderr = io::stderr().lock();
    for line in lines {
        // Nobody is left to tell where stderr is closed; `eprintln!` would panic.
        let _ = writeln!(stderr, "tokenglass: {line}");
    }
    code
}

/// Ends on clap's error: help and version go to stdout with 0, usage to stderr with 2.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The chain of causes in one line, each said once.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause
            .downcast_ref::<io::Error>()
            .map_or_else(|| cause.to_string(), reason);
        // Many an error has its cause in its own text already.
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_failure_is_one_plain_line() {
        let in_use = io::Error::from_raw_os_error(98);
        let error = Err::<(), _>(in_use)
            .context("cannot listen on 127.0.0.1:8080")
            .unwrap_err();
        assert_eq!(
            one_line(&error),
            "cannot listen on 127.0.0.1:8080: address already in use"
        );
        let error = anyhow::anyhow!("inner").context("outer: inner");
        assert_eq!(one_line(&error), "outer: inner");
    }
}
