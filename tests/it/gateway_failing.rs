//! Several upstreams of which some fail: what is tried again and what is not, who is left alone, who waits.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::gateway::load;
use crate::nodes::{
    Behaviour, Node, answer, ask, chat_for, gateway, overloaded, polled, url, wait_models,
};
use crate::origin::{Peer, get};
use crate::support::{Message, Proxy, STREAM, chat, exchange};

const BODY: &str = r#"{"model":"m","messages":[]}"#;

fn closing() -> Vec<u8> {
    chat("connection: close\r\n", BODY)
}

#[track_caller]
fn all_well(answers: &[Message]) {
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.body.escape_ascii());
    }
}

/// Requests to an upstream that is not there go elsewhere, and after a few it is left alone.
#[test]
fn who_refuses_connections_costs_no_request() {
    let nodes = Node::many(3);
    nodes[1].kill();
    let proxy = gateway(&nodes, |_| {});
    all_well(&load(&proxy, 4, 50, |_| chat("", BODY)));
    let metrics = proxy.wait_metrics("all have ended", |metrics| {
        metrics.outcomes() == (200, 0, 0)
    });
    let dead = &[&*nodes[1].label()];
    let refused = metrics.count(
        "tokenglass_upstream_errors_total",
        &[dead[0], "reason=\"upstream_connect\""],
    );
    assert!((5..=8).contains(&refused), "{refused}");
    assert_eq!(
        metrics.count("tokenglass_upstream_requests_total", dead),
        refused
    );
    assert_eq!(
        metrics.count("tokenglass_upstream_retries_total", dead),
        refused
    );
    assert_eq!(
        metrics.count("tokenglass_upstream_requests_total", &[]),
        200 + refused
    );
    assert_eq!(
        metrics.count("tokenglass_upstream_ejections_total", dead),
        1
    );
    assert_eq!(metrics.count("tokenglass_upstream_healthy", dead), 0);
    assert_eq!(nodes[0].count() + nodes[2].count(), 200);
}

/// Killed while it works: what it had begun is lost, and is not begun elsewhere; all else goes on.
#[test]
fn a_kill_under_load_loses_only_what_had_been_sent() {
    let nodes = Node::many(3);
    nodes
        .iter()
        .for_each(|node| node.behave(Behaviour::Answers(5)));
    let proxy = gateway(&nodes, |_| {});
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            nodes[0].kill();
        });
        load(&proxy, 12, 60, |_| chat("", BODY))
    });
    let lost = answers.iter().filter(|answer| answer.status != 200).count();
    assert!(lost <= 12, "{lost}");
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer.status, 200 | 502))
    );
    let metrics = proxy.wait_metrics("all have ended", |metrics| {
        let (success, error, _) = metrics.outcomes();
        success + error == 720
    });
    let asked: usize = nodes.iter().map(Node::count).sum();
    assert_eq!(asked, 720, "each prompt at one upstream, and once");
    let (sent, retried) = (
        metrics.count("tokenglass_upstream_requests_total", &[]),
        metrics.count("tokenglass_upstream_retries_total", &[]),
    );
    assert_eq!(sent, 720 + retried);
    assert_eq!(
        metrics.count(
            "tokenglass_upstream_errors_total",
            &["reason=\"upstream_reset\""]
        ),
        lost as u64
    );
}

#[test]
fn a_storm_of_503_costs_no_request() {
    let nodes = Node::many(3);
    nodes[0].behave(overloaded(""));
    let proxy = gateway(&nodes, |config| config.gateway.eject_after = 1_000_000);
    all_well(&load(&proxy, 6, 50, |_| chat("", BODY)));
    let metrics = proxy.wait_metrics("all have ended", |metrics| {
        metrics.outcomes() == (300, 0, 0)
    });
    let storm = nodes[0].count() as u64;
    assert!(storm > 20, "{storm}");
    assert_eq!(
        nodes.iter().map(Node::count).sum::<usize>() as u64,
        300 + storm
    );
    let label = &[&*nodes[0].label()];
    assert_eq!(
        metrics.count("tokenglass_upstream_retries_total", label),
        storm
    );
    assert_eq!(
        metrics.count(
            "tokenglass_upstream_errors_total",
            &["reason=\"overloaded\""]
        ),
        storm
    );
    assert_eq!(
        metrics.count("tokenglass_upstream_requests_total", &[]),
        300 + storm
    );
    assert_eq!(nodes[0].asked()[0].body, BODY.as_bytes());
    assert_eq!(nodes[1].asked()[0].body, BODY.as_bytes());
}

