//! `tokenglass demo` (stub)
use crate::config::Loaded;
use crate::telemetry;
use std::time::Duration;
/// stub
pub fn run(
    loaded: Loaded,
    log: &telemetry::Handle,
    _d: Option<Duration>,
) -> Result<(), crate::app::Error> {
    crate::app::run(loaded, log)
}
