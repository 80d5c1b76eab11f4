//! Upstreams that come and go, sessions that stay where they are, and the gateway's own end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokenglass::poll::Change;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::gateway::load;
use crate::nodes::{Behaviour, Node, ask, chat_for, following, gateway, polled, wait_models};
use crate::origin::{Peer, get};
use crate::support::{Message, Proxy, STREAM, chat};

fn comes(changes: &UnboundedSender<Change>, proxy: &Proxy, node: &Node) {
    changes
        .send(Change::Insert(node.url(), node.url()))
        .unwrap();
    proxy.wait_metrics("it has come", |metrics| {
        metrics
            .0
            .contains(&format!("tokenglass_upstream_healthy{{{}}}", node.label()))
    });
}

fn goes(changes: &UnboundedSender<Change>, proxy: &Proxy, node: &Node) {
    changes.send(Change::Remove(node.url())).unwrap();
    proxy.wait_metrics("it is gone", |metrics| !metrics.0.contains(&node.label()));
}

/// Which node each session is at, by asking once for each.
fn places(proxy: &Proxy, sessions: usize) -> HashMap<usize, String> {
    let answers = load(proxy, 8, sessions / 8, |number| {
        chat(
            &format!("x-session-id: user-{number}\r\n"),
            r#"{"model":"m","messages":[]}"#,
        )
    });
    answers
        .iter()
        .enumerate()
        .map(|(number, answer)| (number, answer.json()["node"].as_str().unwrap().to_owned()))
        .collect()
}

fn moved(before: &HashMap<usize, String>, after: &HashMap<usize, String>) -> usize {
    before
        .iter()
        .filter(|(session, node)| after[session] != **node)
        .count()
}

#[test]
fn sessions_stay_where_they_are_through_a_scale_out() {
    const SESSIONS: usize = 400;
    let nodes = Node::many(5);
    let (changes, receiver) = unbounded_channel();
    let proxy = following(&nodes[..4], receiver, |config| {
        config.gateway.affinity = Some("x-session-id".parse().unwrap());
    });
    let first = places(&proxy, SESSIONS);
    assert_eq!(moved(&first, &places(&proxy, SESSIONS)), 0);
    let share = |places: &HashMap<usize, String>, node: &Node| {
        places
            .values()
            .filter(|place| **place == node.addr.to_string())
            .count()
    };
    for node in &nodes[..4] {
        assert!(
            (60..=150).contains(&share(&first, node)),
            "{}",
            share(&first, node)
        );
    }
    comes(&changes, &proxy, &nodes[4]);
    let kept = places(&proxy, SESSIONS);
    assert!(
        moved(&first, &kept) <= SESSIONS / 20,
        "{} moved",
        moved(&first, &kept)
    );
    // New ones go to the new one as to all others.
    let before = nodes[4].count();
    load(&proxy, 8, 50, |number| {
        chat(
            &format!("x-session-id: new-{number}\r\n"),
            r#"{"model":"m"}"#,
        )
    });
    let new = nodes[4].count() - before;
    assert!((40..=130).contains(&new), "{new}");
    // Another replica, which has seen none of them, sends only the new one's share elsewhere.
    let replica = gateway(&nodes, |config| {
        config.gateway.affinity = Some("x-session-id".parse().unwrap())
    });
    let elsewhere = places(&replica, SESSIONS);
    let to_new = share(&elsewhere, &nodes[4]);
    assert_eq!(moved(&first, &elsewhere), to_new, "and only to it");
    assert!((50..=120).contains(&to_new), "{to_new}");
}

#[test]
fn sessions_of_one_that_fails_go_elsewhere_and_others_stay() {
    const SESSIONS: usize = 160;
    let nodes = Node::many(4);
    let proxy = gateway(&nodes, |config| {
        config.gateway.affinity = Some("x-session-id".parse().unwrap());
        config.gateway.eject_after = 3;
    });
    let first = places(&proxy, SESSIONS);
    nodes[2].kill();
    let dead = nodes[2].addr.to_string();
    let after = places(&proxy, SESSIONS);
    let lost = first.values().filter(|node| **node == dead).count();
    assert!(lost > 10 && moved(&first, &after) == lost, "{lost}");
    assert_eq!(proxy.metrics().outcomes().1, 0);
}