#[test]
fn the_last_answer_is_upstreams_own() {
    let nodes = Node::many(5);
    for node in &nodes {
        node.behave(overloaded("x-node: its own\r\n"));
    }
    let proxy = gateway(&nodes, |_| {});
    let answer = ask(proxy.addr(), &closing());
    assert_eq!(answer.status, 503);
    assert_eq!(answer.get("x-node").unwrap(), "its own");
    assert_eq!(answer.json()["error"]["message"], "full");
    assert_eq!(
        nodes.iter().map(Node::count).sum::<usize>(),
        3,
        "once, and twice again"
    );
    let metrics = proxy.wait_metrics("it has ended", |metrics| metrics.outcomes() == (0, 1, 0));
    assert_eq!(
        metrics.count("vllm_request_error_total", &["error_type=\"overloaded\""]),
        1
    );
    assert_eq!(metrics.count("tokenglass_upstream_retries_total", &[]), 2);
    let proxy = gateway(&nodes, |config| config.gateway.retries = 0);
    assert_eq!(ask(proxy.addr(), &closing()).status, 503);
    assert_eq!(nodes.iter().map(Node::count).sum::<usize>(), 4);
}

/// A prompt that got out is not sent again, whatever became of it.
#[test]
fn what_may_run_twice_is_sent_once() {
    let nodes = Node::many(3);
    nodes.iter().for_each(|node| node.behave(Behaviour::Resets));
    let proxy = gateway(&nodes, |_| {});
    let sent = || nodes.iter().map(Node::count).sum::<usize>();
    let answer = ask(proxy.addr(), &closing());
    assert_eq!((answer.status, sent()), (502, 1));
    // A GET does nothing twice.
    assert_eq!(ask(proxy.addr(), &get("/anything", "")).status, 502);
    assert_eq!(sent(), 4);
    // Other refusals are answers.
    for status in [400, 401, 404, 429, 500, 502, 504] {
        let nodes = Node::many(2);
        nodes
            .iter()
            .for_each(|node| node.behave(Behaviour::Says(answer_of(status))));
        let proxy = gateway(&nodes, |_| {});
        assert_eq!(ask(proxy.addr(), &closing()).status, status);
        assert_eq!(nodes[0].count() + nodes[1].count(), 1, "{status}");
    }
}

fn answer_of(status: u16) -> Vec<u8> {
    answer(status, "", "{}")
}

/// Once the client has been told anything, the request stays where it is.
#[test]
fn an_interim_answer_is_an_answer() {
    let nodes = Node::many(2);
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    nodes
        .iter()
        .for_each(|node| node.behave(Behaviour::Hints(hints)));
    let proxy = gateway(&nodes, |_| {});
    let (bytes, _) = exchange(proxy.addr(), &get("/anything", ""), Duration::from_secs(10));
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.starts_with("HTTP/1.1 103 ") && text.contains("HTTP/1.1 502 "),
        "{text}"
    );
    assert_eq!(nodes[0].count() + nodes[1].count(), 1);
}

/// A body is sent again only if all of it is kept.
#[test]
fn a_long_body_is_sent_once() {
    let nodes = Node::many(2);
    nodes[0].behave(overloaded(""));
    nodes[1].behave(overloaded(""));
    let proxy = gateway(&nodes, |_| {});
    let long = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(65 << 10));
    assert_eq!(
        ask(proxy.addr(), &chat("connection: close\r\n", &long)).status,
        503
    );
    assert_eq!(nodes[0].count() + nodes[1].count(), 1);
    let fits = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(60 << 10));
    let before = (nodes[0].count(), nodes[1].count());
    assert_eq!(
        ask(proxy.addr(), &chat("connection: close\r\n", &fits)).status,
        503
    );
    assert_eq!(
        (nodes[0].count(), nodes[1].count()),
        (before.0 + 1, before.1 + 1)
    );
    for node in &nodes {
        assert_eq!(node.asked().last().unwrap().body, fits.as_bytes());
    }
    // Of one that is refused without a byte written it does not matter.
    nodes[0].kill();
    nodes[1].behave(Behaviour::Answers(0));
    for _ in 0..8 {
        assert_eq!(
            ask(proxy.addr(), &chat("connection: close\r\n", &long)).status,
            200
        );
    }
}

