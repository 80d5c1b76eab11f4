//! EndpointSlices, from an API server that does what such servers do.

use std::time::{Duration, Instant};

use serde_json::json;
use tokenglass::discover::{Dns, Failure, Kubernetes, Settings};

use super::Seen;
use super::api::{Api, Fault, Verb, slice};

const SHORT: Duration = Duration::from_millis(300);

fn settings(api: &Api) -> Settings {
    Settings {
        dns: Dns::new(Duration::from_secs(5)),
        kubernetes: Kubernetes {
            kubeconfig: Some(api.kubeconfig()),
            pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(200),
            limit: Duration::from_millis(400),
            watch_seconds: 60,
        },
    }
}

fn seen(api: &Api) -> Seen {
    Seen::start(&["kubernetes:ai/vllm:http"], &settings(api))
}

/// One slice with one endpoint, seen.
fn one() -> (Api, Seen) {
    let api = Api::start();
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    let mut seen = seen(&api);
    seen.until(&["10.0.0.1:8000"]);
    wait_for_watches(&api, &mut seen, 1);
    seen.forget();
    (api, seen)
}

fn wait_for_watches(api: &Api, seen: &mut Seen, count: usize) {
    let until = Instant::now() + super::PATIENCE;
    while api.count(Verb::Watch) < count {
        assert!(Instant::now() < until, "{:?}", api.asked());
        // It is this thread that asks.
        seen.quiet(Duration::from_millis(5));
    }
}

#[test]
fn what_comes_and_goes() {
    let api = Api::start();
    api.put("a", slice("IPv4", &["10.0.0.1", "10.0.0.2"]));
    api.put("b", slice("IPv4", &["10.0.0.3"]));
    let mut seen = seen(&api);
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]);
    seen.changes.clear();

    api.put("a", slice("IPv4", &["10.0.0.2", "10.0.0.9"]));
    seen.until(&["10.0.0.2:8000", "10.0.0.3:8000", "10.0.0.9:8000"]);
    assert_eq!(
        seen.changes,
        ["+http://10.0.0.9:8000", "-http://10.0.0.1:8000"]
    );

    let mut leaving = slice("IPv4", &["10.0.0.3"]);
    leaving["endpoints"][0]["conditions"] =
        json!({"ready": false, "serving": true, "terminating": true});
    api.put("b", leaving);
    seen.until(&["10.0.0.2:8000", "10.0.0.9:8000"]);
    api.put("c", slice("IPv6", &["fd00::1"]));
    seen.until(&["10.0.0.2:8000", "10.0.0.9:8000", "[fd00::1]:8000"]);
    api.remove("a");
    api.remove("b");
    seen.until(&["[fd00::1]:8000"]);
    // The server is asked, and it says that there is nothing.
    api.remove("c");
    seen.until(&[]);
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    seen.until(&["10.0.0.1:8000"]);
    assert!(seen.failures().is_empty());
    assert_eq!((api.count(Verb::List), api.count(Verb::Watch)), (1, 1));
}

#[test]
fn over_tls_in_pages() {
    let api = Api::start_tls();
    api.page(1);
    for name in ["a", "b", "c"] {
        api.put(
            name,
            slice(
                "IPv4",
                &[&format!(
                    "10.0.0.{}",
                    name.len() + usize::from(name.as_bytes()[0])
                )],
            ),
        );
    }
    let mut seen = seen(&api);
    seen.until(&["10.0.0.98:8000", "10.0.0.99:8000", "10.0.0.100:8000"]);
    assert_eq!(api.count(Verb::List), 3);
    api.remove("b");
    seen.until(&["10.0.0.98:8000", "10.0.0.100:8000"]);
}

#[test]
fn a_service_without_slices_has_no_upstreams_until_it_has() {
    let api = Api::start();
    let mut seen = seen(&api);
    seen.told(Ok(0));
    assert!(seen.changes.is_empty());
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    seen.until(&["10.0.0.1:8000"]);
}

