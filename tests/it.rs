//! All integration tests in one binary, which links once.

#[path = "it/cli.rs"]
mod cli;
