//! The addresses of a name, from a DNS server that has its days.

use std::time::Duration;

use tokenglass::discover::{Dns, Failure, Servers, Settings};

use super::Seen;
use super::names::{Names, Say, addresses};

const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;
const SHORT: Duration = Duration::from_millis(300);
/// Longer than anything is waited for here.
const LONG: Duration = Duration::from_secs(3600);

fn settings(names: &Names, grace: Duration) -> Settings {
    Settings {
        dns: Dns {
            interval: Duration::from_millis(40),
            grace,
            servers: Servers::These {
                addresses: vec![names.addr],
                search: vec![
                    "ai.svc.cluster.local".to_owned(),
                    "svc.cluster.local".to_owned(),
                ],
                ndots: 5,
                timeout: Duration::from_millis(200),
                attempts: 0,
            },
        },
        ..Settings::new(Duration::from_secs(5))
    }
}

/// `vllm.test.` at port 8000.
fn seen(names: &Names, grace: Duration) -> Seen {
    Seen::start(&["dns:http://vllm.test.:8000"], &settings(names, grace))
}

/// With two addresses, one of each kind.
fn two(grace: Duration) -> (Names, Seen) {
    let names = Names::start();
    names.tell("vllm.test", &addresses(&["10.0.0.1", "fd00::1"]));
    let mut seen = seen(&names, grace);
    seen.until(&["10.0.0.1:8000", "[fd00::1]:8000"]);
    seen.forget();
    (names, seen)
}

#[test]
fn every_address_is_an_upstream_and_changes_are_seen() {
    let names = Names::start();
    names.tell("vllm.test", &addresses(&["10.0.0.1", "10.0.0.2"]));
    let mut seen = seen(&names, LONG);
    seen.until(&["10.0.0.1:8000", "10.0.0.2:8000"]);
    seen.changes.clear();
    // In another order it is the same; and the TTL of an hour is not what is waited for.
    names.tell("vllm.test", &addresses(&["10.0.0.2", "10.0.0.1"]));
    seen.quiet(SHORT);
    names.tell(
        "vllm.test",
        &addresses(&["10.0.0.2", "10.0.0.3", "fd00::3"]),
    );
    seen.until(&["10.0.0.2:8000", "10.0.0.3:8000", "[fd00::3]:8000"]);
    assert_eq!(
        seen.changes,
        [
            "+http://10.0.0.3:8000",
            "+http://[fd00::3]:8000",
            "-http://10.0.0.1:8000"
        ]
    );
    assert!(seen.failures().is_empty());
}

#[test]
fn a_server_in_trouble_says_nothing_about_upstreams() {
    for (say, failure) in [
        (Say::Code(SERVFAIL), Failure::Server),
        (Say::Code(REFUSED), Failure::Server),
        (Say::Silence, Failure::Timeout),
    ] {
        let (names, mut seen) = two(Duration::ZERO);
        names.tell("vllm.test", &say);
        seen.told(Err(failure));
        seen.quiet(SHORT);
        names.tell("vllm.test", &addresses(&["10.0.0.9"]));
        seen.until(&["10.0.0.9:8000"]);
    }
}

/// Old load balancers and firewalls answer so to AAAA.
#[test]
fn one_kind_that_fails_does_not_take_the_other_along() {
    let (names, mut seen) = two(Duration::ZERO);
    for say in [Say::Code(SERVFAIL), Say::Silence] {
        names.tell_v6("vllm.test", &say);
        names.tell_v4("vllm.test", &addresses(&["10.0.0.2"]));
        seen.until(&["10.0.0.2:8000", "[fd00::1]:8000"]);
        names.tell_v4("vllm.test", &addresses(&["10.0.0.1"]));
        seen.until(&["10.0.0.1:8000", "[fd00::1]:8000"]);
    }
    // Without any addresses it is no answer.
    names.tell_v4("vllm.test", &Say::NoSuchName);
    seen.forget();
    seen.told(Err(Failure::Timeout));
    seen.quiet(SHORT);
    names.tell("vllm.test", &addresses(&["10.0.0.1"]));
    seen.until(&["10.0.0.1:8000"]);
}

