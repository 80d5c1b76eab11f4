//! The commands.

pub(crate) mod compare;
pub(crate) mod drill;
pub(crate) mod run;

use std::path::PathBuf;

/// Where the installing scripts put things unless told otherwise.
fn cache(name: &str) -> PathBuf {
    let cache = std::env::var_os("TGTEST_CACHE").map(PathBuf::from);
    let home =
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/tokenglass");
    cache.unwrap_or_else(home).join(name)
}
