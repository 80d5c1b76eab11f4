//! The validated configuration, and the way to it.
//!
//! Two stages. What was written (`file`, `environment`, flags) becomes a raw value with the place where it stands;
//! one table, `keys`, says for each key what it may be and where in [`Config`] it goes; `check` then looks at what only
//! shows in the whole. Nothing outside this module ever sees a raw form.
//!
//! A new key is a field here, its default in `default.rs`, a line in `keys.rs` and a line in `config/tokenglass.toml`;
//! a test fails where one of them is missing.

mod check;
mod default;
mod environment;
mod error;
mod file;
mod key;
mod keys;
mod kind;
mod load;
mod origin;
mod secret;
mod show;
mod suggest;
mod token_models;
mod units;
mod upstream_url;
mod value;

#[cfg(test)]
mod tests;

pub use self::check::check_files;
pub use self::error::{Errors, Place, Problem};
pub use self::load::{Loaded, Sources};
pub use self::origin::{Origin, Origins};
pub use self::secret::Secret;
pub use self::show::show;
pub use self::upstream_url::UrlError;

pub(crate) use self::error::reason;
pub(crate) use self::suggest::nearest;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderName;

use crate::discover::Target;
use crate::tenants::TenantLabel;

/// Everything that the process needs to know, checked and immutable.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The data port.
    pub server: Server,
    /// Where the traffic goes.
    pub upstream: Upstream,
    /// Several upstreams.
    pub gateway: Gateway,
    /// The admin port.
    pub admin: Admin,
    /// What is measured, and how much of the traffic it may keep.
    pub observe: Observe,
    /// Token counting without usage.
    pub tokens: Tokens,
    /// Labels by tenant.
    pub tenants: Tenants,
    /// Asking vLLM how it is.
    pub health: Health,
    /// vLLM's own metrics.
    pub engine: Engine,
    /// The GPUs.
    pub gpu: Gpu,
    /// How to end.
    pub shutdown: Shutdown,
    /// Logs.
    pub log: Log,
}

