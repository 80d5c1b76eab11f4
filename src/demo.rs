//! `tokenglass demo` (stub)
use std::time::Duration;
use crate::config::Loaded;
use crate::telemetry;
/// stub
pub fn run(loaded: Loaded, log: &telemetry::Handle, _d: Option<Duration>) -> Result<(), crate::app::Error> { crate::app::run(loaded, log) }
