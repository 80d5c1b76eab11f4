//! The end, and SIGHUP: not ready at once, nothing new, what runs may finish, and not for ever.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use loadtest::sim;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::child::{Child, run};
use crate::support::{Message, Proxy, STREAM, chat, exchange, read_message, read_to_end, runtime};

const LIMIT: Duration = Duration::from_secs(10);

/// A stream of about a second.
const SECOND: &str = "x-sim: {\"ttft_ms\":10,\"itl_ms\":150}\r\n";
/// One that nobody waits for.
const AGES: &str = "x-sim: {\"ttft_ms\":10,\"itl_ms\":60000}\r\n";

fn simulator() -> (tokio::runtime::Runtime, sim::Server) {
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    (runtime, sim)
}

/// A proxy that runs until it is told to end, on a thread of its own.
struct Running {
    data: SocketAddr,
    admin: SocketAddr,
    end: UnboundedSender<()>,
    thread: std::thread::JoinHandle<bool>,
}

fn running(upstream: SocketAddr, ready_delay: u64, drain_timeout: u64) -> Running {
    let proxy = Proxy::with(upstream, |config| {
        config.server.workers = 2;
        config.shutdown.ready_delay = Duration::from_millis(ready_delay);
        config.shutdown.drain_timeout = Duration::from_millis(drain_timeout);
    });
    let (data, admin) = (proxy.addr(), proxy.admin());
    let (end, mut ends) = unbounded_channel();
    let thread = std::thread::spawn(move || {
        let app = proxy.into_app();
        runtime().block_on(app.run_until(async || {
            ends.recv().await;
        }))
    });
    Running {
        data,
        admin,
        end,
        thread,
    }
}

impl Running {
    /// Waits for the end; whether all had finished, and how long it took from `since`.
    #[track_caller]
    fn ended(self, since: Instant) -> (bool, Duration) {
        while !self.thread.is_finished() {
            assert!(since.elapsed() < LIMIT, "it never ends");
            std::thread::sleep(Duration::from_millis(2));
        }
        (self.thread.join().unwrap(), since.elapsed())
    }
}

fn get(to: SocketAddr, path: &str) -> u16 {
    ask(to, "GET", path)
}

fn ask(to: SocketAddr, method: &str, path: &str) -> u16 {
    ask_with(to, method, path, "")
}

fn ask_with(to: SocketAddr, method: &str, path: &str, headers: &str) -> u16 {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
    let (bytes, _) = exchange(to, request.as_bytes(), LIMIT);
    Message::parse(&bytes).expect("an answer").status
}

/// Starts a stream and reads its first bytes: it is running.
fn stream(to: SocketAddr, how: &str) -> (TcpStream, Vec<u8>) {
    let mut client = TcpStream::connect(to).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.write_all(&chat(how, STREAM)).unwrap();
    let mut first = vec![0; 4096];
    let read = client.read(&mut first).unwrap();
    assert!(read > 0);
    first.truncate(read);
    (client, first)
}

