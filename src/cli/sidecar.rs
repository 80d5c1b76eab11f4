//! The sidecar's settings as flags, of the same names as the annotations.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};

use super::Arguments;
use crate::kubernetes::injector::Settings;

#[derive(Args, Debug)]
#[command(next_help_heading = "Sidecar (annotations tokenglass.dev/… of a pod go first)")]
pub(super) struct Sidecar {
    /// The sidecar's image
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The proxy's port instead of vLLM's own, which then stays where it is
    #[arg(long, value_name = "PORT")]
    listen_port: Option<String>,
    /// Where vLLM goes instead of the next free port
    #[arg(long, value_name = "PORT")]
    upstream_port: Option<String>,
    /// Metrics, health and drain [default: 9101]
    #[arg(long, value_name = "PORT")]
    admin_port: Option<String>,
    /// vLLM's container, where it cannot be told
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// off, nvml or dcgm-exporter [default: off]
    #[arg(long, value_name = "MODE")]
    gpu: Option<String>,
    /// An init container that goes on running, as Kubernetes has from 1.29 on [default: true]
    #[arg(long, value_name = "BOOL")]
    native_sidecar: Option<String>,
    /// The sidecar's log filter
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    /// Threads that carry traffic [default: 2]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// CPU that the sidecar asks for [default: 100m]
    #[arg(long, value_name = "QUANTITY")]
    cpu_request: Option<String>,
    /// Memory that it asks for [default: 64Mi]
    #[arg(long, value_name = "QUANTITY")]
    memory_request: Option<String>,
    /// Memory that it may have [default: 512Mi]
    #[arg(long, value_name = "QUANTITY")]
    memory_limit: Option<String>,
    /// How long running streams may take to end [default: 300s]
    #[arg(long, value_name = "TIME")]
    drain_timeout: Option<String>,
    /// How long it goes on serving once it is no longer ready [default: 5s]
    #[arg(long, value_name = "TIME")]
    ready_delay: Option<String>,
    /// The least time that pods get to end [default: drain timeout, ready delay and 15s]
    #[arg(long, value_name = "TIME")]
    grace_period: Option<String>,
    /// A ConfigMap with tokenglass.toml
    #[arg(long, value_name = "NAME")]
    config: Option<String>,
}

impl Sidecar {
    /// The defaults with these.
    pub(super) fn settings(self) -> Result<Settings, clap::Error> {
        let mut settings = Settings::default();
        for (name, value) in self.given() {
            settings
                .set(name, &value, &format!("--{name}"))
                .map_err(|bad| Arguments::command().error(ErrorKind::ValueValidation, bad))?;
        }
        Ok(settings)
    }

    fn given(self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("image", self.image),
            ("listen-port", self.listen_port),
            ("upstream-port", self.upstream_port),
            ("admin-port", self.admin_port),
            ("container", self.container),
            ("gpu", self.gpu),
            ("native-sidecar", self.native_sidecar),
            ("log-level", self.log_level),
            ("workers", self.workers),
            ("cpu-request", self.cpu_request),
            ("memory-request", self.memory_request),
            ("memory-limit", self.memory_limit),
            ("drain-timeout", self.drain_timeout),
            ("ready-delay", self.ready_delay),
            ("grace-period", self.grace_period),
            ("config", self.config),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}