/// A server whose backlog is full answers nothing at all.
#[test]
fn who_hangs_in_accept_costs_a_connect_timeout_and_no_request() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let hung: TcpListener = socket.into();
    let addr = hung.local_addr().unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        fill.push(stream);
    }
    let nodes = Node::many(1);
    let proxy = Proxy::with(addr, |config| {
        config.upstream.urls = vec![url(addr), nodes[0].url()];
        config.upstream.connect_timeout = Duration::from_millis(100);
    });
    let began = Instant::now();
    all_well(&load(&proxy, 4, 25, |_| chat("", BODY)));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(nodes[0].count(), 100);
    let metrics = proxy.metrics();
    let label = format!("upstream=\"{addr}\"");
    assert!(metrics.count("tokenglass_upstream_errors_total", &[&label]) >= 5);
    assert_eq!(
        metrics.count("tokenglass_upstream_ejections_total", &[&label]),
        1
    );
}

/// One that still loads its model gets nothing until it is there.
#[test]
fn a_slow_start_costs_no_request() {
    let nodes = [Node::serving(&["m"]), Node::serving(&["m"])];
    nodes[1].is.healthy.store(false, Ordering::SeqCst);
    nodes[1].behave(overloaded(""));
    let proxy = gateway(&nodes, polled);
    wait_models(&proxy, 2);
    let label = nodes[1].label();
    proxy.wait_metrics("it is not healthy", |metrics| {
        metrics.count("tokenglass_upstream_healthy", &[&label]) == 0
    });
    all_well(&load(&proxy, 4, 10, |_| chat("", BODY)));
    assert_eq!(nodes[1].count(), 0);
    nodes[1].behave(Behaviour::Answers(0));
    nodes[1].is.healthy.store(true, Ordering::SeqCst);
    proxy.wait_metrics("it is healthy", |metrics| {
        metrics.count("tokenglass_upstream_healthy", &[&label]) == 1
    });
    all_well(&load(&proxy, 4, 20, |_| chat("", BODY)));
    assert!(nodes[1].count() > 10, "{}", nodes[1].count());
}

/// If nobody is well, the best of them is asked all the same.
#[test]
fn where_all_are_unhealthy_requests_are_tried() {
    let nodes = Node::many(2);
    nodes
        .iter()
        .for_each(|node| node.is.healthy.store(false, Ordering::SeqCst));
    let proxy = gateway(&nodes, polled);
    proxy.wait_metrics("none is healthy", |metrics| {
        metrics.count("tokenglass_upstream_healthy", &[]) == 0
    });
    assert_eq!(ask(proxy.admin(), &get("/readyz", "")).status, 503);
    all_well(&load(&proxy, 2, 10, |_| chat("", BODY)));
    nodes[0].is.healthy.store(true, Ordering::SeqCst);
    proxy.wait_metrics("one is", |metrics| {
        metrics.count("tokenglass_upstream_healthy", &[]) == 1
    });
    assert_eq!(ask(proxy.admin(), &get("/readyz", "")).status, 200);
}

