//! A machine with GPUs that are in a file: the real binary, and the stub of NVIDIA's library that it loads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadtest::sim;
use serde_json::{Value, json};

use crate::child::Child;
use crate::support::{Message, Metrics, chat, exchange, runtime};

/// Where cargo has left the stub: beside this binary, or one up.
pub fn library() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("libnvml_stub.so"))
        .find(|path| path.exists())
        .expect("the stub of NVML is built with the tests")
}

/// What the driver says of everything. Numbers differ, so that none can be taken for another.
pub fn h100(index: usize) -> Value {
    json!({
        "uuid": uuid(index),
        "name": "NVIDIA H100 80GB HBM3",
        "pci": format!("00000000:{:02X}:00.0", 7 + index),
        "minor": index,
        "values": {
            "nvmlDeviceGetUtilizationRates": {"gpu": 97, "memory": 41},
            "nvmlDeviceGetEncoderUtilization": {"percent": 3, "us": 167_000},
            "nvmlDeviceGetDecoderUtilization": {"percent": 5, "us": 167_000},
            "nvmlDeviceGetMemoryInfo_v2": {
                "total": 85_520_809_984_u64, "reserved": 638_582_784,
                "free": 4_294_967_296_u64, "used": 80_587_259_904_u64
            },
            "nvmlDeviceGetTemperature": {"0": 64},
            "nvmlDeviceGetPowerUsage": 634_250,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetPowerManagementLimit": 650_000,
            "nvmlDeviceGetTotalEnergyConsumption": 1_234_567_891_u64,
            "nvmlDeviceGetClockInfo": {"1": 1755, "2": 2619},
            "nvmlDeviceGetPcieReplayCounter": 11,
            "nvmlDeviceGetPerformanceState": 2,
            "nvmlDeviceGetNumFans": 1,
            "nvmlDeviceGetFanSpeed_v2": {"0": 38},
            "nvmlDeviceGetCurrentClocksEventReasons": 0x44,
            "nvmlDeviceGetTotalEccErrors": {"0,0": 21, "1,0": 22, "0,1": 23, "1,1": 24},
            "nvmlDeviceGetTemperatureThreshold": {"0": 92, "1": 89},
            "nvmlDeviceGetMigMode": {"current": 0, "pending": 0}
        },
        "fields": {
            "29": 31, "30": 32, "31": 1, "74": 741, "75": 751, "76": 761, "77": 771, "78": 781, "79": 791,
            "82": 73, "142": 12, "143": 13, "144": 1, "145": 0, "197": 1000, "198": 2000, "230": 1
        },
        "gpm": {"1": 91.5, "2": 82.25, "3": 40.0, "5": 35.5, "10": 61.0, "20": 100.0, "21": 200.0,
                "60": 4000.0, "61": 3000.0},
        "processes": [{"pid": 4711, "bytes": 80_000_000_000_u64}],
        "mig": []
    })
}

pub fn uuid(index: usize) -> String {
    format!("GPU-0000000{index}-aaaa-bbbb-cccc-dddddddddddd")
}

/// The file, and vLLM.
pub struct Machine {
    folder: tempfile::TempDir,
    /// Where the simulator runs; dropped after it.
    sim: sim::Server,
    _runtime: tokio::runtime::Runtime,
    state: Value,
}

impl Machine {
    pub fn new(gpus: usize) -> Self {
        let runtime = runtime();
        let sim = runtime.block_on(async { sim::Server::start(sim::Config::default()).unwrap() });
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            sim,
            _runtime: runtime,
            state: json!({
                "driver": "570.86.15",
                "errors": {},
                "delays_ms": {},
                "gpus": (0..gpus).map(h100).collect::<Vec<_>>(),
                "xids": []
            }),
        };
        machine.write();
        machine
    }

    /// What the driver says from now on.
    pub fn set(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.state);
        self.write();
    }

    fn write(&self) {
        // Whole or not at all.
        let next = self.folder.path().join("next");
        std::fs::write(&next, self.state.to_string()).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("state.json")
    }

    pub fn upstream(&self) -> SocketAddr {
        self.sim.addr()
    }

    /// The proxy on this machine; `more` is added to `[gpu]`.
    pub fn start(&self, more: &str) -> Child {
        self.start_with(more, &[])
    }

    pub fn start_with(&self, more: &str, environment: &[(&str, &str)]) -> Child {
        self.start_before(self.upstream(), more, environment)
    }

    pub fn start_before(
        &self,
        upstream: SocketAddr,
        more: &str,
        environment: &[(&str, &str)],
    ) -> Child {
        let file = self.file();
        let mut all = vec![
            ("NVML_STUB_STATE", file.to_str().unwrap()),
            ("NODE_NAME", "node-1"),
        ];
        all.extend(environment);
        let library = format!("library = \"{}\"", library().display());
        let interval = "interval = \"200ms\"".to_owned();
        let usual = [library, interval].into_iter().filter(|line| {
            let key = line.split(' ').next().unwrap();
            !more.contains(key)
        });
        let usual: Vec<_> = usual.collect();
        let gpu = format!("[gpu]\nmode = \"nvml\"\n{}\n{more}\n", usual.join("\n"));
        Child::with_environment(upstream, &gpu, &all)
    }
}

/// Whether a series of that name, with those labels, is there.
pub fn has(metrics: &Metrics, name: &str, labels: &[&str]) -> bool {
    series(metrics, name)
        .iter()
        .any(|line| labels.iter().all(|label| line.contains(label)))
}

/// The lines of a family.
pub fn series(metrics: &Metrics, name: &str) -> Vec<String> {
    let lines = metrics.0.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines.map(str::to_owned).collect()
}

pub fn up(metrics: &Metrics) -> bool {
    metrics.count("tokenglass_nvml_up", &[]) == 1
}

pub fn reason(metrics: &Metrics) -> String {
    let states = series(metrics, "tokenglass_nvml_state");
    let mut on = states.iter().filter(|line| line.ends_with(" 1"));
    let label = on.next().and_then(|line| line.split('"').nth(1));
    assert!(on.next().is_none(), "{states:?}");
    label.unwrap_or_default().to_owned()
}

/// No GPU's value is shown.
pub fn nothing_shown(metrics: &Metrics) -> bool {
    !metrics.0.contains("DCGM_")
}

/// Requests through the proxy for as long as this lives.
pub struct Traffic {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Duration>>>,
}

impl Traffic {
    pub fn through(proxy: &Child) -> Self {
        let to = proxy.addr();
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let request = chat(
            "connection: close\r\n",
            r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}],"max_tokens":1}"#,
        );
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !until.load(Ordering::Acquire) {
                let began = Instant::now();
                let (bytes, _) = exchange(to, &request, Duration::from_secs(20));
                times.push(began.elapsed());
                let message = Message::parse(&bytes).expect("an answer");
                assert_eq!(message.status, 200);
                std::thread::sleep(Duration::from_millis(5));
            }
            times
        });
        Self {
            over,
            thread: Some(thread),
        }
    }

    /// Every request was answered, and none waited for NVML, whose calls hang for a minute.
    #[track_caller]
    pub fn was_undisturbed(mut self) {
        self.over.store(true, Ordering::Release);
        let mut times = self.thread.take().unwrap().join().expect("all answered");
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        assert!(
            times.len() > 5 && p99 < Duration::from_secs(1),
            "{p99:?} of {}",
            times.len()
        );
    }
}
