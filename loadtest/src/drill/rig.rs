//! A proxy with a simulator behind it, and GPUs in a file where it has some. Faults that would disturb each other are in
//! rigs of their own.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::process::{Process, free_ports};
use super::{Plan, http};
use crate::sim;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    /// Traffic, each fault with a model of its own.
    Requests,
    /// Ten GPUs, each fault with one of its own.
    Gpu,
    /// vLLM's metrics and the GPUs stop being readable, and its health check is slow.
    Stale,
    /// The engine's own metrics say what the fault wants.
    Engine,
    /// vLLM goes away.
    Down,
    /// vLLM serves nothing.
    Unloaded,
    /// vLLM hangs.
    Stalled,
    /// tokenglass's labels, observer and configuration.
    Meta,
    /// Few file descriptors.
    Descriptors,
    /// Connections to vLLM are slow.
    Crowded,
    /// tokenglass goes away.
    Gone,
    /// A gateway whose upstreams go away.
    Alone,
    /// A gateway that leaves its upstreams alone for moments.
    Ejecting,
    /// A gateway with few places and a short queue.
    Full,
}

#[derive(Debug)]
pub(crate) struct Rig {
    which: Which,
    /// Where clients come.
    pub(crate) data: SocketAddr,
    /// What Prometheus scrapes: the label `instance`.
    pub(crate) admin: SocketAddr,
    pub(crate) upstream: SocketAddr,
    sim: Option<sim::Server>,
    process: Option<Process>,
    gpus: Value,
    folder: PathBuf,
    binary: PathBuf,
    nvml: PathBuf,
}

/// How long a start may take on a machine that is busy.
const START: Duration = Duration::from_secs(30);
/// GPUs of [`Which::Gpu`]: one for each of its faults.
const GPUS: usize = 10;
/// The file limit of [`Which::Descriptors`].
pub(crate) const DESCRIPTORS: u64 = 200;

// === impl Which ===

impl Which {
    /// As it is called in the table and in names of files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Gpu => "gpu",
            Self::Stale => "stale",
            Self::Engine => "engine",
            Self::Down => "down",
            Self::Unloaded => "unloaded",
            Self::Stalled => "stalled",
            Self::Meta => "meta",
            Self::Descriptors => "descriptors",
            Self::Crowded => "crowded",
            Self::Gone => "gone",
            Self::Alone => "alone",
            Self::Ejecting => "ejecting",
            Self::Full => "full",
        }
    }

    /// Whether it is a gateway: one upstream under two names is two.
    const fn is_gateway(self) -> bool {
        matches!(self, Self::Alone | Self::Ejecting | Self::Full)
    }

    const fn gpus(self) -> usize {
        match self {
            Self::Gpu => GPUS,
            Self::Stale => 1,
            _ => 0,
        }
    }

    /// What of the configuration is not as everywhere else.
    const fn more(self) -> &'static str {
        match self {
            // Shown for two intervals: long enough to see that it is inhibited when the engine that it speaks of is gone.
            Self::Down => "[engine]\ninterval = \"6s\"\ntimeout = \"900ms\"\n",
            Self::Meta => {
                "[observe]\nmax_models = 1\nmax_event = \"1KiB\"\n[engine]\ninterval = \"1s\"\ntimeout = \"900ms\"\n"
            }
            Self::Ejecting => {
                "[gateway]\neject_after = 1\neject_for = \"100ms\"\neject_max = \"100ms\"\n[engine]\ninterval = \"1s\"\ntimeout = \"900ms\"\n"
            }
            Self::Full => {
                "[gateway]\nmax_in_flight = 1\nqueue = 2\nqueue_timeout = \"60s\"\n[engine]\ninterval = \"1s\"\ntimeout = \"900ms\"\n"
            }
            _ => {
                "[observe]\nstall_after = \"2s\"\n[engine]\ninterval = \"1s\"\ntimeout = \"900ms\"\n"
            }
        }
    }

    fn models(self) -> Vec<String> {
        let all: &[&str] = match self {
            Self::Requests => &super::faults::MODELS,
            Self::Meta => &["drill", "second", "third"],
            _ => &["drill"],
        };
        all.iter().map(|model| (*model).to_owned()).collect()
    }
}

// === impl Rig ===