impl Config {
    /// Whether requests are shared out among several upstreams. With one of them everything is as if there were no such thing.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.upstream.urls.len() > 1 || !self.gateway.discover.is_empty()
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// `listen`: address of the data port. 0.0.0.0:8080
    pub listen: SocketAddr,
    /// `workers`: threads that carry traffic. One a core
    pub workers: usize,
    /// `max_connections`: beyond it new connections wait in the backlog. 16384
    pub max_connections: usize,
    /// `backlog` of the listening socket. 1024
    pub backlog: u32,
    /// `header_read_timeout`: request head must be complete, and an idle keep-alive connection is closed. 75 s
    pub header_read_timeout: Duration,
    /// `body_read_timeout`: the next piece of a request body. 60 s; 0 = none
    pub body_read_timeout: Option<Duration>,
    /// `send_timeout`: the client takes nothing of its answer. 2 min; 0 = none
    pub send_timeout: Option<Duration>,
    /// `max_headers` of a request. 100
    pub max_headers: usize,
    /// `max_header_bytes`: request line and headers. 64 KiB
    pub max_header_bytes: usize,
    /// `max_body_bytes` of a request; 0 = no limit, which is the default
    pub max_body_bytes: u64,
    /// `tls_cert` and `tls_key`: PEM files; both or neither. Without them plain HTTP
    pub tls: Option<TlsFiles>,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM, leaf first.
    pub cert: PathBuf,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// `[upstream]`
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `url`: one or more, `http://host:port`, `https://host:port`, `unix:/path`. http://127.0.0.1:8000, or none if
    /// `gateway.discover` says where they are
    pub urls: Vec<UpstreamUrl>,
    /// `connect_timeout`. 3 s
    pub connect_timeout: Duration,
    /// `head_timeout`: request sent → response head; prefill and queueing are in it. 10 min; 0 = none
    pub head_timeout: Option<Duration>,
    /// `idle_timeout`: silence within a response body. 10 min; 0 = none
    pub idle_timeout: Option<Duration>,
    /// `ack_timeout`: upstream's host acknowledges nothing, neither what was sent nor probes. 30 s; 0 = as the kernel does
    pub ack_timeout: Option<Duration>,
    /// `pool_idle_timeout`: below vLLM's keep-alive of 5 s. 3.5 s
    pub pool_idle_timeout: Duration,
    /// `pool_max_idle`: idle connections kept per worker and upstream. 512
    pub pool_max_idle: usize,
    /// `ca_file`: PEM roots for https upstreams. The system's
    pub ca_file: Option<PathBuf>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamUrl {
    /// `http://host[:port]`
    Http {
        /// Host name or address, IPv6 without brackets.
        host: String,
        /// 80 unless said.
        port: u16,
    },
    /// `https://host[:port]`
    Https {
        /// Host name or address, IPv6 without brackets.
        host: String,
        /// 443 unless said.
        port: u16,
    },
    /// `unix:/path/to/socket`
    Unix {
        /// The socket.
        path: PathBuf,
    },
}

/// `[gateway]`: all of it is inert with one upstream, unless that is a discovered one.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// `discover`: where upstreams are found at run time. None
    pub discover: Vec<Target>,
    /// `dns_interval` between two looks at a name. 5 s
    pub dns_interval: Duration,
    /// `affinity`: requests with the same value of this header go to the same upstream. None
    pub affinity: Option<HeaderName>,
    /// `max_head`: how far into a body `model` is looked for, and how long one may be that is sent a second time. 64 KiB
    pub max_head: usize,
    /// `max_in_flight`: requests that one upstream has at a time. None
    pub max_in_flight: Option<NonZeroUsize>,
    /// `queue`: requests that wait for a place at an upstream; beyond it they are refused at once. 0
    pub queue: usize,
    /// `queue_timeout`: how long one waits. 5 s
    pub queue_timeout: Duration,
    /// `retries` of one request on other upstreams. 2
    pub retries: u32,
    /// `eject_after`: failures in a row until an upstream is left alone. 5
    pub eject_after: u32,
    /// `eject_for`: how long, the first time; each time twice as long as the last. 10 s
    pub eject_for: Duration,
    /// `eject_max`: but no longer than this. 5 min
    pub eject_max: Duration,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `listen`. 0.0.0.0:9101
    pub listen: SocketAddr,
    /// `allow_remote`: answer `/config`, `/debug/*` and `/drain` to others than loopback. false
    pub allow_remote: bool,
    /// `remote_drain`: of these, `/drain` alone. false
    pub remote_drain: bool,
}

/// `[observe]`
#[derive(Clone, Debug, PartialEq)]
pub struct Observe {
    /// `enabled`: false forwards blind. true
    pub enabled: bool,
    /// `max_request_body`: a longer one is not read for `model` and `stream`. 4 MiB
    pub max_request_body: usize,
    /// `max_response_body`: of a longer one only the end is read. 1 MiB
    pub max_response_body: usize,
    /// `max_event`: a longer event is skipped. 1 MiB
    pub max_event: usize,
    /// `stall_after`: a stream silent for so long counts in `vllm_streams_stalled`. 10 s
    pub stall_after: Duration,
    /// `max_models`: label values of `model`. 200
    pub max_models: usize,
    /// `expire_after`: series of a model or tenant that nobody has used for so long are dropped. 24 h; 0 = never
    pub expire_after: Option<Duration>,
}

/// `[tokens]`
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// `estimate`: count with tiktoken where no usage passes by. true
    pub estimate: bool,
    /// `max_text`: bytes of generated text kept per stream for the estimate. 256 KiB
    pub max_text: usize,
    /// `usage`: ask vLLM for the counts that a client did not ask for, and take them out of the answer again. observe
    pub usage: UsageMode,
    /// `continuous`: with `usage = "inject"`, ask for counts with every chunk too. false
    pub continuous: bool,
    /// `queue`: texts waiting for the counting thread; more are dropped and counted. 1024
    pub queue: usize,
    /// `model`: models whose own tokenizer is at hand. None
    pub models: Vec<TokenModel>,
}

