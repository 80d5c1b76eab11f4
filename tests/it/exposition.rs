//! `/metrics` as it is scraped: formats, packing, and what upstreams of every kind do to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokenglass::config::UpstreamUrl;

use crate::exposition_parser::{Family, parse};
use crate::support::{Message, Proxy, chat, exchange};

const RECORDED: &str = include_str!("../captures/metrics-under-load.resp");
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
const SOON: Duration = Duration::from_secs(10);

/// What comes first, and what comes then for ever.
type Answer = (Vec<u8>, Option<Vec<u8>>);

/// An upstream that answers every request with the same bytes, and then goes on with `more` for ever.
struct Vllm {
    addr: SocketAddr,
    answer: Arc<Mutex<Answer>>,
}

impl Vllm {
    fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((answer, None)));
        let shared = Arc::clone(&answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, shared) = (stream.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let mut head = [0; 4096];
                    while stream.read(&mut head).is_ok_and(|n| n > 0) {
                        let (answer, more): Answer = shared.lock().unwrap().clone();
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                        while let Some(more) = &more {
                            if stream.write_all(more).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { addr, answer }
    }

    fn set(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = (answer, None);
    }
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn proxy(vllm: SocketAddr) -> Proxy {
    Proxy::with(vllm, polled)
}

fn polled(config: &mut tokenglass::config::Config) {
    config.engine.metrics = true;
    config.engine.interval = Duration::from_millis(50);
    config.engine.timeout = Duration::from_millis(500);
}

fn scrape(proxy: &Proxy, headers: &str) -> Message {
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    let (bytes, _) = exchange(proxy.admin(), request.as_bytes(), SOON);
    Message::parse(&bytes).unwrap()
}

/// Both formats, strictly.
#[track_caller]
fn families(proxy: &Proxy) -> Vec<Family> {
    let [text, _] = [false, true].map(|open_metrics| {
        let accept = if open_metrics { PROMETHEUS } else { "*/*" };
        let answer = scrape(proxy, &format!("accept: {accept}\r\n"));
        let kind = answer.get("content-type").unwrap();
        assert_eq!(
            kind.starts_with("application/openmetrics-text; version=1.0.0"),
            open_metrics
        );
        let text = String::from_utf8(answer.body).unwrap();
        parse(&text, open_metrics).unwrap_or_else(|error| panic!("{error}\n{text}"))
    });
    text
}

#[track_caller]
fn wait(proxy: &Proxy, what: &str, ready: impl Fn(&[Family]) -> bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let families = families(proxy);
        if ready(&families) {
            return;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn value(families: &[Family], name: &str) -> Option<f64> {
    families
        .iter()
        .flat_map(|family| &family.samples)
        .find(|sample| sample.name == name)
        .map(|sample| sample.value)
}

fn running(families: &[Family]) -> bool {
    value(families, "vllm:num_requests_running").is_some()
}

#[test]
fn what_vllm_says_is_shown_until_it_is_stale() {
    let vllm = Vllm::start(RECORDED.replace("connection: close", "x-a: b").into_bytes());
    let proxy = proxy(vllm.addr);
    wait(&proxy, "vLLM's families", |f| {
        running(f) && value(f, "tokenglass_engine_up") == Some(1.0)
    });
    let shown = families(&proxy);
    assert_eq!(
        value(&shown, "vllm:gpu_cache_usage_perc"),
        value(&shown, "vllm:kv_cache_usage_perc")
    );
    assert!(value(&shown, "tokenglass_engine_last_scrape_timestamp_seconds").unwrap() > 1e9);
    vllm.set(ok("", b"# TYPE vllm:new gauge\nvllm:new 1\n"));
    wait(&proxy, "another set of names", |f| {
        !running(f) && value(f, "vllm:new") == Some(1.0)
    });
    vllm.set(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec());
    wait(&proxy, "stale and gone", |f| {
        value(f, "vllm:new").is_none() && value(f, "tokenglass_engine_up") == Some(0.0)
    });
    assert!(value(&families(&proxy), "tokenglass_build_info").is_some());
}

#[test]
fn hostile_answers_do_no_harm() {
    let mut gzip = tokenglass::exposition::Gzip::default();
    gzip.pack(b"a 1\n");
    let gzip = gzip.finish();
    let good = ok(
        "",
        b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n",
    );
    let vllm = Vllm::start(good.clone());
    let proxy = Proxy::with(vllm.addr, |config| {
        polled(config);
        config.engine.max_bytes = 256 * 1024;
    });
    for (what, answer, more) in [
        (
            "100 MB",
            ok("", &b"a_metric_with_a_name 1\n".repeat(100_000_000 / 23)),
            None,
        ),
        (
            "never ends",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            Some(b"10\r\n# comment 234567\n\r\n".to_vec()),
        ),
        (
            "says nothing more",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\na 1\n".to_vec(),
            None,
        ),
        ("gzip", ok("content-encoding: gzip\r\n", &gzip), None),
        (
            "HTML",
            ok(
                "content-type: text/html\r\n",
                b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
            ),
            None,
        ),
        ("nothing", ok("", b""), None),
        ("not HTTP", b"\0\0\0\x12\x04\0\0\0\0\0".to_vec(), None),
        (
            "moved",
            b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n".to_vec(),
            None,
        ),
    ] {
        vllm.set(good.clone());
        wait(&proxy, "good", |f| {
            running(f) && value(f, "tokenglass_engine_up") == Some(1.0)
        });
        *vllm.answer.lock().unwrap() = (answer, more);
        wait(&proxy, what, |f| {
            !running(f) && value(f, "tokenglass_engine_up") == Some(0.0)
        });
    }
}

#[test]
fn duplicates_and_our_names_do_not_get_through() {
    let body = "vllm_request_success_total 7\n# TYPE process_open_fds gauge\nprocess_open_fds 7\na{x=\"1\"} 1\nb 1\na{x=\"1\"} 2\n\
        tokenglass_build_info 7\nvllm_requests_in_flight 7\nvllm_request_duration_seconds_bucket{le=\"1\"} 7\n";
    let vllm = Vllm::start(ok("", body.as_bytes()));
    let proxy = proxy(vllm.addr);
    wait(&proxy, "shown", |f| {
        value(f, "a") == Some(1.0) && value(f, "b").is_some()
    });
    // Our own families appear once there is traffic.
    exchange(
        proxy.addr(),
        &chat("connection: close\r\n", "{\"model\":\"m\"}"),
        SOON,
    );
    wait(&proxy, "counted", |f| {
        value(f, "vllm_request_duration_seconds_count") == Some(1.0)
    });
    let shown = families(&proxy);
    assert_ne!(value(&shown, "process_open_fds"), Some(7.0));
    assert_eq!(value(&shown, "tokenglass_build_info"), Some(1.0));
    assert_eq!(value(&shown, "vllm:request_success_total"), Some(7.0));
}

#[test]
fn two_upstreams_are_told_apart() {
    let [one, other] =
        [1, 2].map(|n| Vllm::start(ok("", format!("# TYPE g gauge\ng {n}\n").as_bytes())));
    let proxy = Proxy::with(one.addr, |config| {
        polled(config);
        config.upstream.urls.push(UpstreamUrl::Http {
            host: other.addr.ip().to_string(),
            port: other.addr.port(),
        });
    });
    wait(&proxy, "both", |f| {
        f.iter()
            .find(|family| family.name == "g")
            .is_some_and(|family| {
                family.samples.len() == 2
                    && family.samples.iter().all(|s| {
                        s.label("upstream")
                            .unwrap()
                            .starts_with("http://127.0.0.1:")
                    })
            })
    });
    let up = families(&proxy);
    let up = up
        .iter()
        .find(|family| family.name == "tokenglass_engine_up")
        .unwrap();
    assert_eq!(up.samples.len(), 2);
}

#[test]
fn off_is_off() {
    let vllm = Vllm::start(RECORDED.as_bytes().to_vec());
    let proxy = Proxy::start(vllm.addr);
    std::thread::sleep(Duration::from_millis(100));
    let shown = families(&proxy);
    assert!(
        shown
            .iter()
            .all(|f| !f.name.starts_with("vllm:") && !f.name.starts_with("tokenglass_engine_"))
    );
}

#[test]
fn a_scrape_is_packed_for_who_takes_it() {
    let vllm = Vllm::start(RECORDED.replace("connection: close", "x-a: b").into_bytes());
    let proxy = proxy(vllm.addr);
    wait(&proxy, "vLLM's families", running);
    for (accept, packed) in [
        ("gzip", true),
        ("br;q=1, gzip;q=0.8", true),
        ("gzip;q=0", false),
        ("br", false),
    ] {
        let answer = scrape(&proxy, &format!("accept-encoding: {accept}\r\n"));
        assert_eq!(
            answer.get("vary").as_deref(),
            Some("Accept, Accept-Encoding")
        );
        assert_eq!(answer.get("content-encoding").is_some(), packed, "{accept}");
        let mut text = String::new();
        if packed {
            flate2::read::GzDecoder::new(&answer.body[..])
                .read_to_string(&mut text)
                .unwrap();
            assert!(answer.body.len() * 5 < text.len());
        } else {
            text = String::from_utf8(answer.body).unwrap();
        }
        assert!(running(&parse(&text, false).unwrap()));
    }
}

#[test]
fn more_connections_than_scrapers_need_have_to_wait() {
    let vllm = Vllm::start(ok("", b"a 1\n"));
    let proxy = Proxy::start(vllm.addr);
    let connect = || TcpStream::connect(proxy.admin()).unwrap();
    let mut idle: Vec<_> = (0..128).map(|_| connect()).collect();
    let mut late = connect();
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    late.write_all(request).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(late.read(&mut [0; 16]).is_err(), "answered all the same");
    idle.pop();
    late.set_read_timeout(Some(SOON)).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