impl Rig {
    /// Starts both and waits until the proxy answers.
    pub(crate) async fn start(which: Which, plan: &Plan, scratch: &Path) -> anyhow::Result<Self> {
        let folder = scratch.join(which.name());
        std::fs::create_dir_all(&folder)?;
        let [data, admin, upstream] = free_ports()?;
        let mut rig = Self {
            which,
            data,
            admin,
            upstream,
            sim: None,
            process: None,
            gpus: json!({
                "driver": "570.86.15", "errors": {}, "delays_ms": {}, "xids": [],
                "gpus": (0..which.gpus()).map(gpu).collect::<Vec<_>>(),
            }),
            folder,
            binary: plan.binary.clone(),
            nvml: plan.nvml.clone(),
        };
        rig.start_upstream()?;
        rig.configure("")?;
        rig.write_gpus()?;
        rig.start_proxy()?;
        rig.wait().await?;
        Ok(rig)
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.process.as_mut().context("no proxy")?.check()?;
            match http::text(self.admin, "/healthz").await {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > START => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub(crate) fn start_upstream(&mut self) -> anyhow::Result<()> {
        self.sim = Some(sim::Server::start(sim::Config {
            listen: sim::Listen::Tcp(self.upstream),
            models: self.which.models(),
            ..sim::Config::default()
        })?);
        Ok(())
    }

    pub(crate) async fn stop_upstream(&mut self) {
        if let Some(sim) = self.sim.take() {
            sim.shutdown().await;
        }
    }

    pub(crate) fn sim(&self) -> anyhow::Result<&sim::Control> {
        Ok(self.sim.as_ref().context("no simulator")?.control())
    }

    pub(crate) fn start_proxy(&mut self) -> anyhow::Result<()> {
        let state = self.folder.join("gpus.json");
        let environment = [("NVML_STUB_STATE", state.as_os_str())];
        let config = self.folder.join("tokenglass.toml");
        let (shell, limited) = (
            Path::new("/bin/sh"),
            format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\""),
        );
        let mut arguments: Vec<&OsStr> = Vec::new();
        let mut program = self.binary.as_path();
        if self.which == Which::Descriptors {
            // The shell becomes the program: the number stays the same.
            program = shell;
            arguments.extend(["-c".as_ref(), limited.as_ref(), self.binary.as_os_str()]);
        }
        arguments.extend(["--config".as_ref(), config.as_os_str()]);
        let name = format!("tokenglass-{}", self.which.name());
        let process = Process::start(&name, &self.folder, program, arguments, &environment)?;
        self.process = Some(process);
        Ok(())
    }

    pub(crate) fn kill_proxy(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Whether it still runs, if it should.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// Writes the configuration with `more` in it and says so to a running proxy.
    pub(crate) fn configure(&self, more: &str) -> anyhow::Result<()> {
        let gpu = match self.which.gpus() {
            0 => "mode = \"off\"".to_owned(),
            _ => format!(
                "mode = \"nvml\"\nlibrary = {:?}\ninterval = \"500ms\"",
                self.nvml
            ),
        };
        // There a connection for each request.
        let pool = if self.which == Which::Crowded { 0 } else { 512 };
        let port = self.upstream.port();
        let urls = if self.which.is_gateway() {
            format!("[\"http://127.0.0.1:{port}\", \"http://localhost:{port}\"]")
        } else {
            format!("\"http://{}\"", self.upstream)
        };
        let text = format!(
            "[server]\nlisten = \"{}\"\nworkers = 1\n[upstream]\nurl = {urls}\npool_max_idle = {pool}\n[admin]\nlisten = \"{}\"\n\
             [health]\ninterval = \"1s\"\ntimeout = \"2s\"\nstalled_after = \"2s\"\n[gpu]\n{gpu}\n\
             [shutdown]\ndrain_timeout = \"1s\"\n[log]\nlevel = \"info\"\n{}{more}",
            self.data,
            self.admin,
            self.which.more()
        );
        std::fs::write(self.folder.join("tokenglass.toml"), text)?;
        if let Some(process) = &self.process {
            process.signal(Signal::HUP);
        }
        Ok(())
    }

    /// Changes what the driver says.
    pub(crate) fn set_gpus(&mut self, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        change(&mut self.gpus);
        self.write_gpus()
    }

    fn write_gpus(&self) -> anyhow::Result<()> {
        // Whole or not at all.
        let next = self.folder.join("gpus.next");
        std::fs::write(&next, self.gpus.to_string())?;
        std::fs::rename(next, self.folder.join("gpus.json"))?;
        Ok(())
    }
}

pub(crate) fn uuid(index: usize) -> String {
    format!("GPU-{index:08}-aaaa-bbbb-cccc-dddddddddddd")
}

/// A GPU in good health.
pub(crate) fn gpu(index: usize) -> Value {
    json!({
        "uuid": uuid(index), "name": "NVIDIA H100 80GB HBM3", "pci": format!("00000000:{:02X}:00.0", 7 + index), "minor": index,
        "values": {
            "nvmlDeviceGetUtilizationRates": {"gpu": 70, "memory": 41},
            "nvmlDeviceGetMemoryInfo_v2": {"total": 85_520_809_984_u64, "reserved": 638_582_784,
                "free": 14_294_967_296_u64, "used": 70_587_259_904_u64},
            "nvmlDeviceGetTemperature": {"0": 64},
            "nvmlDeviceGetPowerUsage": 434_250,
            "nvmlDeviceGetTotalEnergyConsumption": 1_234_567_891_u64,
            "nvmlDeviceGetClockInfo": {"1": 1755, "2": 2619},
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlDeviceGetTotalEccErrors": {"0,0": 0, "1,0": 0, "0,1": 0, "1,1": 0},
            "nvmlDeviceGetMigMode": {"current": 0, "pending": 0}
        },
        "fields": {"31": 0, "82": 70, "142": 0, "143": 0, "144": 0, "145": 0, "230": 0},
        "gpm": {}, "processes": [], "mig": []
    })
}
