//! The real binary as a process of its own, on free ports.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::{Message, Metrics, exchange};

/// A running `tokenglass`. Dropping it kills it.
pub struct Child {
    process: std::process::Child,
    addr: SocketAddr,
    admin: SocketAddr,
    log: Receiver<String>,
    /// Lines that were passed over in waiting for others.
    early: RefCell<Vec<String>>,
    folder: tempfile::TempDir,
}

impl Child {
    /// Starts one in front of `upstream`, with one worker; `more` is added to its configuration file.
    pub fn start(upstream: SocketAddr, more: &str) -> Self {
        Self::with_environment(upstream, more, &[])
    }

    /// [`Child::start`], with more in its environment.
    pub fn with_environment(
        upstream: SocketAddr,
        more: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenglass.toml");
        std::fs::write(&file, text(upstream, more)).unwrap();
        // Another build of it, where memory is to be measured.
        let binary = std::env::var_os("BINARY_UNDER_TEST")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_tokenglass").into());
        let mut process = Command::new(binary)
            .arg("--config")
            .arg(&file)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = process.stderr.take().unwrap();
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                if line.is_err() || sender.send(line.unwrap_or_default()).is_err() {
                    return;
                }
            }
        });
        let mut child = Self {
            process,
            addr: upstream,
            admin: upstream,
            log,
            early: RefCell::default(),
            folder,
        };
        // The ports were free ones; the log has what they became.
        let line = child.wait_log("listening");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| {
            let found = [&line[name], &line["fields"][name]];
            let found = found.into_iter().find_map(serde_json::Value::as_str);
            found.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
        };
        (child.addr, child.admin) = (address("data"), address("admin"));
        child
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("tokenglass.toml")
    }

    /// Writes the configuration anew.
    pub fn rewrite(&self, upstream: SocketAddr, more: &str) {
        std::fs::write(self.file(), text(upstream, more)).unwrap();
    }

    /// The first log line that contains `what` and was not asked for yet.
    #[track_caller]
    pub fn wait_log(&self, what: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut early = self.early.borrow_mut();
        if let Some(at) = early.iter().position(|line| line.contains(what)) {
            return early.remove(at);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => early.push(line),
                Err(error) => panic!("{error}: never logged {what}, but: {early:#?}"),
            }
        }
    }

    /// Waits until `ready` holds of the metrics.
    #[track_caller]
    pub fn wait_metrics(&self, what: &str, ready: impl Fn(&Metrics) -> bool) -> Metrics {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let metrics = self.metrics();
            if ready(&metrics) {
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "never: {what}\n{}",
                metrics.non_zero()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn metrics(&self) -> Metrics {
        let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let (bytes, _) = exchange(self.admin, request, Duration::from_secs(10));
        let message = Message::parse(&bytes).expect("an answer");
        assert_eq!(message.status, 200);
        Metrics(String::from_utf8(message.body).expect("metrics are UTF-8"))
    }

    pub fn signal(&self, name: &str) {
        // The standard library can only kill; no unsafe code for one call.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.process.id())])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Resident memory.
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(Path::new(&path)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse().unwrap()
    }

    /// Waits for its end; its exit code, `None` if a signal ended it.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn text(upstream: SocketAddr, more: &str) -> String {
    // Scripted upstreams count what they are asked. A test of the pollers has their sections in `more`.
    let mut quiet = String::new();
    for (section, line) in [
        ("health", "enabled = false"),
        ("engine", "metrics = false"),
        ("gpu", "mode = \"off\""),
    ] {
        if !more.contains(&format!("[{section}]")) {
            quiet.push_str(&format!("[{section}]\n{line}\n"));
        }
    }
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[upstream]\nurl = \"http://{upstream}\"\n{more}\n{quiet}"
    )
}

/// Runs it to its end: exit code and stderr.
pub fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tokenglass"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = String::new();
    let mut pipe = process.stderr.take().unwrap();
    pipe.read_to_string(&mut stderr).unwrap();
    (process.wait().unwrap().code(), stderr)
}