/// After `eject_for` one request tries.
#[test]
fn who_was_left_alone_is_tried_once_and_comes_back() {
    let nodes = Node::many(2);
    nodes[0].behave(overloaded(""));
    let proxy = gateway(&nodes, |config| {
        config.gateway.eject_after = 3;
        // Longer than forty requests take where much else is going on.
        config.gateway.eject_for = Duration::from_secs(1);
    });
    let label = &[&*nodes[0].label()];
    let ejected = |times| {
        proxy.wait_metrics("it is left alone", |metrics| {
            all_well(&load(&proxy, 1, 1, |_| chat("", BODY)));
            metrics.count("tokenglass_upstream_ejections_total", label) == times
        });
    };
    ejected(1);
    assert_eq!(nodes[0].count(), 3);
    all_well(&load(&proxy, 4, 10, |_| chat("", BODY)));
    assert_eq!(nodes[0].count(), 3, "alone");
    ejected(2);
    assert_eq!(nodes[0].count(), 4, "one tries");
    nodes[0].behave(Behaviour::Answers(0));
    let began = Instant::now();
    while nodes[0].count() < 6 {
        all_well(&load(&proxy, 1, 1, |_| chat("", BODY)));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert!(began.elapsed() > Duration::from_secs(1), "twice as long");
    assert_eq!(
        proxy.metrics().count("tokenglass_upstream_healthy", label),
        1
    );
}

/// A dead engine says so in a 500.
#[test]
fn a_dead_engine_is_left_alone_and_a_bad_request_is_not_its_fault() {
    for (message, ejected) in [
        ("EngineCore encountered an issue. See stack trace", 1),
        ("division by zero", 0),
    ] {
        let nodes = Node::many(2);
        let body = format!(
            r#"{{"error":{{"message":"{message}","type":"InternalServerError","code":500}}}}"#
        );
        nodes[0].behave(Behaviour::Says(answer(500, "", &body)));
        let proxy = gateway(&nodes, |_| {});
        load(&proxy, 2, 30, |_| chat("", BODY));
        let metrics = proxy.metrics();
        assert_eq!(
            metrics.count("tokenglass_upstream_ejections_total", &[&nodes[0].label()]),
            ejected,
            "{message}"
        );
        let reason = if ejected == 1 {
            "reason=\"engine_dead\""
        } else {
            "reason=\"internal_error\""
        };
        assert_eq!(
            metrics.count("tokenglass_upstream_errors_total", &[reason]),
            nodes[0].count() as u64
        );
    }
}

#[test]
fn retry_after_is_honoured_while_others_can_serve() {
    let nodes = Node::many(2);
    nodes[0].behave(overloaded("retry-after: 2\r\n"));
    let proxy = gateway(&nodes, |_| {});
    let began = Instant::now();
    while nodes[0].count() == 0 {
        all_well(&load(&proxy, 1, 1, |_| chat("", BODY)));
    }
    nodes[0].behave(Behaviour::Answers(0));
    all_well(&load(&proxy, 2, 20, |_| chat("", BODY)));
    assert_eq!(nodes[0].count(), 1);
    // If nobody else can, it is asked.
    nodes[1].kill();
    all_well(&load(&proxy, 1, 3, |_| chat("", BODY)));
    assert!(began.elapsed() < Duration::from_secs(2) && nodes[0].count() == 4);
}

#[test]
fn who_finds_no_place_is_told_at_once() {
    let nodes = Node::many(2);
    nodes
        .iter()
        .for_each(|node| node.behave(Behaviour::Streams(3, 200)));
    let proxy = gateway(&nodes, |config| {
        config.gateway.max_in_flight = std::num::NonZeroUsize::new(1)
    });
    let mut busy: Vec<_> = (0..2).map(|_| Peer::connect(proxy.addr())).collect();
    for peer in &mut busy {
        peer.write(chat("connection: close\r\n", STREAM));
        peer.read_until(b"\n\n");
    }
    let began = Instant::now();
    let answer = ask(proxy.addr(), &closing());
    assert!(began.elapsed() < Duration::from_millis(150));
    assert_eq!(answer.status, 503);
    assert!(answer.get("retry-after").is_some());
    assert_eq!(answer.json()["error"]["type"], "ServiceUnavailableError");
    assert_eq!(answer.json()["error"]["code"], 503);
    let messages = String::from_utf8(closing())
        .unwrap()
        .replace("/chat/completions", "/messages");
    let answer = ask(proxy.addr(), messages.as_bytes());
    assert_eq!(answer.json()["error"]["type"], "overloaded_error");
    for mut peer in busy {
        let (bytes, _) = peer.read_to_end();
        assert!(bytes.ends_with(b"0\r\n\r\n"));
    }
    assert_eq!(ask(proxy.addr(), &closing()).status, 200);
    let metrics = proxy.wait_metrics("all have ended", |metrics| metrics.outcomes() == (3, 2, 0));
    assert_eq!(
        metrics.count(
            "vllm_request_error_total",
            &["error_type=\"proxy_rejected\""]
        ),
        2
    );
    assert_eq!(
        metrics.count("tokenglass_gateway_rejected_total", &["reason=\"full\""]),
        2
    );
    assert!(
        nodes
            .iter()
            .all(|node| node.is.most.load(Ordering::SeqCst) == 1)
    );
}

#[test]
fn those_who_wait_are_served_in_turn_and_may_leave() {
    let nodes = Node::many(2);
    nodes[0].behave(Behaviour::Answers(300));
    nodes[1].behave(Behaviour::Answers(300));
    let proxy = gateway(&nodes, |config| {
        config.server.workers = 1;
        config.gateway.max_in_flight = std::num::NonZeroUsize::new(1);
        config.gateway.queue = 3;
        config.gateway.queue_timeout = Duration::from_secs(5);
    });
    let waiting = |count| {
        proxy.wait_metrics("they wait", |metrics| {
            metrics.count("tokenglass_gateway_queue", &[]) == count
        });
    };
    let mut peers: Vec<_> = (0..2)
        .map(|_| {
            let mut peer = Peer::connect(proxy.addr());
            peer.write(closing());
            peer
        })
        .collect();
    proxy.wait_metrics("both are busy", |metrics| {
        metrics.count("tokenglass_upstream_in_flight", &[]) == 2
    });
    let name = |number: usize| {
        chat(
            &format!("connection: close\r\nx-number: {number}\r\n"),
            BODY,
        )
    };
    for number in 1..=3 {
        let mut peer = Peer::connect(proxy.addr());
        peer.write(name(number));
        waiting(number as u64);
        peers.push(peer);
    }
    // No more may wait.
    assert_eq!(ask(proxy.addr(), &name(9)).status, 503);
    // The second leaves, and another takes its place in the queue, at the end.
    drop(peers.remove(3));
    waiting(2);
    let mut peer = Peer::connect(proxy.addr());
    peer.write(name(4));
    peers.push(peer);
    for mut peer in peers {
        let (bytes, _) = peer.read_to_end();
        assert_eq!(Message::parse(&bytes).unwrap().status, 200);
    }
    waiting(0);
    let asked: Vec<_> = nodes.iter().flat_map(Node::asked).collect();
    assert_eq!(asked.len(), 5);
    assert!(
        !asked
            .iter()
            .any(|asked| asked.head.contains("x-number: 2") || asked.head.contains("x-number: 9"))
    );
    // The last to come was the last to be served.
    let last: Vec<_> = nodes
        .iter()
        .filter_map(|node| node.asked().get(2).cloned())
        .collect();
    assert!(
        last.len() == 1 && last[0].head.contains("x-number: 4"),
        "{last:?}"
    );
    let metrics = proxy.wait_metrics("all have ended", |metrics| metrics.outcomes() == (5, 1, 1));
    assert_eq!(metrics.count("tokenglass_upstream_in_flight", &[]), 0);
    assert!(
        nodes
            .iter()
            .all(|node| node.is.most.load(Ordering::SeqCst) == 1)
    );
}

#[test]
fn who_waits_too_long_is_told_so() {
    let nodes = Node::many(2);
    nodes
        .iter()
        .for_each(|node| node.behave(Behaviour::Answers(1000)));
    let proxy = gateway(&nodes, |config| {
        config.gateway.max_in_flight = std::num::NonZeroUsize::new(1);
        config.gateway.queue = 10;
        config.gateway.queue_timeout = Duration::from_millis(200);
    });
    let mut peers: Vec<_> = (0..2).map(|_| Peer::connect(proxy.addr())).collect();
    peers.iter_mut().for_each(|peer| peer.write(closing()));
    proxy.wait_metrics("both are busy", |metrics| {
        metrics.count("tokenglass_upstream_in_flight", &[]) == 2
    });
    let began = Instant::now();
    assert_eq!(ask(proxy.addr(), &closing()).status, 503);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_millis(600),
        "{took:?}"
    );
    assert_eq!(
        proxy
            .metrics()
            .count("tokenglass_gateway_rejected_total", &["reason=\"timeout\""]),
        1
    );
}