#[test]
fn without_the_header_load_decides() {
    let nodes = Node::many(2);
    let proxy = gateway(&nodes, |config| {
        config.gateway.affinity = Some("x-session-id".parse().unwrap())
    });
    load(&proxy, 4, 25, |_| chat("", "{}"));
    assert!(nodes.iter().all(|node| node.count() > 20));
}

/// One that goes finishes its streams, gets nothing new, and nothing of it is left.
#[test]
fn who_is_removed_finishes_its_streams() {
    let nodes = [Node::serving(&["a"]), Node::serving(&["b"])];
    let (changes, receiver) = unbounded_channel();
    let proxy = following(&nodes[..1], receiver, polled);
    comes(&changes, &proxy, &nodes[1]);
    wait_models(&proxy, 2);
    nodes[1].behave(Behaviour::Streams(10, 50));
    let stream = STREAM.replace("\"tiny\"", "\"b\"");
    let mut flying = Peer::connect(proxy.addr());
    flying.write(chat("connection: close\r\n", &stream));
    flying.read_until(b"\n\n");
    goes(&changes, &proxy, &nodes[1]);
    assert_eq!(nodes[1].count(), 1);
    for _ in 0..5 {
        assert_eq!(
            ask(proxy.addr(), &chat_for("b")).status,
            200,
            "to whoever is left"
        );
    }
    assert_eq!(
        ask(proxy.addr(), &get("/v1/models", "")).json()["data"][0]["id"],
        "a"
    );
    let (bytes, tidy) = flying.read_to_end();
    assert!(
        tidy && bytes.ends_with(b"0\r\n\r\n"),
        "{}",
        bytes.escape_ascii()
    );
    assert_eq!((nodes[0].count(), nodes[1].count()), (5, 1));
    let metrics = proxy.wait_metrics("all have ended", |metrics| metrics.outcomes() == (6, 0, 0));
    assert!(
        !metrics.0.contains(&nodes[1].addr.to_string()),
        "{}",
        metrics.non_zero()
    );
    assert!(metrics.0.contains(&nodes[0].addr.to_string()));
    // It comes again.
    nodes[1].behave(Behaviour::Answers(0));
    comes(&changes, &proxy, &nodes[1]);
    wait_models(&proxy, 2);
    assert_eq!(ask(proxy.addr(), &chat_for("b")).status, 200);
    assert_eq!(nodes[1].count(), 2);
}

/// With none at all: not ready, and an answer at once; one that waits is served when one comes.
#[test]
fn from_none_to_one() {
    let nodes = Node::many(1);
    for queue in [0, 5] {
        let (changes, receiver) = unbounded_channel();
        let proxy = following(&nodes, receiver, |config| {
            config.upstream.urls.clear();
            config.gateway.queue = queue;
        });
        assert_eq!(ask(proxy.admin(), &get("/readyz", "")).status, 503);
        if queue == 0 {
            let answer = ask(proxy.addr(), &chat_for("m"));
            assert_eq!(answer.status, 503);
            assert!(answer.get("retry-after").is_some());
            assert_eq!(
                proxy.metrics().count(
                    "tokenglass_gateway_rejected_total",
                    &["reason=\"no_upstream\""]
                ),
                1
            );
        }
        let mut waits = Peer::connect(proxy.addr());
        if queue > 0 {
            waits.write(chat_for("m"));
            proxy.wait_metrics("it waits", |metrics| {
                metrics.count("tokenglass_gateway_queue", &[]) == 1
            });
        }
        comes(&changes, &proxy, &nodes[0]);
        assert_eq!(ask(proxy.admin(), &get("/readyz", "")).status, 200);
        if queue > 0 {
            let (bytes, _) = waits.read_to_end();
            assert_eq!(Message::parse(&bytes).unwrap().status, 200);
        }
        assert_eq!(ask(proxy.addr(), &chat_for("m")).status, 200);
    }
}

