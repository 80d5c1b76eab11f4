//! The engine's own counters against what passed: nothing is unaccounted that came through the proxy, and what did
//! not is counted to the token.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadtest::sim;
use tokio::runtime::Runtime;

use crate::health::{INTERVAL, is, lines};
use crate::origin::Peer;
use crate::stub::{Reply, Vllm};
use crate::support::{Proxy, STREAM, chat, read_message, runtime};

const PLAIN: &str =
    r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}],"max_tokens":8}"#;
const SEVERAL: &str =
    r#"{"model":"tiny","messages":[{"role":"user","content":"Hello"}],"max_tokens":8,"n":3}"#;

fn start(runtime: &Runtime, listen: sim::Listen, behaviour: sim::Behaviour) -> sim::Server {
    let config = sim::Config {
        listen,
        behaviour,
        ..sim::Config::default()
    };
    runtime
        .block_on(async { sim::Server::start(config) })
        .unwrap()
}

fn simulator(runtime: &Runtime) -> sim::Server {
    let listen = sim::Config::default().listen;
    start(runtime, listen, sim::Behaviour::default())
}

/// A proxy that has read the counters once.
fn proxy(upstream: SocketAddr) -> Proxy {
    let proxy = Proxy::with(upstream, |config| {
        config.engine.metrics = true;
        config.engine.interval = INTERVAL / 2;
    });
    proxy.wait_metrics("a first reading", |m| {
        lines(m, "vllm_unaccounted_tokens_total").len() == 2
    });
    proxy
}

fn ask(to: SocketAddr, bodies: &[&str], times: usize) {
    let mut client = TcpStream::connect(to).unwrap();
    for body in bodies.iter().cycle().take(times * bodies.len()) {
        client.write_all(&chat("", body)).unwrap();
        assert_eq!(read_message(&mut client).status, 200);
    }
}

fn unaccounted(proxy: &Proxy) -> (u64, u64) {
    let metrics = proxy.metrics();
    let of = |direction: &str| {
        let label = format!(r#"direction="{direction}""#);
        metrics.count("vllm_unaccounted_tokens_total", &[&label])
    };
    (of("input"), of("output"))
}

#[track_caller]
fn becomes(proxy: &Proxy, wanted: (u64, u64)) {
    proxy.wait_metrics(&format!("{wanted:?}"), |_| unaccounted(proxy) == wanted);
}

/// Several readings later it is still the same.
#[track_caller]
fn stays(proxy: &Proxy, wanted: (u64, u64)) {
    for _ in 0..10 {
        assert_eq!(unaccounted(proxy), wanted);
        std::thread::sleep(INTERVAL / 2);
    }
}

/// What the simulator did for its `count` requests from the `skip`th on, which are the last.
#[track_caller]
fn done(sim: &sim::Server, skip: usize, count: usize) -> (u64, u64) {
    // It writes them down a moment after the client has its answer.
    let deadline = Instant::now() + Duration::from_secs(10);
    while sim.truth().len() < skip + count {
        assert!(Instant::now() < deadline, "{} requests", sim.truth().len());
        std::thread::sleep(Duration::from_millis(2));
    }
    let entries = sim.truth().entries();
    assert_eq!(entries.len(), skip + count);
    entries.iter().skip(skip).fold((0, 0), |sum, entry| {
        let input = entry.prompt_tokens * entry.n;
        (
            sum.0 + u64::from(input),
            sum.1 + u64::from(entry.output_tokens),
        )
    })
}

#[test]
fn what_passes_is_accounted_for_and_what_bypasses_is_not() {
    let runtime = runtime();
    let sim = simulator(&runtime);
    // Before the first reading: nobody's business.
    ask(sim.addr(), &[PLAIN], 3);
    done(&sim, 0, 3);
    let proxy = proxy(sim.addr());
    let to = proxy.addr();
    let clients: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || ask(to, &[PLAIN, STREAM, SEVERAL], 20)))
        .collect();
    while clients.iter().any(|client| !client.is_finished()) {
        assert_eq!(unaccounted(&proxy), (0, 0));
    }
    for client in clients {
        client.join().unwrap();
    }
    stays(&proxy, (0, 0));
    let before = 3 + 4 * 60;
    done(&sim, 0, before);
    ask(sim.addr(), &[PLAIN, STREAM, SEVERAL], 2);
    let bypassed = done(&sim, before, 6);
    assert!(bypassed.0 > 0 && bypassed.1 > 0);
    becomes(&proxy, bypassed);
    ask(to, &[STREAM], 5);
    stays(&proxy, bypassed);
}