/// Reads the rest of it, to the close.
fn rest((mut client, mut bytes): (TcpStream, Vec<u8>)) -> Message {
    bytes.extend(read_to_end(&mut client, LIMIT).0);
    Message::parse(&bytes).expect("an answer")
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_drain_turns_away_what_is_new_and_finishes_what_runs() {
    let (_runtime, sim) = simulator();
    let proxy = running(sim.addr(), 400, 8000);
    assert_eq!(get(proxy.admin, "/readyz"), 200);
    let flying = stream(proxy.data, SECOND);
    let mut idle = TcpStream::connect(proxy.data).unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    assert_eq!(read_message(&mut idle).status, 200);
    let mut silent = TcpStream::connect(proxy.data).unwrap();

    let began = Instant::now();
    proxy.end.send(()).unwrap();
    eventually("/readyz says 503", || get(proxy.admin, "/readyz") == 503);
    // Whoever has not heard yet is served all the same.
    assert_eq!(get(proxy.data, "/health"), 200);
    assert!(
        began.elapsed() < Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    eventually("new connections are refused", || {
        TcpStream::connect(proxy.data).is_err()
    });
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    for kept in [&mut idle, &mut silent] {
        assert_eq!(
            read_to_end(kept, Duration::from_secs(3)).0,
            b"",
            "closed without a word"
        );
    }
    assert_eq!(get(proxy.admin, "/readyz"), 503);
    assert_eq!(get(proxy.admin, "/healthz"), 200);
    assert_eq!(get(proxy.admin, "/metrics"), 200);
    let whole = rest(flying);
    assert!(whole.complete && whole.body.ends_with(b"data: [DONE]\n\n"));
    let (finished, took) = proxy.ended(began);
    assert!(finished && took < Duration::from_secs(4), "{took:?}");
}

/// Whoever keeps a connection and has not been told `connection: close` may ask on it just when the drain begins.
#[test]
fn a_client_that_has_not_been_told_may_ask_once_more() {
    let (_runtime, sim) = simulator();
    // A stream that is taken from hyper, one that is not, an answer that has ended, and nothing at all.
    for (name, how) in [
        ("a stream", Some(SECOND)),
        (
            "a stream of hyper's",
            Some("te: trailers\r\nx-sim: {\"ttft_ms\":10,\"itl_ms\":150}\r\n"),
        ),
        ("an idle connection", Some("")),
        ("a new connection", None),
    ] {
        let proxy = running(sim.addr(), 0, 8000);
        let mut client = match how {
            None => TcpStream::connect(proxy.data).unwrap(),
            Some("") => {
                let mut client = TcpStream::connect(proxy.data).unwrap();
                client
                    .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
                    .unwrap();
                assert_eq!(read_message(&mut client).status, 200);
                client
            }
            Some(how) => stream(proxy.data, how).0,
        };
        let began = Instant::now();
        proxy.end.send(()).unwrap();
        eventually("new connections are refused", || {
            TcpStream::connect(proxy.data).is_err()
        });
        if how.is_some_and(|how| !how.is_empty()) {
            let mut all = Vec::new();
            while !all.ends_with(b"0\r\n\r\n") {
                let mut piece = [0; 4096];
                let read = client.read(&mut piece).unwrap();
                assert!(read > 0, "{name}: {}", all.escape_ascii());
                all.extend_from_slice(&piece[..read]);
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        client
            .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        let (bytes, _) = read_to_end(&mut client, LIMIT);
        let answer = Message::parse(&bytes).unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.get("connection").unwrap(), "close", "{name}");
        let (finished, took) = proxy.ended(began);
        assert!(
            finished && took < Duration::from_secs(4),
            "{name}: {took:?}"
        );
    }
}

#[test]
fn the_drain_timeout_cuts() {
    let (_runtime, sim) = simulator();
    let proxy = running(sim.addr(), 0, 500);
    let flying = stream(proxy.data, AGES);
    let began = Instant::now();
    proxy.end.send(()).unwrap();
    let (finished, took) = proxy.ended(began);
    assert!(!finished, "the stream cannot have finished");
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_millis(2500),
        "{took:?}"
    );
    assert!(!rest(flying).complete, "a tidy end");
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_runtime, sim) = simulator();
    for ready_delay in [0, 60_000] {
        let proxy = running(sim.addr(), ready_delay, 60_000);
        let flying = stream(proxy.data, AGES);
        proxy.end.send(()).unwrap();
        eventually("/readyz says 503", || get(proxy.admin, "/readyz") == 503);
        let again = Instant::now();
        proxy.end.send(()).unwrap();
        let (finished, took) = proxy.ended(again);
        assert!(!finished && took < Duration::from_secs(2), "{took:?}");
        assert!(!rest(flying).complete, "a tidy end");
    }
}

#[test]
fn post_drain_is_the_same_as_a_signal() {
    let (_runtime, sim) = simulator();
    let proxy = running(sim.addr(), 0, 8000);
    assert_eq!(ask(proxy.admin, "GET", "/drain"), 405);
    assert_eq!(get(proxy.admin, "/readyz"), 200);
    let flying = stream(proxy.data, SECOND);
    let began = Instant::now();
    assert_eq!(ask(proxy.admin, "POST", "/drain"), 202);
    assert_eq!(get(proxy.admin, "/readyz"), 503);
    assert!(rest(flying).complete);
    assert!(proxy.ended(began).0);
}

/// A browser says where a request comes from, and a page from anywhere may send one to this machine.
#[test]
fn a_page_in_a_browser_cannot_drain() {
    let (_runtime, sim) = simulator();
    let proxy = running(sim.addr(), 0, 8000);
    for origin in ["http://localhost:9101", "https://example.org", "null"] {
        let header = format!("origin: {origin}\r\n");
        assert_eq!(ask_with(proxy.admin, "POST", "/drain", &header), 403);
        assert_eq!(ask_with(proxy.admin, "GET", "/config", &header), 403);
        assert_eq!(ask_with(proxy.admin, "GET", "/metrics", &header), 200);
    }
    assert_eq!(get(proxy.admin, "/readyz"), 200);
    assert_eq!(get(proxy.admin, "/config"), 200);
    let began = Instant::now();
    assert_eq!(ask(proxy.admin, "POST", "/drain"), 202);
    assert!(proxy.ended(began).0);
}

/// What a client has not asked for is not waited for.
#[test]
fn connections_without_a_request_do_not_hold_the_drain() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const HALF: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: ";
    let (_runtime, sim) = simulator();
    for (name, sent) in [
        ("half a head", HALF),
        ("half a head behind an empty line", b"\r\nGET"),
        ("half a preface", &PREFACE[..20]),
        ("an idle h2 connection that does not read", PREFACE),
    ] {
        for served in [false, true] {
            if served && sent.starts_with(b"PRI") {
                // Only the first bytes of a connection say that it is HTTP/2.
                continue;
            }
            let proxy = running(sim.addr(), 0, 60_000);
            let mut client = TcpStream::connect(proxy.data).unwrap();
            if served {
                client
                    .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
                    .unwrap();
                assert_eq!(read_message(&mut client).status, 200);
            }
            client.write_all(sent).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            let began = Instant::now();
            proxy.end.send(()).unwrap();
            let (finished, took) = proxy.ended(began);
            assert!(
                finished && took < Duration::from_secs(3),
                "{name}: {finished} {took:?}"
            );
        }
    }
}

