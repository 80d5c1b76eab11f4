mod files;
mod mistakes;
mod precedence;
mod shipped;
mod showing;
mod urls;

use std::ffi::OsString;
use std::fs;

use tempfile::TempDir;

use super::{Errors, Loaded, Sources};

/// Sources with a file of this text, an environment and flags; each may be empty.
fn load(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, Errors> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.toml");
    fs::write(&path, text).unwrap();
    let mut sources = sources(environment).with_file(Some(path));
    for (flag, value) in flags {
        sources = sources.with_flag(flag, [(*value).to_owned()]);
    }
    sources.load()
}

fn sources(environment: &[(&str, &str)]) -> Sources {
    Sources::new(
        environment
            .iter()
            .map(|(name, value)| (OsString::from(name), value.into())),
    )
}

/// The errors of a file, one a line, without its directory.
fn mistakes(text: &str) -> Vec<String> {
    lines(&load(text, &[], &[]).unwrap_err())
}

fn lines(errors: &Errors) -> Vec<String> {
    let line = |line: &str| match line.split_once("x.toml") {
        Some((_, rest)) => format!("x.toml{rest}"),
        None => line.to_owned(),
    };
    errors.to_string().lines().map(line).collect()
}
