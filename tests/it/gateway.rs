//! Several upstreams that all work: who gets what.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loadtest::sim;

use crate::nodes::{Behaviour, Node, ask, chat_for, gateway, polled, url, wait_models};
use crate::origin::{Peer, get, origin};
use crate::support::{Message, Proxy, STREAM, chat, read_message, runtime};

/// `threads` clients, each on one connection, that ask so often.
pub fn load(
    proxy: &Proxy,
    threads: usize,
    each: usize,
    request: impl Fn(usize) -> Vec<u8> + Sync,
) -> Vec<Message> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|thread| {
                let request = &request;
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
                    stream.set_nodelay(true).unwrap();
                    (0..each)
                        .map(|turn| {
                            stream.write_all(&request(thread * each + turn)).unwrap();
                            read_message(&mut stream)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    })
}

#[test]
fn load_is_spread_over_six() {
    let nodes = Node::many(6);
    for node in &nodes {
        node.behave(Behaviour::Answers(5));
    }
    let proxy = gateway(&nodes, |_| {});
    let body = r#"{"model":"m","messages":[]}"#;
    let answers = load(&proxy, 24, 50, |_| chat("", body));
    assert!(answers.iter().all(|answer| answer.status == 200));
    let counts: Vec<_> = nodes.iter().map(Node::count).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*most < *least * 3 / 2, "{counts:?}");
    // 4 each if all were even.
    let most: Vec<_> = nodes
        .iter()
        .map(|node| node.is.most.load(Ordering::SeqCst))
        .collect();
    assert!(most.iter().all(|most| *most <= 9), "{most:?}");
    let metrics = proxy.wait_metrics("all have ended", |metrics| {
        metrics.outcomes() == (1200, 0, 0)
    });
    for (node, count) in nodes.iter().zip(&counts) {
        let label = &[&*node.label()];
        assert_eq!(
            metrics.count("tokenglass_upstream_requests_total", label),
            *count as u64
        );
        assert_eq!(
            metrics.count("tokenglass_upstream_latency_seconds_count", label),
            *count as u64
        );
        assert_eq!(metrics.count("tokenglass_upstream_in_flight", label), 0);
        assert_eq!(metrics.count("tokenglass_upstream_healthy", label), 1);
    }
    assert_eq!(metrics.count("tokenglass_upstream_errors_total", &[]), 0);
    assert_eq!(metrics.count("tokenglass_upstream_retries_total", &[]), 0);
    assert!(
        !metrics
            .0
            .contains("vllm_request_duration_seconds_count{upstream"),
        "no request family by upstream"
    );
}

/// One that is slow gets less, since it has more.
#[test]
fn who_is_slow_gets_less() {
    let nodes = Node::many(3);
    nodes[0].behave(Behaviour::Answers(60));
    nodes[1].behave(Behaviour::Answers(3));
    nodes[2].behave(Behaviour::Answers(3));
    let proxy = gateway(&nodes, |_| {});
    load(&proxy, 8, 40, |_| chat("", "{}"));
    let counts: Vec<_> = nodes.iter().map(Node::count).collect();
    assert!(counts[0] * 3 < counts[1].min(counts[2]), "{counts:?}");
}

#[test]
fn a_request_goes_where_its_model_is() {
    let nodes = [
        Node::serving(&["a"]),
        Node::serving(&["b", "both"]),
        Node::serving(&["c", "both"]),
    ];
    let proxy = gateway(&nodes, polled);
    wait_models(&proxy, 5);
    let counts = || nodes.iter().map(Node::count).collect::<Vec<_>>();
    for _ in 0..10 {
        assert_eq!(ask(proxy.addr(), &chat_for("b")).status, 200);
    }
    assert_eq!(counts(), [0, 10, 0]);
    // What is written as an escape is the same.
    let body = r#"{"stream":false,"\u006dodel":"\u0061"}"#;
    ask(proxy.addr(), &chat("connection: close\r\n", body));
    assert_eq!(counts(), [1, 10, 0]);
    assert_eq!(nodes[0].asked()[0].body, body.as_bytes(), "the same bytes");
    for _ in 0..40 {
        ask(proxy.addr(), &chat_for("both"));
    }
    let both = counts();
    assert!(both[0] == 1 && both[1] > 15 && both[2] > 5, "{both:?}");
    // Nobody lists it, and somebody may have loaded it just now.
    assert_eq!(ask(proxy.addr(), &chat_for("new")).status, 200);
    assert_eq!(ask(proxy.addr(), &get("/anything", "")).status, 200);
    assert_eq!(counts().iter().sum::<usize>(), 53);
    // An adapter that is loaded later.
    nodes[0].lists(&["a", "lora"]);
    wait_models(&proxy, 6);
    let before = nodes[0].count();
    for _ in 0..5 {
        ask(proxy.addr(), &chat_for("lora"));
    }
    assert_eq!(nodes[0].count(), before + 5);
}