/// The same of a client that knows HTTP/2, has been served and idles.
#[test]
fn an_idle_h2_client_does_not_hold_the_drain() {
    let (clients, sim) = simulator();
    let proxy = running(sim.addr(), 0, 60_000);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let uri = format!("http://{}/health", proxy.data).parse().unwrap();
    let answer = clients.block_on(client.get(uri)).unwrap();
    assert_eq!(answer.status(), 200);
    let began = Instant::now();
    proxy.end.send(()).unwrap();
    let (finished, took) = proxy.ended(began);
    assert!(finished && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn sigterm_drains_the_real_process_and_it_ends_with_0() {
    let (_runtime, sim) = simulator();
    let mut child = Child::start(sim.addr(), "");
    let flying = stream(child.addr(), SECOND);
    child.signal("TERM");
    eventually("/readyz says 503", || get(child.admin(), "/readyz") == 503);
    let whole = rest(flying);
    assert!(whole.complete && whole.body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(child.wait_exit(LIMIT), Some(0));
}

#[test]
fn a_second_sigterm_ends_the_real_process_at_once() {
    let (_runtime, sim) = simulator();
    let mut child = Child::start(sim.addr(), "");
    let flying = stream(child.addr(), AGES);
    child.signal("TERM");
    child.wait_log("draining");
    child.signal("INT");
    assert_eq!(child.wait_exit(Duration::from_secs(2)), Some(0));
    assert!(!rest(flying).complete, "a tidy end");
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_code_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (listen, admin) in [(&*taken, "127.0.0.1:0"), ("127.0.0.1:0", &*taken)] {
        let (code, stderr) = run(&["--listen", listen, "--admin", admin]);
        assert_eq!(code, Some(1), "{stderr}");
        let start = format!("tokenglass: cannot listen on {taken}: ");
        assert!(stderr.starts_with(&start), "{stderr}");
        assert!(stderr.ends_with("ddress already in use\n"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn sighup_takes_a_new_log_level_and_outlives_a_broken_file() {
    let (_runtime, sim) = simulator();
    let mut child = Child::start(sim.addr(), "");
    let reloads = |child: &Child, result: &str| {
        let label = format!(r#"result="{result}""#);
        child
            .metrics()
            .count("tokenglass_config_reloads_total", &[&label])
    };
    assert_eq!(
        (reloads(&child, "success"), reloads(&child, "failure")),
        (0, 0)
    );
    child.rewrite(sim.addr(), "[log]\nlevel = \"tokenglass=debug,info\"\n");
    child.signal("HUP");
    eventually("the reload is counted", || reloads(&child, "success") > 0);
    // What only debug logs is logged now.
    drop(stream(child.addr(), AGES));
    child.wait_log("\"DEBUG\"");

    // (More than one, if the file was looked at just before the signal.)
    let so_far = reloads(&child, "success");
    child.rewrite(sim.addr(), "[log]\nlevle = \"info\"\n");
    child.signal("HUP");
    eventually("the failure is counted", || reloads(&child, "failure") > 0);
    let line = child.wait_log("not reloaded");
    assert!(line.contains("levle"), "{line}");
    assert_eq!(reloads(&child, "success"), so_far);
    let flying = stream(child.addr(), "connection: close\r\n");
    assert!(rest(flying).complete, "and the proxy goes on");
    child.signal("TERM");
    assert_eq!(child.wait_exit(LIMIT), Some(0));
}
