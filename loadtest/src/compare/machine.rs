//! What it was measured on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::SystemTime;

use serde::Serialize;

use super::peers::{Peer, Places};
use crate::http1::http_date;

/// The machine, the day, and what was compared.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    date: String,
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// Before anything of ours began: of a busy machine no figure is worth much.
    load_before: String,
    versions: BTreeMap<&'static str, String>,
}

// === impl Machine ===

impl Machine {
    pub(crate) fn look(peers: &[Peer], places: &Places) -> Self {
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            line.split_once(':')
                .map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let whole = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let memory: u64 = memory
            .split(' ')
            .next()
            .and_then(|kib| kib.parse().ok())
            .unwrap_or(0);
        // Those of others would be the same again.
        let same = [Peer::Relay, Peer::TokenglassBlind, Peer::TokenglassScraped];
        let versions = peers.iter().filter(|peer| !same.contains(peer));
        Self {
            date: http_date(SystemTime::now()),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_gib: (memory + (1 << 19)) >> 20,
            kernel: whole("/proc/sys/kernel/osrelease"),
            load_before: whole("/proc/loadavg")
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
            versions: versions
                .filter_map(|peer| Some((peer.title(), peer.version(places)?)))
                .collect(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; {} cores of {}, {} GiB, Linux {}; load average before: {}",
            self.date, self.cores, self.cpu, self.memory_gib, self.kernel, self.load_before
        )?;
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        writeln!(f, "{}", versions.join(", "))
    }
}