#[test]
fn bodies_of_all_framings_are_the_same_bytes_and_find_their_model() {
    let nodes = [Node::serving(&["a"]), Node::serving(&["b"])];
    let proxy = gateway(&nodes, polled);
    wait_models(&proxy, 2);
    let body = format!(
        r#"{{"messages":["{}"],"model":"b","x":"{}"}}"#,
        "y".repeat(3000),
        "z".repeat(200_000)
    );
    // Chunked, in pieces that cut through the key.
    let mut peer = Peer::connect(proxy.addr());
    peer.write("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
    let at = body.find("model").unwrap() + 3;
    for piece in [&body[..at], &body[at..at + 9], &body[at + 9..]] {
        peer.write(format!("{:x}\r\n{piece}\r\n", piece.len()));
        std::thread::sleep(Duration::from_millis(20));
    }
    peer.write("0\r\n\r\n");
    let (bytes, _) = peer.read_to_end();
    assert_eq!(Message::parse(&bytes).unwrap().status, 200);
    let asked = &nodes[1].asked()[0];
    assert!(
        asked.body == body.as_bytes() && asked.head.contains("transfer-encoding: chunked"),
        "{}",
        asked.head
    );
    // With a length; a client that waits for 100 gets it.
    let mut peer = Peer::connect(proxy.addr());
    peer.write(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len()));
    assert!(peer.read_head().starts_with("HTTP/1.1 100 "));
    peer.write(&body);
    let (bytes, _) = peer.read_to_end();
    assert_eq!(Message::parse(&bytes).unwrap().status, 200);
    assert_eq!(nodes[1].asked()[1].body, body.as_bytes());
    // Further in than is looked: to any.
    let deep = format!(r#"{{"messages":["{}"],"model":"b"}}"#, "y".repeat(100_000));
    for _ in 0..40 {
        assert_eq!(
            ask(proxy.addr(), &chat("connection: close\r\n", &deep)).status,
            200
        );
    }
    assert!(nodes[0].count() > 5 && nodes[0].asked()[0].body == deep.as_bytes());
    // No JSON, no body, packed: to any, at once.
    for (headers, body) in [
        ("content-encoding: gzip\r\n", "{"),
        ("", "--x\r\nname=\"model\"\r\n\r\na"),
        ("", ""),
    ] {
        assert_eq!(
            ask(
                proxy.addr(),
                &chat(&format!("connection: close\r\n{headers}"), body)
            )
            .status,
            200
        );
    }
}

/// What is behind the model is not waited for.
#[test]
fn a_body_goes_on_as_soon_as_its_model_is_known() {
    let seen = |body: &'static str| {
        let (sender, seen) = std::sync::mpsc::channel();
        let upstream = origin(move |mut peer, _| {
            let head = peer.read_head();
            let first = peer.read_exact(body.len());
            sender.send((head, first)).unwrap();
            peer.read_exact(4);
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        });
        let other = url(upstream);
        let proxy = Proxy::with(upstream, |config| {
            // Two names of one, so that it is a gateway.
            config.upstream.urls = vec![other, "http://localhost:1".parse().unwrap()];
            config.gateway.retries = 5;
        });
        let mut peer = Peer::connect(proxy.addr());
        let length = body.len() + 4;
        peer.write(format!("POST /v1/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"));
        let (_, first) = seen
            .recv_timeout(Duration::from_secs(5))
            .expect("it goes on");
        assert_eq!(first, body.as_bytes());
        peer.write("....");
        let (bytes, _) = peer.read_to_end();
        assert_eq!(Message::parse(&bytes).unwrap().body, b"ok");
    };
    seen(r#"{"model":"m","#);
    seen("no json");
    seen(r#"{"model":null"#);
}

#[test]
fn limits_of_the_body_hold_while_its_model_is_looked_for() {
    let nodes = Node::many(2);
    let proxy = gateway(&nodes, |config| {
        config.server.body_read_timeout = Some(Duration::from_millis(200));
        config.server.max_body_bytes = 1000;
    });
    let mut peer = Peer::connect(proxy.addr());
    peer.write(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"prompt\":",
    );
    let (bytes, _) = peer.read_to_end();
    assert_eq!(Message::parse(&bytes).unwrap().status, 408);
    let mut peer = Peer::connect(proxy.addr());
    peer.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    peer.write(format!("7d0\r\n{{\"prompt\":\"{}", "x".repeat(2000 - 11)));
    peer.write("\r\n");
    let (bytes, _) = peer.read_to_end();
    assert_eq!(Message::parse(&bytes).unwrap().status, 413);
    // Half a chunk, and gone.
    let mut peer = Peer::connect(proxy.addr());
    peer.write(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    );
    let (bytes, _) = peer.read_to_end();
    assert_eq!(Message::parse(&bytes).unwrap().status, 400);
    assert_eq!(nodes[0].count() + nodes[1].count(), 0);
    let metrics = proxy.wait_metrics("all have ended", |metrics| metrics.outcomes() == (0, 3, 0));
    assert_eq!(metrics.count("tokenglass_upstream_requests_total", &[]), 0);
    assert_eq!(metrics.count("tokenglass_upstream_errors_total", &[]), 0);
}

#[test]
fn models_is_the_union_of_the_healthy() {
    let nodes = [
        Node::serving(&["a", "both"]),
        Node::serving(&["both", "b"]),
        Node::start(),
    ];
    let proxy = gateway(&nodes, polled);
    wait_models(&proxy, 4);
    let list = || {
        let answer = ask(proxy.addr(), &get("/v1/models", ""));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.get("content-type").unwrap(), "application/json");
        answer.json()
    };
    let ids = |list: &serde_json::Value| {
        let mut ids: Vec<String> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let all = list();
    assert_eq!(ids(&all), ["a", "b", "both"]);
    assert_eq!(all["object"], "list");
    let a = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|model| model["id"] == "a")
        .unwrap();
    assert_eq!(
        a.to_string(),
        r#"{"id":"a","object":"model","created":1,"owned_by":"vllm","root":"/a","max_model_len":8}"#
    );
    assert_eq!(list(), all, "in the same order");
    nodes[1].is.healthy.store(false, Ordering::SeqCst);
    proxy.wait_metrics("one is unhealthy", |metrics| {
        metrics.count("tokenglass_upstream_healthy", &[&nodes[1].label()]) == 0
    });
    assert_eq!(ids(&list()), ["a", "both"]);
}

/// Its list is not everybody's to see.
#[test]
fn models_with_a_key_are_shown_to_those_who_have_it() {
    let nodes = [Node::serving(&["a"]), Node::serving(&["b"])];
    nodes.iter().for_each(|node| node.wants("secret-key"));
    for known in [false, true] {
        let proxy = gateway(&nodes, |config| {
            polled(config);
            config.health.api_key = known.then(|| tokenglass::config::Secret::new("secret-key"));
        });
        if known {
            wait_models(&proxy, 2);
        } else {
            proxy.wait_metrics("all have been asked", |metrics| {
                metrics.count("vllm_model_loaded", &[]) == 2
            });
        }
        assert_eq!(ask(proxy.addr(), &get("/v1/models", "")).status, 401);
        assert_eq!(
            ask(
                proxy.addr(),
                &get("/v1/models", "authorization: Bearer secret-kez\r\n")
            )
            .status,
            401
        );
        let answer = ask(
            proxy.addr(),
            &get("/v1/models", "authorization: Bearer secret-key\r\n"),
        );
        let count = answer.json()["data"].as_array().unwrap().len();
        assert_eq!(
            count,
            if known { 2 } else { 1 },
            "one answers for itself if nobody knows more"
        );
        assert_eq!(ask(proxy.addr(), &chat_for("a")).status, 200);
    }
}

/// With one upstream nothing is ours, the list of models neither.
#[test]
fn one_upstream_is_no_gateway() {
    let nodes = [Node::serving(&["a"])];
    let proxy = gateway(&nodes, polled);
    wait_models(&proxy, 1);
    nodes[0].lists(&["a", "b"]);
    let answer = ask(proxy.addr(), &get("/v1/models", ""));
    assert_eq!(
        answer.json()["data"].as_array().unwrap().len(),
        2,
        "asked just now"
    );
    assert_eq!(ask(proxy.addr(), &chat_for("a")).status, 200);
    let metrics = proxy.metrics();
    assert!(!metrics.0.contains("tokenglass_upstream_requests_total{"));
    assert!(!metrics.0.contains("upstream=\""), "{}", metrics.non_zero());
}

/// Streams, WebSockets and the rest through two simulators: what is counted is what the engines say.
#[test]
fn streams_through_two_simulators_are_counted_once() {
    let runtime = runtime();
    let sims: Vec<_> = (0..2)
        .map(|_| {
            runtime
                .block_on(async { sim::Server::start(sim::Config::default()) })
                .unwrap()
        })
        .collect();
    let proxy = Proxy::with(sims[0].addr(), |config| {
        config.upstream.urls = sims.iter().map(|sim| url(sim.addr())).collect();
        polled(config);
        config.engine.metrics = true;
        config.engine.interval = Duration::from_millis(50);
    });
    let answers = load(&proxy, 8, 10, |_| chat("", STREAM));
    assert!(
        answers
            .iter()
            .all(|answer| answer.body.ends_with(b"data: [DONE]\n\n"))
    );
    let metrics = proxy.wait_metrics("all have ended", |metrics| metrics.outcomes() == (80, 0, 0));
    assert_eq!(metrics.count("tokenglass_upstream_requests_total", &[]), 80);
    assert_eq!(
        metrics.sum("vllm_output_tokens_per_request_sum", &[]),
        80.0 * 8.0
    );
    proxy.wait_metrics("the engines are read", |metrics| {
        metrics
            .0
            .contains("vllm_unaccounted_tokens_total{direction=\"output\",upstream=\"http")
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        proxy.metrics().count("vllm_unaccounted_tokens_total", &[]),
        0
    );
}
