//! What `/metrics` says of vLLM's health: each family's value, and how soon it is true.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadtest::sim;
use tokenglass::config::{Config, Secret, UpstreamUrl};

use crate::child::Child;
use crate::stub::{Reply, Vllm, models};
use crate::support::{Metrics, Proxy, chat, exchange, runtime};

pub const INTERVAL: Duration = Duration::from_millis(100);

pub fn polling(config: &mut Config) {
    config.health.enabled = true;
    config.health.interval = INTERVAL;
    config.health.timeout = Duration::from_millis(400);
}

fn proxy(vllm: &Vllm) -> Proxy {
    Proxy::with(vllm.addr, polling)
}

pub fn lines<'a>(metrics: &'a Metrics, family: &str) -> Vec<&'a str> {
    let of_family = metrics.0.lines().filter(|line| {
        line.strip_prefix(family)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    of_family.collect()
}

pub fn is(metrics: &Metrics, line: &str) -> bool {
    metrics.0.lines().any(|found| found == line)
}

/// Nothing of what only an upstream that answers can say.
fn nothing_stale(metrics: &Metrics) -> bool {
    [
        "vllm_model_info",
        "vllm_max_model_len",
        "vllm_version_info",
        "vllm_server_load",
    ]
    .iter()
    .all(|family| lines(metrics, family).is_empty())
}

fn up(metrics: &Metrics) -> bool {
    is(metrics, "vllm_service_up 1") && is(metrics, "vllm_model_loaded 1")
}

fn down(metrics: &Metrics) -> bool {
    is(metrics, "vllm_service_up 0")
        && is(metrics, "vllm_model_loaded 0")
        && is(metrics, "vllm_available_models 0")
        && is(metrics, "vllm_available_models_total 0")
        && nothing_stale(metrics)
}

#[test]
fn every_family_has_its_value() {
    let vllm = Vllm::start();
    let proxy = proxy(&vllm);
    let metrics = proxy.wait_metrics("a round", |m| !lines(m, "vllm_server_load").is_empty());
    for line in [
        "vllm_service_up 1",
        "vllm_model_loaded 1",
        "vllm_available_models 1",
        "vllm_available_models_total 1",
        r#"vllm_model_info{id="tiny",owned_by="vllm",root="/srv/tiny"} 1"#,
        r#"vllm_max_model_len{id="tiny"} 2048"#,
        r#"vllm_version_info{version="0.32.0"} 1"#,
        "vllm_server_load 3",
        r#"vllm_probe_request_error_total{error_type="connection_error"} 0"#,
        r#"vllm_probe_request_error_total{error_type="http_status"} 0"#,
        r#"vllm_probe_request_error_total{error_type="timeout"} 0"#,
        r#"vllm_exporter_scrape_errors_total{endpoint="health"} 0"#,
        r#"vllm_exporter_scrape_errors_total{endpoint="models"} 0"#,
        "# TYPE vllm_available_models_total gauge",
        "# TYPE vllm_exporter_scrape_duration_seconds gauge",
    ] {
        assert!(is(&metrics, line), "{line}\n{}", metrics.non_zero());
    }
    proxy.wait_metrics("a verdict", |m| is(m, "vllm_engine_stalled 0"));
    let metrics = proxy.wait_metrics("a second round", |m| {
        m.count("vllm_health_check_latency_seconds_count", &[]) >= 2
    });
    assert!(metrics.count("vllm_probe_request_success_total", &[]) >= 3);
    for endpoint in ["health", "models"] {
        let label = format!(r#"endpoint="{endpoint}""#);
        let took = metrics.sum("vllm_exporter_scrape_duration_seconds", &[&label]);
        assert!(took > 0.0 && took < 5.0, "{took}");
    }
    // Nobody asks /metrics here.
    assert_eq!(metrics.0.matches(r#"endpoint="metrics""#).count(), 0);
    assert!(lines(&metrics, "vllm_unaccounted_tokens_total").is_empty());
}

#[test]
fn a_server_that_drops_used_connections_without_a_word_is_up() {
    let vllm = Vllm::start();
    vllm.reply(
        "/health",
        Reply::Code(Arc::new(|peer| {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            peer.stream.write_all(answer).unwrap();
            // Gone once the next request has been written.
            let _ = peer.stream.read(&mut [0; 4096]);
        })),
    );
    let proxy = proxy(&vllm);
    let metrics = proxy.wait_metrics("some rounds", |m| {
        m.count("vllm_health_check_latency_seconds_count", &[]) >= 5
    });
    assert!(up(&metrics), "{}", metrics.non_zero());
    assert!(
        is(
            &metrics,
            r#"vllm_probe_request_error_total{error_type="connection_error"} 0"#
        ),
        "{}",
        metrics.non_zero()
    );
}

#[test]
fn nothing_is_asked_or_shown_where_it_is_off() {
    let vllm = Vllm::start();
    let proxy = Proxy::start(vllm.addr);
    std::thread::sleep(INTERVAL);
    let text = proxy.metrics().0;
    for family in ["vllm_service_up", "vllm_probe", "vllm_exporter"] {
        assert!(!text.contains(family), "{family}");
    }
    assert!(vllm.heads.lock().unwrap().is_empty());
}

#[test]
fn a_kill_and_a_restart_show() {
    let runtime = runtime();
    let start = |listen| {
        runtime
            .block_on(async {
                sim::Server::start(sim::Config {
                    listen,
                    ..sim::Config::default()
                })
            })
            .unwrap()
    };
    let server = start(sim::Config::default().listen);
    let addr = server.addr();
    let proxy = Proxy::with(addr, polling);
    proxy.wait_metrics("up", up);
    runtime.block_on(server.shutdown());
    let killed = Instant::now();
    proxy.wait_metrics("down", down);
    // Two intervals are 200 ms; the rest is for a machine that does other things.
    assert!(
        killed.elapsed() < Duration::from_secs(3),
        "{:?}",
        killed.elapsed()
    );
    let metrics = proxy.wait_metrics("errors", |m| {
        m.count(
            "vllm_probe_request_error_total",
            &[r#"error_type="connection_error""#],
        ) > 0
            && m.count(
                "vllm_exporter_scrape_errors_total",
                &[r#"endpoint="health""#],
            ) > 0
    });
    assert_eq!(
        metrics.count(
            "vllm_exporter_scrape_errors_total",
            &[r#"endpoint="models""#]
        ),
        0
    );
    // Traffic is measured all the same.
    let body = r#"{"model":"tiny","messages":[]}"#;
    let request = chat("connection: close\r\n", body);
    exchange(proxy.addr(), &request, Duration::from_secs(10));
    proxy.wait_metrics("the failure", |m| {
        m.count(
            "vllm_request_error_total",
            &[r#"error_type="upstream_connect""#],
        ) == 1
    });
    let server = start(sim::Listen::Tcp(addr));
    let back = Instant::now();
    proxy.wait_metrics("up again", |m| {
        up(m)
            && !lines(m, "vllm_version_info").is_empty()
            && !lines(m, "vllm_server_load").is_empty()
    });
    assert!(
        back.elapsed() < Duration::from_secs(3),
        "{:?}",
        back.elapsed()
    );
    drop(server);
}

#[test]
fn a_proxy_that_starts_before_vllm_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let proxy = Proxy::with(addr, polling);
    proxy.wait_metrics("down", down);
}

#[test]
fn a_hang_shows_and_its_end_too() {
    let vllm = Vllm::start();
    let proxy = proxy(&vllm);
    proxy.wait_metrics("up", up);
    vllm.everything(&Reply::Hang);
    proxy.wait_metrics("down", down);
    // The name that it had listed is still a label.
    vllm.reply("/v1/chat/completions", Reply::Cut);
    let request = chat("connection: close\r\n", r#"{"model":"tiny","messages":[]}"#);
    exchange(proxy.addr(), &request, Duration::from_secs(10));
    proxy.wait_metrics("a failure of the model", |m| {
        m.count("vllm_request_error_total", &[r#"model="tiny""#]) == 1
    });
    let metrics = proxy.wait_metrics("the kind", |m| {
        m.count(
            "vllm_probe_request_error_total",
            &[r#"error_type="timeout""#],
        ) > 0
    });
    let took = metrics.sum(
        "vllm_exporter_scrape_duration_seconds",
        &[r#"endpoint="health""#],
    );
    assert!(took > 0.3, "{took}");
    vllm.set("/v1/models", 200, &models(&["other-one"]));
    vllm.set("/version", 200, r#"{"version":"0.33.0"}"#);
    vllm.set("/health", 200, "");
    vllm.reply("/load", Reply::Cut);
    let metrics = proxy.wait_metrics("up, and another", |m| {
        up(m) && is(m, r#"vllm_version_info{version="0.33.0"} 1"#)
    });
    assert_eq!(lines(&metrics, "vllm_version_info").len(), 1);
    assert_eq!(lines(&metrics, "vllm_model_info").len(), 1);
    assert!(lines(&metrics, "vllm_server_load").is_empty());
}

#[test]
fn an_unhealthy_vllm_is_reachable_and_not_loaded() {
    let vllm = Vllm::start();
    vllm.set("/health", 503, "");
    let proxy = proxy(&vllm);
    let metrics = proxy.wait_metrics("a round", |m| is(m, "vllm_available_models 1"));
    assert!(is(&metrics, "vllm_service_up 1") && is(&metrics, "vllm_model_loaded 0"));
    let metrics = proxy.wait_metrics("its answers are timed", |m| {
        m.count("vllm_health_check_latency_seconds_count", &[]) > 1
    });
    assert!(
        metrics.count(
            "vllm_probe_request_error_total",
            &[r#"error_type="http_status""#]
        ) > 1
    );
    vllm.set("/health", 200, "");
    proxy.wait_metrics("healthy", up);
}

#[test]
fn a_list_that_is_refused_leaves_the_verdict_to_health() {
    for status in [401, 403] {
        let vllm = Vllm::start();
        vllm.set("/v1/models", status, r#"{"error":"Unauthorized"}"#);
        let proxy = proxy(&vllm);
        let metrics = proxy.wait_metrics("a round", |m| is(m, "vllm_model_loaded 1"));
        assert!(lines(&metrics, "vllm_available_models").is_empty());
        assert!(lines(&metrics, "vllm_model_info").is_empty());
        proxy.wait_metrics("it counts as failed", |m| {
            m.count(
                "vllm_probe_request_error_total",
                &[r#"error_type="http_status""#],
            ) > 0
                && m.count(
                    "vllm_exporter_scrape_errors_total",
                    &[r#"endpoint="models""#],
                ) > 0
        });
        vllm.set("/health", 503, "");
        proxy.wait_metrics("unhealthy", |m| is(m, "vllm_model_loaded 0"));
    }
}

#[test]
fn where_there_is_no_list_no_model_is_loaded() {
    let vllm = Vllm::start();
    vllm.set("/v1/models", 404, r#"{"detail":"Not Found"}"#);
    let proxy = proxy(&vllm);
    let metrics = proxy.wait_metrics("a round", |m| is(m, "vllm_model_loaded 0"));
    assert!(is(&metrics, "vllm_service_up 1"));
    assert!(is(&metrics, "vllm_available_models 0"));
}

#[test]
fn models_whose_labels_are_the_same_end_to_end_are_two() {
    let vllm = Vllm::start();
    let list =
        r#"{"data":[{"id":"a","owned_by":"bc","root":"r"},{"id":"ab","owned_by":"c","root":"r"}]}"#;
    vllm.set("/v1/models", 200, list);
    let proxy = proxy(&vllm);
    proxy.wait_metrics("both", |m| lines(m, "vllm_model_info").len() == 2);
    // And one that goes does not take the other with it.
    let list = r#"{"data":[{"id":"ab","owned_by":"c","root":"r"}]}"#;
    vllm.set("/v1/models", 200, list);
    let line = r#"vllm_model_info{id="ab",owned_by="c",root="r"} 1"#;
    proxy.wait_metrics("one", |m| {
        lines(m, "vllm_model_info").len() == 1 && is(m, line)
    });
}

#[test]
fn a_list_that_cannot_be_read_costs_the_models_only() {
    let huge = format!(r#"{{"data":[{{"id":"{}"}}]}}"#, "x".repeat(5 << 20));
    let replies = [
        Reply::Is(200, "<html>".to_owned()),
        Reply::Is(200, r#"{"data":{"id":"tiny"}}"#.to_owned()),
        Reply::Is(200, huge),
        Reply::Is(500, "{}".to_owned()),
        Reply::Cut,
        Reply::Hang,
    ];
    for reply in replies {
        let vllm = Vllm::start();
        let proxy = proxy(&vllm);
        proxy.wait_metrics("up", up);
        vllm.reply("/v1/models", reply);
        // Families change one by one.
        let metrics = proxy.wait_metrics("no models", |m| {
            is(m, "vllm_model_loaded 0")
                && is(m, "vllm_available_models 0")
                && lines(m, "vllm_model_info").is_empty()
        });
        assert!(is(&metrics, "vllm_service_up 1"));
        assert!(is(&metrics, r#"vllm_version_info{version="0.32.0"} 1"#));
        proxy.wait_metrics("it is counted", |m| {
            m.count(
                "vllm_exporter_scrape_errors_total",
                &[r#"endpoint="models""#],
            ) > 0
        });
        vllm.set("/v1/models", 200, &models(&["tiny"]));
        proxy.wait_metrics("up again", up);
    }
}

#[test]
fn garbage_from_the_rest_is_just_not_shown() {
    let vllm = Vllm::start();
    vllm.set("/version", 200, r#"{"version":32}"#);
    vllm.set("/load", 501, "");
    let proxy = proxy(&vllm);
    let metrics = proxy.wait_metrics("rounds", |m| {
        m.count("vllm_health_check_latency_seconds_count", &[]) >= 6
    });
    assert!(up(&metrics));
    assert!(lines(&metrics, "vllm_version_info").is_empty());
    assert!(lines(&metrics, "vllm_server_load").is_empty());
    assert_eq!(
        metrics.count("vllm_probe_request_error_total", &[]),
        0,
        "no probes"
    );
    // Asked less often each time.
    assert!(vllm.heads("/load").len() < vllm.heads("/health").len());
}

#[test]
fn models_come_and_go() {
    let vllm = Vllm::start();
    vllm.set("/v1/models", 200, &models(&["a", "b", "b"]));
    let proxy = proxy(&vllm);
    let metrics = proxy.wait_metrics("two", |m| is(m, "vllm_available_models 2"));
    assert_eq!(lines(&metrics, "vllm_model_info").len(), 2);
    vllm.set(
        "/v1/models",
        200,
        r#"{"data":[{"id":"b","max_model_len":null},{"id":"c","max_model_len":9}]}"#,
    );
    let metrics = proxy.wait_metrics("c", |m| is(m, r#"vllm_max_model_len{id="c"} 9"#));
    let mut shown = lines(&metrics, "vllm_model_info");
    shown.sort_unstable();
    assert_eq!(
        shown,
        [
            r#"vllm_model_info{id="b",owned_by="",root=""} 1"#,
            r#"vllm_model_info{id="c",owned_by="",root=""} 1"#
        ]
    );
    assert_eq!(lines(&metrics, "vllm_max_model_len").len(), 1);
    vllm.set("/v1/models", 200, r#"{"data":[]}"#);
    let metrics = proxy.wait_metrics("none", |m| {
        is(m, "vllm_model_loaded 0") && is(m, "vllm_available_models 0")
    });
    assert!(is(&metrics, "vllm_service_up 1"));
}

#[test]
fn five_hundred_adapters_leave_room_for_what_is_used() {
    let vllm = Vllm::start();
    let mut list: Vec<String> = (0..500)
        .map(|number| {
            format!(r#"{{"id":"lora-{number}","root":"/l","parent":"tiny","max_model_len":null}}"#)
        })
        .collect();
    list.push(r#"{"id":"tiny","root":"/t","parent":null,"max_model_len":2048}"#.to_owned());
    list.push(format!(r#"{{"id":"{}","root":"/t"}}"#, "x".repeat(257)));
    vllm.set(
        "/v1/models",
        200,
        &format!(r#"{{"data":[{}]}}"#, list.join(",")),
    );
    let unknown =
        r#"{"error":{"message":"The model does not exist.","type":"NotFoundError","code":404}}"#;
    vllm.set("/v1/chat/completions", 404, unknown);
    let proxy = Proxy::with(vllm.addr, |config| {
        polling(config);
        config.observe.max_models = 3;
    });
    let metrics = proxy.wait_metrics("a round", |m| {
        is(m, "vllm_available_models 502") && lines(m, "vllm_model_info").len() == 3
    });
    assert_eq!(
        lines(&metrics, "vllm_model_info").len(),
        3,
        "as many as the cap"
    );
    assert!(
        is(&metrics, r#"vllm_max_model_len{id="tiny"} 2048"#),
        "models before adapters"
    );
    let overflow = metrics.count("tokenglass_label_overflow_total", &[r#"label="model""#]);
    assert_eq!(overflow, 499);
    // Counted once, not in each round.
    let rounds = metrics.count("vllm_health_check_latency_seconds_count", &[]);
    proxy.wait_metrics("more rounds", |m| {
        m.count("vllm_health_check_latency_seconds_count", &[]) >= rounds + 2
    });
    for (number, name) in ["lora-7", "lora-499", "made-up", "lora-8", "lora-9"]
        .iter()
        .enumerate()
    {
        let body = format!(r#"{{"model":"{name}","messages":[]}}"#);
        let request = chat("connection: close\r\n", &body);
        exchange(proxy.addr(), &request, Duration::from_secs(10));
        proxy.wait_metrics("counted", |m| m.outcomes() == (0, number as u64 + 1, 0));
    }
    let metrics = proxy.metrics();
    let errors = |model: &str| {
        let label = format!(r#"model="{model}""#);
        metrics.count("vllm_request_error_total", &[&label])
    };
    assert_eq!(
        ["lora-7", "lora-499", "lora-8", "lora-9", "other"].map(errors),
        [1, 1, 1, 0, 2]
    );
    // One listed name more than there are places; one that nobody lists is no overflow.
    let overflow = metrics.count("tokenglass_label_overflow_total", &[r#"label="model""#]);
    assert_eq!(overflow, 500);
}

#[test]
fn several_upstreams_are_told_apart() {
    let (first, second) = (Vllm::start(), Vllm::start());
    second.everything(&Reply::Cut);
    let proxy = Proxy::with(first.addr, |config| {
        polling(config);
        config.engine.metrics = true;
        config.engine.interval = INTERVAL;
        config.upstream.urls.push(UpstreamUrl::Http {
            host: second.addr.ip().to_string(),
            port: second.addr.port(),
        });
    });
    let line = |family: &str, upstream: &Vllm, value: u8| {
        format!(r#"{family}{{upstream="http://{}"}} {value}"#, upstream.addr)
    };
    let info = format!(
        r#"vllm_model_info{{id="tiny",owned_by="vllm",root="/srv/tiny",upstream="http://{}"}} 1"#,
        first.addr
    );
    let metrics = proxy.wait_metrics("both", |m| {
        is(m, &info) && is(m, &line("vllm_model_loaded", &second, 0))
    });
    assert!(is(&metrics, &line("vllm_service_up", &first, 1)));
    assert!(is(&metrics, &line("vllm_model_loaded", &first, 1)));
    assert!(is(&metrics, &line("vllm_service_up", &second, 0)));
    let polled = [
        "vllm_service_up",
        "vllm_probe_",
        "vllm_exporter_",
        "vllm_available",
        "vllm_health_check",
        "vllm_engine_stalled",
    ];
    for line in metrics
        .0
        .lines()
        .filter(|line| polled.iter().any(|name| line.starts_with(name)))
    {
        assert!(line.contains(r#"upstream="http://127.0.0.1:"#), "{line}");
    }
    second.set("/health", 200, "");
    second.set("/v1/models", 200, &models(&["tiny"]));
    proxy.wait_metrics("the second too", |m| {
        is(m, &line("vllm_model_loaded", &second, 1))
    });
}

#[test]
fn the_key_goes_to_the_models_only() {
    let vllm = Vllm::start();
    let proxy = Proxy::with(vllm.addr, |config| {
        polling(config);
        config.engine.metrics = true;
        config.health.api_key = Some(Secret::new("sk-secret"));
    });
    proxy.wait_metrics("rounds", |m| {
        m.count("vllm_health_check_latency_seconds_count", &[]) >= 2
    });
    let key = "authorization: Bearer sk-secret";
    for path in ["/health", "/version", "/load", "/metrics"] {
        let heads = vllm.heads(path);
        assert!(!heads.is_empty(), "{path}");
        assert!(heads.iter().all(|head| !head.contains("secret")), "{path}");
    }
    assert!(
        vllm.heads("/v1/models")
            .iter()
            .all(|head| head.contains(key))
    );
    assert!(!proxy.metrics().0.contains("sk-secret"));
}

#[test]
fn a_change_is_logged_once() {
    let runtime = runtime();
    let config = sim::Config::default;
    let start = |listen| {
        let config = sim::Config { listen, ..config() };
        runtime
            .block_on(async { sim::Server::start(config) })
            .unwrap()
    };
    let server = start(config().listen);
    let addr = server.addr();
    let child = Child::start(addr, "[health]\ninterval = \"100ms\"\ntimeout = \"1s\"\n");
    assert!(child.wait_log("vLLM ").contains("is up"));
    std::thread::sleep(INTERVAL * 5);
    runtime.block_on(server.shutdown());
    let line = child.wait_log("vLLM ");
    assert!(
        line.contains("is down") && line.contains("refused"),
        "{line}"
    );
    std::thread::sleep(INTERVAL * 5);
    let server = start(sim::Listen::Tcp(addr));
    assert!(child.wait_log("vLLM ").contains("is up"));
    server.set_healthy(false);
    let line = child.wait_log("vLLM ");
    assert!(
        line.contains("not healthy") && line.contains("503"),
        "{line}"
    );
}