#[test]
fn a_stream_in_flight_is_not_unaccounted() {
    // The engine counts while it works; the proxy learns at the end.
    let vllm = Vllm::start();
    let counters = |prompt: u64, generation: u64| {
        let text = format!(
            "vllm:prompt_tokens_total {prompt}\nvllm:generation_tokens_total {generation}\n"
        );
        vllm.set("/metrics", 200, &text);
    };
    counters(100, 100);
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = std::sync::Mutex::new(receiver);
    vllm.reply(
        "/v1/chat/completions",
        Reply::Code(std::sync::Arc::new(move |peer: &mut Peer| {
            peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
            peer.write("data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n");
            receiver.lock().unwrap().recv().unwrap();
            peer.write("data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
            peer.write("data: {\"model\":\"tiny\",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":50}}\n\n");
            peer.write("data: [DONE]\n\n");
        })),
    );
    let proxy = proxy(vllm.addr);
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", STREAM));
    client.read_until(b"Hi");
    counters(120, 110);
    stays(&proxy, (0, 0));
    // And somebody else asks.
    counters(121, 152);
    stays(&proxy, (0, 0));
    sender.send(()).unwrap();
    client.read_until(b"[DONE]");
    becomes(&proxy, (1, 2));
    stays(&proxy, (1, 2));
    // It restarts, works for somebody else, and cannot be read for a while.
    counters(0, 0);
    stays(&proxy, (1, 2));
    vllm.set("/metrics", 503, "");
    stays(&proxy, (1, 2));
    counters(3, 4);
    becomes(&proxy, (4, 6));
}

#[test]
fn an_abort_of_unknown_count_is_nobody_elses_traffic() {
    let runtime = runtime();
    let behaviour = sim::Behaviour {
        itl_ms: Some(20.0.into()),
        output_tokens: Some(500.0.into()),
        ..sim::Behaviour::default()
    };
    let sim = start(&runtime, sim::Config::default().listen, behaviour);
    let proxy = proxy(sim.addr());
    let body = STREAM.replace(r#""max_tokens":8,"#, r#""max_tokens":500,"#);
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", &body));
    client.read_until(b"data: ");
    client.read_for(Duration::from_millis(200));
    drop(client);
    proxy.wait_metrics("cancelled", |m| m.outcomes() == (0, 0, 1));
    // Its usage was promised for the end.
    let reopened = |proxy: &Proxy, count: u64| {
        proxy.wait_metrics("the books anew", |m| {
            m.count("tokenglass_unaccounted_reopened_total", &[]) == count
        });
    };
    reopened(&proxy, 2);
    stays(&proxy, (0, 0));
    done(&sim, 0, 1);
    ask(sim.addr(), &[PLAIN], 1);
    let bypassed = done(&sim, 1, 1);
    becomes(&proxy, bypassed);
    reopened(&proxy, 2);
}

#[test]
fn an_answer_without_usage_is_nobody_elses_traffic() {
    let vllm = Arc::new(Vllm::start());
    let counters = |vllm: &Vllm, prompt: u64| {
        let text = format!("vllm:prompt_tokens_total {prompt}\nvllm:generation_tokens_total 100\n");
        vllm.set("/metrics", 200, &text);
    };
    counters(&vllm, 100);
    let engine = Arc::clone(&vllm);
    vllm.reply(
        "/pooling",
        Reply::Code(Arc::new(move |peer: &mut Peer| {
            counters(&engine, 150);
            std::thread::sleep(INTERVAL);
            peer.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"data\":[]}");
        })),
    );
    vllm.set("/score", 400, r#"{"error":"no"}"#);
    let proxy = proxy(vllm.addr);
    let post = |path: &str, status: u16| {
        let mut client = TcpStream::connect(proxy.addr()).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}");
        client.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_message(&mut client).status, status);
    };
    post("/pooling", 200);
    let reopened =
        |m: &crate::support::Metrics| m.count("tokenglass_unaccounted_reopened_total", &[]);
    proxy.wait_metrics("the books anew", |m| reopened(m) == 2);
    stays(&proxy, (0, 0));
    counters(&vllm, 153);
    becomes(&proxy, (3, 0));
    // What was refused has cost the engine nothing.
    post("/score", 400);
    stays(&proxy, (3, 0));
    assert_eq!(reopened(&proxy.metrics()), 2);
}

#[test]
fn a_restart_takes_nothing_back() {
    let runtime = runtime();
    let sim = simulator(&runtime);
    let addr = sim.addr();
    let proxy = proxy(addr);
    ask(addr, &[PLAIN], 40);
    let first = done(&sim, 0, 40);
    becomes(&proxy, first);
    runtime.block_on(sim.shutdown());
    let sim = start(&runtime, sim::Listen::Tcp(addr), sim::Behaviour::default());
    // It has been read before anybody asks it.
    stays(&proxy, first);
    ask(proxy.addr(), &[PLAIN, STREAM], 2);
    stays(&proxy, first);
    ask(addr, &[PLAIN], 1);
    let second = done(&sim, 4, 1);
    becomes(&proxy, (first.0 + second.0, first.1 + second.1));
}

#[test]
fn a_proxy_that_does_not_look_accuses_nobody() {
    let runtime = runtime();
    let sim = simulator(&runtime);
    let proxy = Proxy::with(sim.addr(), |config| {
        config.observe.enabled = false;
        config.engine.metrics = true;
        config.engine.interval = INTERVAL / 2;
    });
    proxy.wait_metrics("a reading", |m| {
        !lines(m, "vllm_exporter_scrape_duration_seconds").is_empty()
    });
    let metrics = proxy.metrics();
    assert!(is(
        &metrics,
        r#"vllm_exporter_scrape_errors_total{endpoint="metrics"} 0"#
    ));
    assert!(lines(&metrics, "vllm_unaccounted_tokens_total").is_empty());
}