#[test]
fn a_watch_that_broke_does_not_miss_what_was_meanwhile() {
    let (api, mut seen) = one();
    api.always(Verb::Watch, Some(Fault::Cut));
    api.always(Verb::List, Some(Fault::Cut));
    api.cut();
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    api.remove("a");
    seen.told(Err(Failure::Unreachable));
    seen.quiet(SHORT);
    api.always(Verb::Watch, None);
    api.always(Verb::List, None);
    seen.changes.clear();
    seen.until(&["10.0.0.2:8000"]);
    assert_eq!(
        seen.changes,
        ["+http://10.0.0.2:8000", "-http://10.0.0.1:8000"]
    );
}

/// The server ends watches in order: what follows goes on from the last version, without a list.
#[test]
fn a_watch_at_its_end_goes_on_where_it_was() {
    let api = Api::start();
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    let mut settings = settings(&api);
    settings.kubernetes.watch_seconds = 1;
    let mut seen = Seen::start(&["kubernetes:ai/vllm:8000"], &settings);
    seen.until(&["10.0.0.1:8000"]);
    wait_for_watches(&api, &mut seen, 1);
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
    seen.quiet(Duration::from_millis(1200));
    wait_for_watches(&api, &mut seen, 2);
    api.put("c", slice("IPv4", &["10.0.0.3"]));
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]);
    let versions: Vec<_> = api
        .asked()
        .iter()
        .filter(|asked| asked.verb == Verb::Watch)
        .map(|asked| asked.version)
        .collect();
    assert_eq!(versions, [Some(101), Some(102)]);
    assert_eq!(api.count(Verb::List), 1);
    assert!(seen.failures().is_empty());
}

/// Elsewhere much happens, which a watcher only hears of by bookmarks: without them its version would be too old.
#[test]
fn bookmarks_keep_a_watch_young() {
    let (api, mut seen) = one();
    api.elsewhere();
    api.bookmark();
    // The bookmark has come when what follows has.
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
    for _ in 0..50 {
        api.elsewhere();
    }
    api.bookmark();
    seen.quiet(SHORT);
    api.compact();
    api.cut();
    api.put("c", slice("IPv4", &["10.0.0.3"]));
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]);
    assert_eq!(api.count(Verb::List), 1);
    assert_eq!(api.asked().last().unwrap().version, Some(153));
    assert!(seen.failures().is_empty());
}

#[test]
fn gone_in_the_stream_lists_again_and_loses_what_is_not_listed() {
    let (api, mut seen) = one();
    for _ in 0..50 {
        api.elsewhere();
    }
    api.once(Verb::Watch, Fault::Event(410));
    api.cut();
    api.remove("a");
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.2:8000"]);
    assert_eq!(seen.failures(), [Failure::Expired]);
    assert_eq!(api.count(Verb::List), 2);
}

#[test]
fn history_that_is_compacted_lists_again() {
    let (api, mut seen) = one();
    api.always(Verb::Watch, Some(Fault::Status(500)));
    api.cut();
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    api.remove("a");
    api.compact();
    api.always(Verb::Watch, None);
    seen.until(&["10.0.0.2:8000"]);
}

/// As a status it would keep kube's own watcher asking for the same version forever.
#[test]
fn gone_as_a_status_lists_again() {
    let (api, mut seen) = one();
    api.once(Verb::Watch, Fault::Status(410));
    api.cut();
    api.remove("a");
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.2:8000"]);
    assert_eq!(seen.failures(), [Failure::Expired]);
}

#[test]
fn whatever_the_server_does_what_is_known_stays() {
    for (fault, failure) in [
        (Fault::Status(500), Failure::Server),
        (Fault::Status(503), Failure::Server),
        (Fault::Status(429), Failure::Server),
        (Fault::Status(403), Failure::Denied),
        (Fault::Status(401), Failure::Denied),
        (Fault::Status(404), Failure::Answer),
        (Fault::Hang, Failure::Timeout),
        (Fault::Cut, Failure::Unreachable),
        (Fault::Half, Failure::Unreachable),
        (Fault::Stuck, Failure::Timeout),
        (Fault::Nonsense, Failure::Answer),
    ] {
        let (api, mut seen) = one();
        api.always(Verb::List, Some(fault));
        // So that it lists.
        api.once(Verb::Watch, Fault::Event(410));
        api.cut();
        seen.told(Err(failure));
        seen.quiet(SHORT);
        let lists = api.count(Verb::List);
        assert!((2..40).contains(&lists), "{fault:?}: {lists} lists");
        api.put("b", slice("IPv4", &["10.0.0.2"]));
        api.always(Verb::List, None);
        seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
    }
}

