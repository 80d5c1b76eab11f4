//! Children, and the folder that they write to.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// A running program, ended with the value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) name: String,
    log: PathBuf,
}

/// The folder of a drill; gone with the value unless something went wrong.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

/// How long a program may take to go when it is asked to.
const GRACE: Duration = Duration::from_secs(3);

// === impl Process ===

impl Process {
    /// Starts `program`; what it says goes to a file in `folder`.
    pub(crate) fn start<I, S>(
        name: &str,
        folder: &Path,
        program: &Path,
        arguments: I,
        environment: &[(&str, &OsStr)],
    ) -> anyhow::Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let log = folder.join(format!("{name}.log"));
        // Appended to: a proxy that is started again goes on in the same file.
        let out = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let name = name.to_owned();
        Ok(Self { child, name, log })
    }

    /// Fails if it has ended, with what it said last.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let text = fs::read(&self.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let last: Vec<&str> = text.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            anyhow::bail!("{} ended with {status}:\n{}", self.name, last.join("\n"));
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It has not been waited for where anybody calls this: its number is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// As a crash ends it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.signal(Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(10));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

// === impl Scratch ===

impl Scratch {
    pub(crate) fn new() -> std::io::Result<Self> {
        let name = format!("tokenglass-drill-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self { path, keep: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Something went wrong: somebody will want to read the logs.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Ports of the loopback that are free now, all different.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let mut held = Vec::new();
    for _ in 0..N {
        held.push(TcpListener::bind(("127.0.0.1", 0))?);
    }
    let mut ports = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?;
    }
    Ok(ports)
}