/// One of `[[tokens.model]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenModel {
    /// `name`: the names that upstream serves it under.
    pub names: Vec<String>,
    /// `tokenizer`: its tokenizer.json, or the folder of the model.
    pub tokenizer: PathBuf,
    /// `template`: a Jinja file or tokenizer_config.json. What lies beside the tokenizer
    pub template: Option<PathBuf>,
}

/// `tokens.usage`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageMode {
    /// Requests are not changed.
    Observe,
    /// `stream_options.include_usage` is added, and what it adds to the answer is taken out.
    Inject,
}

/// `[tenants]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenants {
    /// `labels`: `name=header:X-Team` or `name=api_key`. None
    pub labels: Vec<TenantLabel>,
    /// `map_file`: a TOML table from what a request carries to what is shown, read again when it changes. None
    pub map_file: Option<PathBuf>,
    /// `hash_key`: what is in no table is shown as a hash keyed with this. Without it: as `other`
    pub hash_key: Option<Secret>,
    /// `max_values` of each label. 200
    pub max_values: usize,
}

/// `[health]`
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// `enabled`: false asks nothing. true
    pub enabled: bool,
    /// `interval` between two rounds of `/health`, `/v1/models`, `/version` and `/load`. 5 s
    pub interval: Duration,
    /// `timeout` of each. 2 s
    pub timeout: Duration,
    /// `stalled_after`: requests in flight, and no sign of progress for so long. 30 s
    pub stalled_after: Duration,
    /// `api_key` for `/v1/models` of a vLLM with `--api-key`. None
    pub api_key: Option<Secret>,
}

/// `[engine]`
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    /// `metrics`: show what vLLM has on its `/metrics`. true
    pub metrics: bool,
    /// `interval` between two looks at it. 5 s
    pub interval: Duration,
    /// `timeout` of a look. 2 s
    pub timeout: Duration,
    /// `aliases`: add the names that vLLM's other versions use. true
    pub aliases: bool,
    /// `include`: only families whose names match one of these, `*` for anything. All
    pub include: Vec<String>,
    /// `exclude`: but none that matches one of these. None
    pub exclude: Vec<String>,
    /// `max_bytes` of an exposition; of a longer one nothing is shown. 16 MiB
    pub max_bytes: usize,
}

/// `[gpu]`
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// `mode`. auto
    pub mode: GpuMode,
    /// `library`: path of libnvidia-ml.so.1. Where the system has it
    pub library: Option<PathBuf>,
    /// `interval` between two polls. 5 s
    pub interval: Duration,
    /// `devices`: `all`, `container`, or UUIDs. all
    pub devices: Vec<String>,
    /// `naming`. dcgm
    pub naming: GpuNaming,
    /// `hostname_label`: `Hostname`, or `hostname` as dcgm-exporter has it from 4.8.3 on. Hostname
    pub hostname_label: HostnameLabel,
    /// `container`: value of a label of that name on every GPU series. None
    pub container: Option<String>,
    /// `namespace`: likewise. None
    pub namespace: Option<String>,
    /// `pod`: likewise. None
    pub pod: Option<String>,
    /// `processes`: memory of each process on a GPU. false
    pub processes: bool,
}

/// `gpu.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuMode {
    /// NVML if the machine has it; one line in the log if not.
    Auto,
    /// NVML, and a warning without it.
    Nvml,
    /// Nothing is loaded.
    Off,
}

/// `gpu.naming`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuNaming {
    /// As dcgm-exporter has them up to 4.8.
    Dcgm,
    /// As DCGM 4.7 and dcgm-exporter 4.9 have them: base units.
    Dcgm47,
}

/// `gpu.hostname_label`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostnameLabel {
    /// `Hostname`
    Upper,
    /// `hostname`
    Lower,
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq)]
pub struct Shutdown {
    /// `ready_delay`: `/readyz` says 503 for so long before the listener closes. 0 s
    pub ready_delay: Duration,
    /// `drain_timeout`: running streams may finish. 300 s
    pub drain_timeout: Duration,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `level`: a tracing filter, `info` or `tokenglass=debug,info`. info
    pub level: String,
    /// `format`. auto
    pub format: LogFormat,
}

/// `auto` is text on a terminal and JSON otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}
