//! Threads beside the traffic: the admin port, the pollers, the GPUs, the counting of tokens.

use std::io;
use std::thread::{Builder, JoinHandle};

/// How much nicer than the workers. A scrape of many series is milliseconds of work, and where the cores are full a worker
/// that wakes up with a frame should not wait behind it. Not more, and not `SCHED_IDLE`: `/readyz` and the counts must get on
/// while the workers take all that there is (at 5 the kernel gives such a thread a third of a worker's share).
const NICER: i32 = 5;

/// Starts a thread that stands back for the workers.
///
/// # Errors
/// If the system refuses a thread.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        // On Linux it is the thread's own. A sandbox that forbids the call costs the courtesy and nothing else.
        let _refused = rustix::process::nice(NICER);
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nice value is the 19th field of `stat`; the second, the name in parentheses, may contain spaces (proc_pid_stat(5)).
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let behind = stat.rsplit_once(") ").unwrap().1;
        behind.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn such_a_thread_is_nicer_than_the_one_that_starts_it_which_stays_as_it_is() {
        let before = niceness();
        let thread = spawn("one beside", niceness).unwrap();
        assert_eq!(thread.join().unwrap(), (before + NICER).min(19));
        assert_eq!(niceness(), before);
    }
}
