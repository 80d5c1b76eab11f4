//! What a process and its descendants have cost, out of /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

/// A process with all that it has started, as nginx's master has its workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree(pub(crate) u32);

/// CPU used up to a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    /// Nanoseconds on a CPU by process and thread.
    threads: BTreeMap<(u32, u32), u64>,
    /// Clock ticks by process, those of threads that have ended included.
    ticks: BTreeMap<u32, u64>,
}

/// Memory in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Resident, what is shared divided by its users: the sum over processes is true.
    pub(crate) pss: u64,
}

/// `USER_HZ`, which is 100 on every architecture that Linux still has.
const TICK: Duration = Duration::from_millis(10);

// === impl Tree ===

impl Tree {
    /// The process and its living descendants.
    pub(crate) fn pids(self) -> BTreeSet<u32> {
        let parents: Vec<(u32, u32)> = numbered("/proc")
            .into_iter()
            .filter_map(|pid| Some((pid, parse_stat(&read(&format!("/proc/{pid}/stat"))?)?.0)))
            .collect();
        let mut tree = BTreeSet::from([self.0]);
        // A child may stand before its parent in the listing: repeated until nothing is added.
        loop {
            let before = tree.len();
            let children = parents.iter().filter(|(_, parent)| tree.contains(parent));
            let found: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            tree.extend(found);
            if tree.len() == before {
                return tree;
            }
        }
    }

    /// CPU used so far.
    pub(crate) fn cpu(self) -> Cpu {
        Cpu::of_all(self.pids())
    }

    /// CPU that this process alone, not its children, has used so far.
    pub(crate) fn own_cpu() -> Cpu {
        Cpu::of_all([std::process::id()])
    }

    /// Memory now.
    pub(crate) fn memory(self) -> Memory {
        let mut sum = Memory::default();
        for pid in self.pids() {
            let text = read(&format!("/proc/{pid}/smaps_rollup"));
            if let Some(memory) = text.as_deref().and_then(parse_smaps) {
                sum.rss += memory.rss;
                sum.pss += memory.pss;
            }
        }
        sum
    }
}

// === impl Cpu ===

impl Cpu {
    fn of_all(pids: impl IntoIterator<Item = u32>) -> Self {
        let mut cpu = Self::default();
        for pid in pids {
            for tid in numbered(&format!("/proc/{pid}/task")) {
                let text = read(&format!("/proc/{pid}/task/{tid}/schedstat"));
                if let Some(ns) = text.as_deref().and_then(parse_schedstat) {
                    cpu.threads.insert((pid, tid), ns);
                }
            }
            let stat = read(&format!("/proc/{pid}/stat"));
            if let Some((_, ticks)) = stat.as_deref().and_then(parse_stat) {
                cpu.ticks.insert(pid, ticks);
            }
        }
        cpu
    }

    /// What was used since `before`.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let pids: BTreeSet<u32> = self.threads.keys().map(|(pid, _)| *pid).collect();
        pids.into_iter().map(|pid| self.of(pid, before)).sum()
    }

    fn of(&self, pid: u32, before: &Self) -> Duration {
        let range = (pid, 0)..=(pid, u32::MAX);
        let threads = self.threads.range(range.clone());
        let used = threads.map(|(key, ns)| {
            let old = before.threads.get(key).copied().unwrap_or(0);
            ns.saturating_sub(old)
        });
        let used = Duration::from_nanos(used.sum());
        let mut old = before.threads.range(range);
        if old.all(|(key, _)| self.threads.contains_key(key)) {
            return used;
        }
        // A thread has ended and taken its own count along; the process's is coarser but has it.
        let ticks = |cpu: &Self| cpu.ticks.get(&pid).copied().unwrap_or(0);
        let ticks = ticks(self).saturating_sub(ticks(before));
        used.max(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
    }
}

/// The first field of a schedstat: nanoseconds on a CPU.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The parent, and the ticks in user and system mode, of a stat. The command's name may hold blanks and parentheses.
fn parse_stat(text: &str) -> Option<(u32, u64)> {
    let rest = text.rsplit_once(") ")?.1;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let user: u64 = fields.nth(9)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((parent, user + system))
}

fn parse_smaps(text: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Memory {
        rss: kib("Rss:")?,
        pss: kib("Pss:")?,
    })
}

fn numbered(folder: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// `None` for what has just gone.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_stat_and_smaps_are_read() {
        assert_eq!(parse_schedstat("47646 123 1\n"), Some(47_646));
        assert_eq!(parse_schedstat(""), None);
        let stat = "12 (a) (b c) S 7 12 12 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(stat), Some((7, 200)));
        let smaps = "55a-7ff [rollup]\nRss:    2048 kB\nPss:     1024 kB\nPss_Dirty:  1 kB\n";
        let memory = Memory {
            rss: 2048,
            pss: 1024,
        };
        assert_eq!(parse_smaps(smaps), Some(memory));
        assert_eq!(parse_smaps("Rss: 1 kB\n"), None);
    }

    #[test]
    fn threads_that_begin_and_end_are_counted() {
        let mut before = Cpu::default();
        before.threads.insert((1, 1), 100);
        before.threads.insert((2, 2), 1000);
        before.ticks.insert(2, 10);
        let mut after = Cpu::default();
        after.threads.insert((1, 1), 150);
        after.threads.insert((1, 3), 30);
        assert_eq!(after.since(&before), Duration::from_nanos(80));
        // Thread 2 of process 2 is gone, thread 4 has come: the ticks tell.
        after.threads.insert((2, 4), 500);
        after.ticks.insert(2, 15);
        let expected = Duration::from_nanos(80) + 5 * TICK;
        assert_eq!(after.since(&before), expected);
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let tree = Tree(std::process::id());
        let before = tree.cpu();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::black_box(numbered("/proc/self/task"));
        }
        assert!(tree.cpu().since(&before) > Duration::from_millis(1));
        assert!(tree.memory().rss >= tree.memory().pss / 2);
    }
}
