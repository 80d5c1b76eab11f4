//! `tokenglass.dev/status`: what was injected, so that twice is once.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::settings::Settings;

/// Version of the stamp's maker.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Tells settings apart: the first 12 hexadecimal digits of SHA-256 over version and settings.
pub(super) fn hash(settings: &Settings) -> String {
    let text = format!("{VERSION} {settings:?}");
    let digest = digest(&SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The annotation's value.
pub(super) fn stamp(settings: &Settings, container: &str, ports: [u16; 3]) -> String {
    let [listen, upstream, admin] = ports;
    json!({
        "version": VERSION,
        "hash": hash(settings),
        "container": container,
        "ports": {"listen": listen, "upstream": upstream, "admin": admin},
    })
    .to_string()
}

/// Whether a stamp is by this version with these settings.
pub(super) fn is_same(stamp: &str, settings: &Settings) -> bool {
    serde_json::from_str::<Value>(stamp)
        .is_ok_and(|stamp| stamp.get("hash") == Some(&json!(hash(settings))))
}
