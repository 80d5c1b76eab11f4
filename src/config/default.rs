//! The defaults. `config/tokenglass.toml` says the same, with the reasons; a test compares the two.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{
    Admin, Config, Engine, Gateway, Gpu, GpuMode, GpuNaming, Health, HostnameLabel, Log, LogFormat,
    Observe, Server, Shutdown, Tenants, Tokens, Upstream, UpstreamUrl, UsageMode,
};

const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// More threads than this are a slip.
pub(super) const MOST_WORKERS: usize = 1024;

/// One worker a core, as far as the process may use them: cgroup quotas and affinity count.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server {
                listen: SocketAddr::new(ANYWHERE, 8080),
                workers: workers(),
                max_connections: 16_384,
                backlog: 1024,
                header_read_timeout: Duration::from_secs(75),
                body_read_timeout: Some(Duration::from_secs(60)),
                send_timeout: Some(Duration::from_secs(120)),
                max_headers: 100,
                max_header_bytes: 64 << 10,
                max_body_bytes: 0,
                tls: None,
            },
            upstream: Upstream {
                urls: vec![UpstreamUrl::Http {
                    host: "127.0.0.1".to_owned(),
                    port: 8000,
                }],
                connect_timeout: Duration::from_secs(3),
                head_timeout: Some(Duration::from_secs(600)),
                idle_timeout: Some(Duration::from_secs(600)),
                ack_timeout: Some(Duration::from_secs(30)),
                pool_idle_timeout: Duration::from_millis(3500),
                pool_max_idle: 512,
                ca_file: None,
            },
            gateway: Gateway {
                discover: Vec::new(),
                dns_interval: Duration::from_secs(5),
                affinity: None,
                max_head: 64 << 10,
                max_in_flight: None,
                queue: 0,
                queue_timeout: Duration::from_secs(5),
                retries: 2,
                eject_after: 5,
                eject_for: Duration::from_secs(10),
                eject_max: Duration::from_secs(300),
            },
            admin: Admin {
                listen: SocketAddr::new(ANYWHERE, 9101),
                allow_remote: false,
                remote_drain: false,
            },
            observe: Observe {
                enabled: true,
                max_request_body: 4 << 20,
                max_response_body: 1 << 20,
                max_event: 1 << 20,
                stall_after: Duration::from_secs(10),
                max_models: 200,
                expire_after: Some(Duration::from_secs(24 * 60 * 60)),
            },
            tokens: Tokens {
                estimate: true,
                max_text: 256 << 10,
                usage: UsageMode::Observe,
                continuous: false,
                queue: 1024,
                models: Vec::new(),
            },
            tenants: Tenants {
                max_values: 200,
                ..Tenants::default()
            },
            health: Health {
                enabled: true,
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(2),
                stalled_after: Duration::from_secs(30),
                api_key: None,
            },
            engine: Engine {
                metrics: true,
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(2),
                aliases: true,
                include: Vec::new(),
                exclude: Vec::new(),
                max_bytes: 16 << 20,
            },
            gpu: Gpu {
                mode: GpuMode::Auto,
                library: None,
                interval: Duration::from_secs(5),
                devices: vec!["all".to_owned()],
                naming: GpuNaming::Dcgm,
                hostname_label: HostnameLabel::Upper,
                container: None,
                namespace: None,
                pod: None,
                processes: false,
            },
            shutdown: Shutdown {
                ready_delay: Duration::ZERO,
                drain_timeout: Duration::from_secs(300),
            },
            log: Log {
                level: "info".to_owned(),
                format: LogFormat::Auto,
            },
        }
    }
}