#[test]
fn no_such_name_is_believed_after_a_while() {
    for nothing in [Say::NoSuchName, Say::Addresses(Vec::new())] {
        let (names, mut seen) = two(Duration::from_millis(600));
        names.tell("vllm.test", &nothing);
        seen.told(Ok(2));
        seen.quiet(SHORT);
        seen.until(&[]);
        assert!(seen.failures().is_empty());
        names.tell("vllm.test", &addresses(&["10.0.0.1"]));
        seen.until(&["10.0.0.1:8000"]);
    }
}

#[test]
fn no_such_name_for_a_moment_changes_nothing() {
    let (names, mut seen) = two(LONG);
    for _ in 0..3 {
        names.tell("vllm.test", &Say::NoSuchName);
        seen.quiet(SHORT);
        names.tell("vllm.test", &addresses(&["10.0.0.1", "fd00::1"]));
        seen.quiet(SHORT);
    }
}

#[test]
fn what_does_not_fit_comes_over_tcp() {
    let names = Names::start();
    let many: Vec<_> = (1..=200).map(|last| format!("10.0.0.{last}")).collect();
    names.tell(
        "vllm.test",
        &Say::Truncated(many.iter().map(|text| text.parse().unwrap()).collect()),
    );
    let mut seen = seen(&names, LONG);
    let wanted: Vec<_> = many
        .iter()
        .map(|address| format!("{address}:8000"))
        .collect();
    seen.until(&wanted.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(names.asked().contains(&"vllm.test/A/tcp".to_owned()));
}

#[test]
fn an_alias_is_followed() {
    let names = Names::start();
    names.tell("vllm.test", &Say::Alias("real.test"));
    names.tell("real.test", &addresses(&["10.0.0.1"]));
    let mut seen = seen(&names, LONG);
    seen.until(&["10.0.0.1:8000"]);
}

#[test]
fn search_domains_as_in_a_pod() {
    let names = Names::start();
    names.tell("vllm.ai.svc.cluster.local", &addresses(&["10.0.0.1"]));
    let mut seen = Seen::start(&["dns:http://vllm:8000"], &settings(&names, Duration::ZERO));
    seen.until(&["10.0.0.1:8000"]);
    assert!(
        names
            .asked()
            .iter()
            .all(|asked| asked.starts_with("vllm.ai.svc.cluster.local/"))
    );
    // That the last of the names does not exist is no answer where the first could not be asked.
    names.tell("vllm.ai.svc.cluster.local", &Say::Code(SERVFAIL));
    seen.forget();
    seen.told(Err(Failure::Server));
    assert!(names.asked().contains(&"vllm/A/udp".to_owned()));
    seen.quiet(SHORT);
    // The one that can be asked has the name.
    names.tell("vllm", &addresses(&["10.0.0.2"]));
    seen.until(&["10.0.0.2:8000"]);
}

#[test]
fn a_server_that_starts_later() {
    let names = Names::start();
    names.tell("vllm.test", &Say::Silence);
    let mut seen = seen(&names, LONG);
    seen.told(Err(Failure::Timeout));
    assert!(seen.changes.is_empty());
    names.tell("vllm.test", &addresses(&["10.0.0.1"]));
    seen.until(&["10.0.0.1:8000"]);
}

#[test]
fn the_system_knows_localhost() {
    let mut seen = Seen::start(
        &["dns:http://localhost:8000"],
        &Settings::new(Duration::from_millis(50)),
    );
    seen.until(&["127.0.0.1:8000", "[::1]:8000"]);
}

#[test]
fn nothing_to_discover_is_quiet() {
    let mut seen = Seen::start(&[], &Settings::new(Duration::from_secs(5)));
    seen.quiet(SHORT);
}