/// Many more clients than places, from all sides: nobody is lost, no upstream has more than it may.
#[test]
fn under_load_nobody_is_lost_in_the_queue() {
    let nodes = Node::many(3);
    nodes
        .iter()
        .for_each(|node| node.behave(Behaviour::Answers(2)));
    let proxy = gateway(&nodes, |config| {
        config.gateway.max_in_flight = std::num::NonZeroUsize::new(2);
        config.gateway.queue = 1000;
        config.gateway.queue_timeout = Duration::from_secs(20);
    });
    all_well(&load(&proxy, 40, 25, |_| chat("", BODY)));
    assert!(
        nodes
            .iter()
            .all(|node| node.is.most.load(Ordering::SeqCst) <= 2)
    );
    let metrics = proxy.wait_metrics("all have ended", |metrics| {
        metrics.outcomes() == (1000, 0, 0)
    });
    assert_eq!(metrics.count("tokenglass_gateway_queue", &[]), 0);
    assert_eq!(metrics.count("tokenglass_upstream_in_flight", &[]), 0);
}

/// Those for one model do not wait behind those for another.
#[test]
fn a_queue_for_one_model_holds_up_no_other() {
    let nodes = [Node::serving(&["slow"]), Node::serving(&["fast"])];
    nodes[0].behave(Behaviour::Answers(500));
    let proxy = gateway(&nodes, |config| {
        polled(config);
        config.gateway.max_in_flight = std::num::NonZeroUsize::new(1);
        config.gateway.queue = 10;
    });
    wait_models(&proxy, 2);
    let mut slow: Vec<_> = (0..3).map(|_| Peer::connect(proxy.addr())).collect();
    slow.iter_mut()
        .for_each(|peer| peer.write(chat_for("slow")));
    proxy.wait_metrics("they wait", |metrics| {
        metrics.count("tokenglass_gateway_queue", &[]) == 2
    });
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(ask(proxy.addr(), &chat_for("fast")).status, 200);
    }
    assert!(
        began.elapsed() < Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(nodes[1].count(), 5);
}