#[test]
fn the_same_at_the_start_and_in_a_watch() {
    for fault in [
        Fault::Status(500),
        Fault::Status(403),
        Fault::Hang,
        Fault::Cut,
        Fault::Half,
        Fault::Stuck,
        Fault::Nonsense,
        Fault::Event(500),
    ] {
        let api = Api::start();
        api.put("a", slice("IPv4", &["10.0.0.1"]));
        api.once(Verb::List, fault);
        api.once(Verb::Watch, fault);
        api.once(Verb::Watch, fault);
        let mut seen = seen(&api);
        seen.until(&["10.0.0.1:8000"]);
        // A stream that is only quiet is no fault: that one is ended later.
        if !matches!(fault, Fault::Stuck) {
            wait_for_watches(&api, &mut seen, 3);
            api.put("b", slice("IPv4", &["10.0.0.2"]));
            seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
        }
    }
}

#[test]
fn a_slow_server_is_waited_for() {
    let api = Api::start();
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    api.once(Verb::List, Fault::Slow(Duration::from_millis(250)));
    api.once(Verb::Watch, Fault::Slow(Duration::from_millis(250)));
    let mut seen = seen(&api);
    seen.until(&["10.0.0.1:8000"]);
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
    assert!(seen.failures().is_empty());
}

/// A watch over a connection that is dead but not closed: its end is known.
#[test]
fn a_silent_watch_is_left() {
    let api = Api::start();
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    api.once(Verb::Watch, Fault::Stuck);
    let mut settings = settings(&api);
    settings.kubernetes.watch_seconds = 1;
    let mut seen = Seen::start(&["kubernetes:ai/vllm:http"], &settings);
    seen.until(&["10.0.0.1:8000"]);
    wait_for_watches(&api, &mut seen, 1);
    api.put("a", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.2:8000"]);
}

/// Each watch is ended at once: neither is the server asked without a pause, nor is anything missed.
#[test]
fn a_server_that_ends_each_watch_is_not_hammered() {
    let (api, mut seen) = one();
    api.always(Verb::Watch, Some(Fault::Half));
    api.cut();
    let before = api.asked().len();
    seen.quiet(Duration::from_secs(1));
    let asked = api.asked().len() - before;
    assert!((2..=70).contains(&asked), "{asked} requests");
    api.always(Verb::Watch, None);
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
}

/// Tokens of service accounts live for an hour.
#[test]
fn a_token_that_rotated_is_read_again() {
    let (api, mut seen) = one();
    api.demand("second");
    seen.told(Err(Failure::Denied));
    api.write_token("second");
    api.put("b", slice("IPv4", &["10.0.0.2"]));
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
}

#[test]
fn without_a_kubeconfig_it_waits_for_one() {
    let api = Api::start();
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    let config = std::fs::read(api.kubeconfig()).unwrap();
    std::fs::remove_file(api.kubeconfig()).unwrap();
    let mut seen = seen(&api);
    seen.told(Err(Failure::Setup));
    std::fs::write(api.kubeconfig(), "apiVersion: [").unwrap();
    seen.told(Err(Failure::Setup));
    std::fs::write(api.kubeconfig(), config).unwrap();
    seen.until(&["10.0.0.1:8000"]);
}

#[test]
fn two_ports_of_one_service_and_one_port_twice() {
    let api = Api::start();
    let mut both = slice("IPv4", &["10.0.0.1"]);
    both["ports"] = json!([{"name": "http", "port": 8000}, {"name": "other", "port": 8001}]);
    api.put("a", both);
    let targets = [
        "kubernetes:ai/vllm:http",
        "kubernetes:ai/vllm:8000",
        "kubernetes:ai/vllm:other",
    ];
    let mut seen = Seen::start(&targets, &settings(&api));
    seen.until(&["10.0.0.1:8000", "10.0.0.1:8001"]);
    seen.quiet(SHORT);
    api.remove("a");
    seen.until(&[]);
}

#[test]
fn a_port_that_is_not_there() {
    let api = Api::start();
    api.put("a", slice("IPv4", &["10.0.0.1"]));
    let mut seen = Seen::start(&["kubernetes:ai/vllm:80"], &settings(&api));
    seen.told(Ok(0));
    seen.quiet(SHORT);
}
