//! How each contestant is started: in front of one upstream, and as its manual says that it is fast.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::peers::{Peer, Places};
use super::process::Tree;
use super::scenario::KEY;

/// A running program, ended with the value.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// Where it has its metrics, if it has any.
    pub(crate) admin: SocketAddr,
    log: PathBuf,
    name: &'static str,
}

/// LiteLLM imports half a world before it listens.
const START: Duration = Duration::from_secs(90);
/// How long a program may take to go when it is asked to.
const GRACE: Duration = Duration::from_secs(2);

// === impl Peer ===

impl Peer {
    /// Starts it in front of `origin` and waits until it listens. Not for `Direct`.
    pub(crate) fn start(
        self,
        places: &Places,
        origin: SocketAddr,
        workers: usize,
    ) -> anyhow::Result<Running> {
        let program = self
            .program(places)
            .with_context(|| format!("{} is not installed", self.title()))?;
        let scratch = places.scratch.join(self.title().replace([' ', ','], "-"));
        fs::create_dir_all(&scratch)?;
        let (addr, admin) = free_ports()?;
        let mut command = self.command(&program, places);
        let conf = |template: &str| -> anyhow::Result<PathBuf> {
            let path = scratch.join("conf.yaml");
            let text = template
                .replace("@PORT@", &addr.port().to_string())
                .replace("@ADMIN@", &admin.port().to_string())
                .replace("@ORIGIN@", &origin.to_string())
                .replace("@ORIGIN_HOST@", &origin.ip().to_string())
                .replace("@ORIGIN_PORT@", &origin.port().to_string())
                .replace("@WORKERS@", &workers.to_string())
                .replace("@KEY@", KEY)
                .replace("@DIR@", &scratch.display().to_string());
            fs::write(&path, text)?;
            Ok(path)
        };
        let (count, port, upstream) = (
            workers.to_string(),
            addr.port().to_string(),
            format!("http://{origin}"),
        );
        match self {
            Self::Direct => anyhow::bail!("there is nothing to start"),
            Self::Relay => {
                command.args([
                    "relay",
                    "--listen",
                    &addr.to_string(),
                    "--upstream",
                    &origin.to_string(),
                ]);
            }
            Self::Tokenglass
            | Self::TokenglassBlind
            | Self::TokenglassScraped
            | Self::TokenglassOther => {
                command.args([
                    "--listen",
                    &addr.to_string(),
                    "--admin",
                    &admin.to_string(),
                    "--upstream",
                    &upstream,
                ]);
                command
                    .env("TOKENGLASS_SERVER__WORKERS", count)
                    .env("TOKENGLASS_GPU__MODE", "off");
                let observe = if self == Self::TokenglassBlind {
                    "false"
                } else {
                    "true"
                };
                command.env("TOKENGLASS_OBSERVE__ENABLED", observe);
            }
            Self::Nginx => {
                let conf = conf(include_str!("../../peers/nginx.conf"))?;
                command
                    .arg("-e")
                    .arg("stderr")
                    .arg("-p")
                    .arg(&scratch)
                    .arg("-c")
                    .arg(conf);
            }
            Self::Haproxy => {
                command
                    .arg("-db")
                    .arg("-f")
                    .arg(conf(include_str!("../../peers/haproxy.conf"))?);
            }
            Self::Envoy => {
                command
                    .arg("-c")
                    .arg(conf(include_str!("../../peers/envoy.conf"))?);
                command.args([
                    "--concurrency",
                    &count,
                    "--disable-hot-restart",
                    "--log-level",
                    "error",
                ]);
            }
            Self::VllmRouter | Self::Smg => {
                if self == Self::Smg {
                    command.arg("launch");
                }
                command.args([
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &port,
                    "--worker-urls",
                    &upstream,
                    "--policy",
                    "round_robin",
                ]);
                command.args([
                    "--prometheus-port",
                    &admin.port().to_string(),
                    "--prometheus-host",
                    "127.0.0.1",
                ]);
                command.args([
                    "--log-level",
                    "error",
                    "--max-concurrent-requests",
                    "20000",
                    "--disable-retries",
                ]);
                command.args(["--worker-startup-check-interval", "1"]);
                command.env("TOKIO_WORKER_THREADS", count);
            }
            Self::Litellm => {
                command
                    .arg("--config")
                    .arg(conf(include_str!("../../peers/litellm.conf"))?);
                command.args([
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &port,
                    "--num_workers",
                    &count,
                ]);
            }
        }
        let log = scratch.join("log");
        let out = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .current_dir(&scratch);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut running = Running {
            child,
            addr,
            admin,
            log,
            name: self.title(),
        };
        running.wait_until(|addr| TcpStream::connect(addr).map(|_| true))?;
        Ok(running)
    }
}

// === impl Running ===

impl Running {
    pub(crate) fn tree(&self) -> Tree {
        Tree(self.child.id())
    }

    /// Waits until a small request is answered with 200.
    pub(crate) fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        self.wait_until(ask)
    }

    fn wait_until(&mut self, ready: fn(SocketAddr) -> io::Result<bool>) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let (name, log) = (self.name, &self.log);
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{name} ended at its start with {status}: {}", tail(log));
            }
            match ready(self.addr) {
                Ok(true) => return Ok(()),
                _ if start.elapsed() > START => {
                    anyhow::bail!("{name} gave no answer in {START:?}: {}", tail(log))
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pids = self.tree().pids();
        let signal = |pid: u32, signal| {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        };
        signal(self.child.id(), Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(5));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Not waited for yet, so that none of the numbers can have passed to another process.
            pids.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}

/// Whether a small request is answered with 200.
fn ask(addr: SocketAddr) -> io::Result<bool> {
    let timeout = Some(Duration::from_secs(2));
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(timeout)?;
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":2,"stream":false}"#;
    write!(
        socket,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: vllm\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut status = [0; 12];
    socket.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}

/// Two ports of the loopback that are free now.
fn free_ports() -> io::Result<(SocketAddr, SocketAddr)> {
    let bind = || TcpListener::bind(("127.0.0.1", 0));
    let (one, other) = (bind()?, bind()?);
    Ok((one.local_addr()?, other.local_addr()?))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