/// Upstreams come and go under load, and nobody notices.
#[test]
fn changes_under_load_cost_no_request() {
    let nodes = Node::many(6);
    nodes
        .iter()
        .for_each(|node| node.behave(Behaviour::Answers(2)));
    let (changes, receiver) = unbounded_channel();
    let proxy = following(&nodes[..2], receiver, |_| {});
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load(&proxy, 12, 100, |_| chat("", "{\"model\":\"m\"}")));
        let mut turn = 0;
        while !clients.is_finished() {
            for node in &nodes[2..] {
                changes
                    .send(Change::Insert(node.url(), node.url()))
                    .unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            let node = &nodes[2 + turn % 4];
            changes.send(Change::Remove(node.url())).unwrap();
            turn += 1;
        }
        assert!(
            clients
                .join()
                .unwrap()
                .iter()
                .all(|answer| answer.status == 200)
        );
    });
    assert!(
        nodes.iter().all(|node| node.count() > 20),
        "{:?}",
        nodes.iter().map(Node::count).collect::<Vec<_>>()
    );
    assert_eq!(nodes.iter().map(Node::count).sum::<usize>(), 1200);
    proxy.wait_metrics("all have ended", |metrics| {
        metrics.outcomes() == (1200, 0, 0)
    });
}

/// `GET /drain?wait=1` is answered when the last stream has ended, and before the process does.
#[test]
fn a_hook_waits_for_the_drain() {
    for deadline in [8000, 400] {
        let nodes = Node::many(2);
        nodes
            .iter()
            .for_each(|node| node.behave(Behaviour::Streams(15, 60)));
        let proxy = gateway(&nodes, |config| {
            config.shutdown.ready_delay = Duration::from_millis(100);
            config.shutdown.drain_timeout = Duration::from_millis(deadline);
        });
        let (data, admin) = (proxy.addr(), proxy.admin());
        let metrics = proxy.shared_metrics();
        let (end, mut ends) = unbounded_channel::<()>();
        let running = std::thread::spawn(move || {
            let app = proxy.into_app();
            crate::support::runtime().block_on(app.run_until(async || {
                ends.recv().await;
            }))
        });
        let mut flying: Vec<_> = (0..3).map(|_| Peer::connect(data)).collect();
        for peer in &mut flying {
            peer.write(chat("", STREAM));
            peer.read_until(b"\n\n");
        }
        let page = get("/drain?wait=1", "referer: http://example.org/\r\n");
        assert_eq!(ask(admin, &page).status, 403);
        assert_eq!(ask(admin, &get("/drain", "")).status, 405);
        assert_eq!(ask(admin, &get("/readyz", "")).status, 200);
        let began = Instant::now();
        let hook = std::thread::spawn(move || ask(admin, &get("/drain?wait=1", "")));
        while ask(admin, &get("/readyz", "")).status == 200 {
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(
            ask(data, &get("/v1/models", "")).status,
            200,
            "served meanwhile"
        );
        // The end of the container that has had its hook: no reason to cut anything.
        end.send(()).unwrap();
        let mut whole = 0;
        for mut peer in flying {
            let (bytes, _) = peer.read_to_end();
            whole += usize::from(bytes.ends_with(b"0\r\n\r\n"));
        }
        let told = hook.join().unwrap();
        let finished = running.join().unwrap();
        let cut = metrics.drain_cut.get();
        assert_eq!(told.status, 200);
        if deadline == 8000 {
            assert!(
                finished && whole == 3 && cut == 0,
                "{finished} {whole} {cut}"
            );
            assert_eq!(told.body, b"drained\n");
            assert!(began.elapsed() >= Duration::from_millis(700));
        } else {
            assert!(
                !finished && whole == 0 && cut == 3,
                "{finished} {whole} {cut}"
            );
            assert_eq!(told.body, b"drained, 3 requests were cut\n");
        }
    }
}
