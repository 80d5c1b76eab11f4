//! What may be set: defaults, then flags of the command, then annotations of the pod.

use std::time::Duration;

use super::outcome::Warning;
use super::pod::Pod;
use super::stamp;
use super::{INJECT, PREFIX, STATUS};

/// The names, as flags (`--image`) and as annotations (`tokenglass.dev/image`).
pub const NAMES: &[&str] = &[
    "image",
    "listen-port",
    "upstream-port",
    "admin-port",
    "container",
    "gpu",
    "native-sidecar",
    "log-level",
    "workers",
    "cpu-request",
    "memory-request",
    "memory-limit",
    "drain-timeout",
    "ready-delay",
    "grace-period",
    "config",
];

/// How the sidecar is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The sidecar's image.
    pub image: String,
    /// The proxy's port; vLLM's own, if not given.
    pub listen_port: Option<u16>,
    /// Where vLLM goes; the next free port, if not given.
    pub upstream_port: Option<u16>,
    /// Metrics, health, drain.
    pub admin_port: u16,
    /// vLLM's container, where it cannot be told.
    pub container: Option<String>,
    /// Where GPU metrics come from.
    pub gpu: Gpu,
    /// An init container with `restartPolicy: Always` (Kubernetes from 1.29 on), not one among the others.
    pub native_sidecar: bool,
    /// `log.level`
    pub log_level: Option<String>,
    /// `server.workers`. One a core would be one for each core of the node, as there is no CPU limit.
    pub workers: u16,
    /// CPU that the sidecar asks for.
    pub cpu_request: String,
    /// Memory that it asks for.
    pub memory_request: String,
    /// Memory that it may have.
    pub memory_limit: String,
    /// `shutdown.drain_timeout`
    pub drain_timeout: Duration,
    /// `shutdown.ready_delay`
    pub ready_delay: Duration,
    /// The least `terminationGracePeriodSeconds`; drain timeout, ready delay and 15 s, if not given.
    pub grace_period: Option<Duration>,
    /// A ConfigMap with `tokenglass.toml`.
    pub config: Option<String>,
}

/// Where GPU metrics come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpu {
    /// Nowhere.
    Off,
    /// From NVML in the sidecar. It sees every GPU of the node.
    Nvml,
    /// From NVIDIA's dcgm-exporter, which runs once a node; the sidecar reads none.
    DcgmExporter,
}

/// A setting that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is `{value}`, not {wanted}")]
pub struct BadSetting {
    /// Flag or annotation.
    pub name: String,
    /// As given.
    pub value: String,
    /// What it should be.
    pub wanted: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: format!("ghcr.io/tokenglass/tokenglass:{}", stamp::VERSION),
            listen_port: None,
            upstream_port: None,
            admin_port: 9101,
            container: None,
            gpu: Gpu::Off,
            native_sidecar: true,
            log_level: None,
            workers: 2,
            cpu_request: "100m".to_owned(),
            memory_request: "64Mi".to_owned(),
            memory_limit: "512Mi".to_owned(),
            drain_timeout: Duration::from_secs(300),
            ready_delay: Duration::from_secs(5),
            grace_period: None,
            config: None,
        }
    }
}

impl Settings {
    /// Sets one by its name; `shown` is how a mistake names it.
    ///
    /// # Errors
    /// If there is no such setting or the value is not one of its own.
    pub fn set(&mut self, name: &str, value: &str, shown: &str) -> Result<(), BadSetting> {
        let value = value.trim();
        let bad = |wanted| BadSetting {
            name: shown.to_owned(),
            value: value.to_owned(),
            wanted,
        };
        let port = || {
            value
                .parse()
                .ok()
                .filter(|port: &u16| *port != 0)
                .ok_or_else(|| bad("a port"))
        };
        let word = |wanted| {
            let word =
                !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control());
            if word {
                Ok(value.to_owned())
            } else {
                Err(bad(wanted))
            }
        };
        let time = || time(value).ok_or_else(|| bad("a time such as 300s or 5m"));
        let quantity = || {
            if is_quantity(value) {
                Ok(value.to_owned())
            } else {
                Err(bad("a quantity such as 100m or 64Mi"))
            }
        };
        match name {
            "image" => self.image = word("the name of an image")?,
            "listen-port" => self.listen_port = Some(port()?),
            "upstream-port" => self.upstream_port = Some(port()?),
            "admin-port" => self.admin_port = port()?,
            "container" => self.container = Some(word("the name of a container")?),
            "gpu" => {
                self.gpu = match value {
                    "off" => Gpu::Off,
                    "nvml" => Gpu::Nvml,
                    "dcgm-exporter" => Gpu::DcgmExporter,
                    _ => return Err(bad("off, nvml or dcgm-exporter")),
                }
            }
            "native-sidecar" => {
                self.native_sidecar = match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(bad("true or false")),
                }
            }
            "log-level" => self.log_level = Some(word("a log filter")?),
            "workers" => {
                let workers = value
                    .parse()
                    .ok()
                    .filter(|workers| (1..=1024).contains(workers));
                self.workers = workers.ok_or_else(|| bad("a number from 1 to 1024"))?;
            }
            "cpu-request" => self.cpu_request = quantity()?,
            "memory-request" => self.memory_request = quantity()?,
            "memory-limit" => self.memory_limit = quantity()?,
            "drain-timeout" => self.drain_timeout = time()?,
            "ready-delay" => self.ready_delay = time()?,
            "grace-period" => self.grace_period = Some(time()?),
            "config" => self.config = Some(word("the name of a ConfigMap")?),
            _ => return Err(bad("a setting")),
        }
        Ok(())
    }

    /// These, with what the pod's annotations say.
    pub(super) fn for_pod(
        &self,
        pod: &Pod<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, BadSetting> {
        let mut settings = self.clone();
        for (key, value) in pod.annotations() {
            let Some(name) = key.strip_prefix(PREFIX) else {
                continue;
            };
            if key == STATUS {
                continue;
            }
            if !NAMES.contains(&name) || key == INJECT {
                let near = NAMES.iter().copied().max_by(|a, b| {
                    strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name))
                });
                let near = near.filter(|near| strsim::jaro_winkler(near, name) > 0.85);
                warnings.push(Warning::UnknownSetting {
                    name: key.clone(),
                    near,
                });
                continue;
            }
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            settings.set(name, &text, key)?;
        }
        Ok(settings)
    }

    /// The least time that the pod is given to end.
    pub(super) fn grace(&self) -> u64 {
        const SPARE: u64 = 15;
        let needed = || self.drain_timeout.as_secs() + self.ready_delay.as_secs() + SPARE;
        self.grace_period
            .map_or_else(needed, |grace| grace.as_secs())
    }
}

/// `300s`, `5m`, or seconds. Not longer than a week: it is added up with others.
fn time(text: &str) -> Option<Duration> {
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).ok()?,
    };
    (time <= Duration::from_secs(7 * 24 * 60 * 60)).then_some(time)
}

/// As Kubernetes has them, exponents aside.
fn is_quantity(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.parse::<f64>().is_ok()
        && ["", "m", "k", "K", "Ki", "M", "Mi", "G", "Gi"].contains(&unit)
}
