//! vLLM's `/health` says 200 of a hung engine; the traffic and the engine's own counters know better.

use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokenglass::config::UpstreamUrl;

use crate::health::{INTERVAL, is, polling};
use crate::origin::Peer;
use crate::stub::{Reply, Vllm, models};
use crate::support::{Proxy, STREAM, chat};

const AFTER: Duration = Duration::from_secs(1);
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const TOKEN: &str = "data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";

const HANG: u8 = 0;
const COMMENTS: u8 = 1;
const TOKENS: u8 = 2;
const END: u8 = 3;

/// What the engine does for its request, to be changed while it does.
#[derive(Clone, Default)]
struct Engine(Arc<AtomicU8>);

impl Engine {
    fn does(&self, what: u8) {
        self.0.store(what, Ordering::Relaxed);
    }

    /// A stream as the engine gives it.
    fn stream(&self) -> Reply {
        let engine = self.clone();
        Reply::Code(Arc::new(move |peer: &mut Peer| {
            peer.write(HEAD);
            loop {
                let event = match engine.0.load(Ordering::Relaxed) {
                    HANG => "",
                    COMMENTS => ": keep-alive\n\n",
                    TOKENS => TOKEN,
                    _ => return,
                };
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                if !event.is_empty() && peer.stream.write_all(chunk.as_bytes()).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }))
    }

    /// An answer that comes at once when the engine has it.
    fn body(&self) -> Reply {
        let engine = self.clone();
        Reply::Code(Arc::new(move |peer: &mut Peer| {
            while engine.0.load(Ordering::Relaxed) != END {
                std::thread::sleep(Duration::from_millis(5));
            }
            let body = r#"{"model":"tiny","choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
            let length = body.len();
            peer.write(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"));
        }))
    }
}

fn counters(tokens: u64) -> String {
    format!(
        "vllm:prompt_tokens_total{{engine=\"0\"}} 7.0\nvllm:generation_tokens_total{{engine=\"0\"}} {tokens}.0\n"
    )
}

fn vllm() -> Vllm {
    let vllm = Vllm::start();
    vllm.set("/metrics", 200, &counters(5));
    vllm
}

fn proxy(vllm: &Vllm, more: Option<&Vllm>) -> Proxy {
    Proxy::with(vllm.addr, |config| {
        polling(config);
        config.health.stalled_after = AFTER;
        config.engine.metrics = true;
        config.engine.interval = INTERVAL / 2;
        if let Some(more) = more {
            config.upstream.urls.push(UpstreamUrl::Http {
                host: more.addr.ip().to_string(),
                port: more.addr.port(),
            });
        }
    })
}

fn stalled(proxy: &Proxy, yes: bool) {
    let line = format!("vllm_engine_stalled {}", u8::from(yes));
    proxy.wait_metrics(&line, |m| is(m, &line));
}

/// Holds for as long as a stall would take to show twice.
fn never_stalls(proxy: &Proxy) {
    let until = Instant::now() + AFTER * 2;
    while Instant::now() < until {
        assert!(!is(&proxy.metrics(), "vllm_engine_stalled 1"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stream_that_hangs_is_a_stall_and_comments_are_no_tokens() {
    let (vllm, engine) = (vllm(), Engine::default());
    vllm.reply("/v1/chat/completions", engine.stream());
    let proxy = proxy(&vllm, None);
    stalled(&proxy, false);
    engine.does(TOKENS);
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", STREAM));
    client.read_until(b"Hi");
    never_stalls(&proxy);
    // The frontend is alive, the engine is not.
    engine.does(COMMENTS);
    stalled(&proxy, true);
    assert!(is(&proxy.metrics(), "vllm_service_up 1"));
    assert!(is(&proxy.metrics(), "vllm_model_loaded 1"));
    engine.does(TOKENS);
    stalled(&proxy, false);
    engine.does(HANG);
    stalled(&proxy, true);
    // Others still move, beside the proxy.
    vllm.set("/metrics", 200, &counters(6));
    stalled(&proxy, false);
    stalled(&proxy, true);
    // Nobody waits any more.
    drop(client);
    stalled(&proxy, false);
    never_stalls(&proxy);
}

#[test]
fn a_long_answer_is_no_stall_while_the_engine_works() {
    let (vllm, engine) = (vllm(), Engine::default());
    vllm.reply("/v1/chat/completions", engine.body());
    let proxy = proxy(&vllm, None);
    stalled(&proxy, false);
    let over = Arc::new(Mutex::new(false));
    let ticking = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            for tokens in 6.. {
                if *over.lock().unwrap() {
                    return;
                }
                vllm.set("/metrics", 200, &counters(tokens));
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", r#"{"model":"tiny","messages":[]}"#));
    proxy.wait_metrics("in flight", |m| {
        m.count("vllm_requests_in_flight", &[]) == 1
    });
    never_stalls(&proxy);
    *over.lock().unwrap() = true;
    ticking.join().unwrap();
    stalled(&proxy, true);
    engine.does(END);
    client.read_until(b"completion_tokens");
    stalled(&proxy, false);
}

#[test]
fn without_counters_a_stream_that_fell_silent_tells_and_one_that_waits_does_not() {
    let (vllm, engine) = (vllm(), Engine::default());
    vllm.reply("/v1/chat/completions", engine.stream());
    vllm.set("/metrics", 500, "");
    let proxy = proxy(&vllm, None);
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", STREAM));
    client.read_until(b"\r\n\r\n");
    // It may be queued behind others.
    never_stalls(&proxy);
    engine.does(TOKENS);
    client.read_until(b"Hi");
    never_stalls(&proxy);
    engine.does(HANG);
    stalled(&proxy, true);
    let errors = [r#"endpoint="metrics""#];
    let metrics = proxy.metrics();
    assert!(metrics.count("vllm_exporter_scrape_errors_total", &errors) > 0);
    assert!(metrics.sum("vllm_exporter_scrape_duration_seconds", &errors) > 0.0);
}

#[test]
fn an_adapter_that_loads_is_no_stall() {
    let (vllm, engine) = (vllm(), Engine::default());
    vllm.reply("/v1/load_lora_adapter", engine.body());
    let proxy = proxy(&vllm, None);
    stalled(&proxy, false);
    let mut client = Peer::connect(proxy.addr());
    client.write("POST /v1/load_lora_adapter HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}");
    proxy.wait_metrics("in flight", |m| {
        m.count("vllm_requests_in_flight", &[]) == 1
    });
    never_stalls(&proxy);
    engine.does(END);
    client.read_until(b"usage");
}

#[test]
fn clients_that_give_up_sooner_do_not_hide_a_stall() {
    let (vllm, engine) = (vllm(), Engine::default());
    vllm.reply("/v1/chat/completions", engine.stream());
    let proxy = proxy(&vllm, None);
    stalled(&proxy, false);
    let line = "vllm_engine_stalled 1";
    let until = Instant::now() + Duration::from_secs(20);
    while !is(&proxy.metrics(), line) {
        assert!(Instant::now() < until, "never shown");
        let mut client = Peer::connect(proxy.addr());
        client.write(chat("", STREAM));
        client.read_for(AFTER / 2);
    }
}

#[test]
fn a_reading_older_than_the_request_says_nothing() {
    let (vllm, engine) = (vllm(), Engine::default());
    vllm.reply("/v1/chat/completions", engine.body());
    let proxy = Proxy::with(vllm.addr, |config| {
        polling(config);
        config.health.stalled_after = AFTER / 2;
        config.engine.metrics = true;
        // One reading, and no other.
        config.engine.interval = Duration::from_secs(600);
    });
    stalled(&proxy, false);
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", r#"{"model":"tiny","messages":[]}"#));
    proxy.wait_metrics("in flight", |m| {
        m.count("vllm_requests_in_flight", &[]) == 1
    });
    never_stalls(&proxy);
    engine.does(END);
    client.read_until(b"completion_tokens");
}

#[test]
fn only_the_upstream_that_hangs_is_stuck() {
    let (first, second, engine) = (vllm(), vllm(), Engine::default());
    first.reply("/v1/chat/completions", engine.stream());
    // Each serves its own, so that the request has one place to go.
    second.set("/v1/models", 200, &models(&["other"]));
    let proxy = proxy(&first, Some(&second));
    proxy.wait_metrics("both lists", |m| {
        m.0.contains("vllm_model_info{id=\"tiny\"") && m.0.contains("vllm_model_info{id=\"other\"")
    });
    let mut client = Peer::connect(proxy.addr());
    client.write(chat("", STREAM));
    client.read_until(b"\r\n\r\n");
    let line = |vllm: &Vllm, value: u8| {
        format!(
            r#"vllm_engine_stalled{{upstream="http://{}"}} {value}"#,
            vllm.addr
        )
    };
    let metrics = proxy.wait_metrics("the first", |m| is(m, &line(&first, 1)));
    assert!(is(&metrics, &line(&second, 0)));
}
