//! The table of keys. A key that is not here does not exist.

use super::key::Key;
use super::kind::{
    Address, Bytes, Count, Delay, Discoveries, File, Filter, Format, Header, Hidden, Hostname,
    Kind, Labels, Limit, Mode, Naming, Positive, Switch, Text, Timeout, Urls, Usage, Words,
};
use super::token_models::TokenModels;
use super::units::{KIB, MIB};

macro_rules! key {
    ($section:ident.$name:ident: $kind:expr) => {
        key!($section.$name: $kind => config.$section.$name)
    };
    ($section:ident.$name:ident: $kind:expr => $($field:ident).+) => {
        Key {
            section: stringify!($section),
            name: stringify!($name),
            flag: None,
            list: false,
            secret: false,
            write: |draft, value| {
                draft.$($field).+ = $kind.read(value)?;
                Ok(())
            },
            read: |draft| $kind.show(&draft.$($field).+),
        }
    };
}

/// In the order in which they are printed.
pub(super) static KEYS: &[Key] = &[
    key!(server.listen: Address).flag("--listen"),
    // 0 is one a core; it does not get past `check`.
    key!(server.workers: Count(0, 1024)).flag("--workers"),
    key!(server.max_connections: Count(1, 10_000_000)),
    // The kernel's own limit (net.core.somaxconn) is applied without a word; a C int is all that listen(2) takes.
    key!(server.backlog: Count(1, i32::MAX as u64)),
    key!(server.header_read_timeout: Positive),
    key!(server.body_read_timeout: Timeout),
    key!(server.send_timeout: Timeout),
    key!(server.max_headers: Count(1, 10_000)),
    // hyper panics below 8 KiB.
    key!(server.max_header_bytes: Bytes(8 * KIB, 16 * MIB)),
    key!(server.max_body_bytes: Bytes(0, u64::MAX)),
    key!(server.tls_cert: File => tls_cert),
    key!(server.tls_key: File => tls_key),
    key!(upstream.url: Urls => config.upstream.urls)
        .flag("--upstream")
        .list(),
    key!(upstream.connect_timeout: Positive),
    key!(upstream.head_timeout: Timeout),
    key!(upstream.idle_timeout: Timeout),
    key!(upstream.ack_timeout: Timeout),
    key!(upstream.pool_idle_timeout: Positive),
    key!(upstream.pool_max_idle: Count(0, 1_000_000)),
    key!(upstream.ca_file: File),
    key!(gateway.discover: Discoveries).list(),
    key!(gateway.dns_interval: Positive),
    key!(gateway.affinity: Header),
    key!(gateway.max_head: Bytes(KIB, 16 * MIB)),
    key!(gateway.max_in_flight: Limit(1_000_000)),
    key!(gateway.queue: Count(0, 1_000_000)),
    key!(gateway.queue_timeout: Positive),
    key!(gateway.retries: Count(0, 100)),
    key!(gateway.eject_after: Count(1, 1_000_000)),
    key!(gateway.eject_for: Positive),
    key!(gateway.eject_max: Positive),
    key!(admin.listen: Address).flag("--admin"),
    key!(admin.allow_remote: Switch),
    key!(admin.remote_drain: Switch),
    key!(observe.enabled: Switch),
    key!(observe.max_request_body: Bytes(KIB, 1024 * MIB)),
    key!(observe.max_response_body: Bytes(KIB, 1024 * MIB)),
    key!(observe.max_event: Bytes(KIB, 1024 * MIB)),
    key!(observe.stall_after: Positive),
    key!(observe.max_models: Count(1, 100_000)),
    key!(observe.expire_after: Timeout),
    key!(tokens.estimate: Switch),
    key!(tokens.max_text: Bytes(KIB, 1024 * MIB)),
    key!(tokens.usage: Usage),
    key!(tokens.continuous: Switch),
    key!(tokens.queue: Count(1, 1_000_000)),
    key!(tokens.model: TokenModels => config.tokens.models).list(),
    key!(tenants.labels: Labels).list(),
    key!(tenants.map_file: File),
    key!(tenants.hash_key: Hidden).secret(),
    key!(tenants.max_values: Count(1, 100_000)),
    key!(health.enabled: Switch),
    key!(health.interval: Positive),
    key!(health.timeout: Positive),
    key!(health.stalled_after: Positive),
    key!(health.api_key: Hidden).secret(),
    key!(engine.metrics: Switch),
    key!(engine.interval: Positive),
    key!(engine.timeout: Positive),
    key!(engine.aliases: Switch),
    key!(engine.include: Words).list(),
    key!(engine.exclude: Words).list(),
    key!(engine.max_bytes: Bytes(64 * KIB, 1024 * MIB)),
    key!(gpu.mode: Mode),
    key!(gpu.library: File),
    key!(gpu.interval: Positive),
    key!(gpu.devices: Words).list(),
    key!(gpu.naming: Naming),
    key!(gpu.hostname_label: Hostname),
    key!(gpu.container: Text),
    key!(gpu.namespace: Text),
    key!(gpu.pod: Text),
    key!(gpu.processes: Switch),
    key!(shutdown.ready_delay: Delay),
    key!(shutdown.drain_timeout: Delay),
    key!(log.level: Filter).flag("--log-level"),
    key!(log.format: Format),
];

/// The row of a key.
pub(super) fn index(section: &str, name: &str) -> Option<usize> {
    KEYS.iter()
        .position(|key| key.section == section && key.name == name)
}

/// The sections, each once, in the table's order.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}
