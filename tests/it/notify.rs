//! Type=notify: what systemd hears of the real binary, on a socket of ours.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use loadtest::sim;

use crate::child::Child;
use crate::support::{exchange, runtime};

const LIMIT: Duration = Duration::from_secs(10);

struct Systemd {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { socket, folder }
    }

    fn path(&self) -> String {
        let path: &Path = &self.folder.path().join("notify");
        path.to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn hears(&self) -> String {
        self.hears_within(LIMIT).expect("nothing is said")
    }

    /// Whatever is said within `time`, without its line end.
    fn hears_within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut bytes = [0; 256];
        let length = self.socket.recv(&mut bytes).ok()?;
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        Some(text.trim_end().to_owned())
    }
}

#[test]
fn ready_once_the_ports_are_open_and_stopping_as_the_drain_begins() {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    let systemd = Systemd::new();
    let path = systemd.path();
    let environment = [("NOTIFY_SOCKET", path.as_str())];
    // Long enough to tell the begin of the end from the end.
    let more = "[shutdown]\nready_delay = \"1s\"\n";
    let mut child = Child::with_environment(sim.addr(), more, &environment);
    assert_eq!(systemd.hears(), "READY=1");
    // Said after the ports are open, so this cannot be refused.
    let request = b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let (answer, _) = exchange(child.addr(), request, LIMIT);
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    // Neither asked for signs of life nor is anything else said.
    let more = systemd.hears_within(Duration::from_millis(300));
    assert_eq!(more, None);

    let began = Instant::now();
    child.signal("TERM");
    assert_eq!(systemd.hears(), "STOPPING=1");
    assert!(began.elapsed() < Duration::from_millis(900));
    assert_eq!(child.wait_exit(LIMIT), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_watchdog_is_fed_through_the_drain_too() {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    let systemd = Systemd::new();
    let path = systemd.path();
    let environment = [
        ("NOTIFY_SOCKET", path.as_str()),
        ("WATCHDOG_USEC", "1000000"),
    ];
    let more = "[shutdown]\nready_delay = \"1s\"\n";
    let mut child = Child::with_environment(sim.addr(), more, &environment);
    assert_eq!(systemd.hears(), "READY=1");
    let mut last = Instant::now();
    for _ in 0..3 {
        assert_eq!(systemd.hears(), "WATCHDOG=1");
        // systemd would have ended it.
        assert!(last.elapsed() < Duration::from_secs(1));
        last = Instant::now();
    }
    child.signal("TERM");
    assert_eq!(child.wait_exit(LIMIT), Some(0));
    let mut heard = Vec::new();
    // It waits in the socket.
    while let Some(word) = systemd.hears_within(Duration::from_millis(10)) {
        heard.push(word);
    }
    let stopping = heard.iter().position(|word| word == "STOPPING=1");
    let stopping = stopping.expect("STOPPING=1 is not said");
    let fed = heard[stopping..].iter().any(|word| word == "WATCHDOG=1");
    assert!(fed, "{heard:?}");
}
