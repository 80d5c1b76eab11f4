//! What needs more than one of the parts.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tower::load::Load;

use super::*;
use crate::config::{Config, UpstreamUrl};
use crate::metrics::Metrics;
use crate::poll::Model;
use crate::tenants::Tenants;
use crate::upstream::{Connector, OpenConnections};

fn url(number: usize) -> UpstreamUrl {
    format!("http://vllm-{number}:8000").parse().unwrap()
}

fn registry(count: usize, change: impl FnOnce(&mut Config)) -> (Arc<Registry>, Vec<Member>) {
    let mut config = Config::default();
    config.upstream.urls = (0..count).map(url).collect();
    change(&mut config);
    let tenants = Tenants::new(&config.tenants).unwrap();
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry, OpenConnections::default(), &config, tenants).unwrap();
    let metrics = Arc::new(metrics);
    let all = Registry::new(&config, &metrics);
    let member = |url: &UpstreamUrl| {
        let connector = Connector::new(
            url.clone(),
            Duration::from_secs(1),
            None,
            Default::default(),
        )
        .unwrap();
        all.insert(connector, metrics.polled.add(url.to_string()))
    };
    let members = config.upstream.urls.iter().map(member).collect();
    (all, members)
}

fn lists(member: &Member, names: &[&str]) {
    let model = |name: &&str| Model {
        id: (*name).to_owned(),
        owned_by: String::new(),
        root: String::new(),
        adapter: false,
        max_model_len: None,
    };
    let models: Vec<_> = names.iter().map(model).collect();
    let data: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"id": name, "from": member.endpoint().url().to_string()}))
        .collect();
    let body = serde_json::json!({"object": "list", "data": data}).to_string();
    member.lists(&models, &Bytes::from(body));
}

#[test]
fn pools_follow_what_is_listed() {
    let (all, members) = registry(3, |_| {});
    let pool = |model| all.table().pool(model).to_vec();
    assert_eq!(pool(Some("a")), [0, 1, 2], "nobody has said anything");
    assert!(all.table().union().is_none());
    lists(&members[0], &["a", "b"]);
    assert_eq!((pool(Some("a")), pool(None)), (vec![0], vec![0, 1, 2]));
    assert_eq!(
        pool(Some("x")),
        [1, 2],
        "those that have not said what they serve"
    );
    members[1].withholds();
    lists(&members[2], &["b", "c"]);
    assert_eq!((pool(Some("b")), pool(Some("x"))), (vec![0, 2], vec![1]));
    assert!(
        all.table().union().is_none(),
        "one must be asked with a key"
    );
    lists(&members[1], &["c"]);
    assert_eq!(pool(Some("x")), [0, 1, 2]);
    let union = String::from_utf8(all.table().union().unwrap().to_vec()).unwrap();
    assert_eq!(
        union,
        r#"{"object":"list","data":[{"id":"a","from":"http://vllm-0:8000"},{"id":"b","from":"http://vllm-0:8000"},{"id":"c","from":"http://vllm-1:8000"}]}"#
    );
    members[0].remove();
    assert_eq!((pool(Some("a")), pool(None)), (vec![0, 1], vec![0, 1]));
    assert_eq!(all.table().endpoints[0].url(), &url(1));
}

/// A place that was handed to one who has left meanwhile is not lost.
#[tokio::test]
async fn a_place_goes_from_hand_to_hand() {
    let (all, members) = registry(1, |config| {
        config.gateway.max_in_flight = NonZeroUsize::new(1);
        config.gateway.queue = 3;
    });
    let endpoint = members[0].endpoint();
    let seat = endpoint.enter(0).unwrap();
    assert!(endpoint.enter(0).is_none());
    let ids = all.table().ids(None);
    let join = || all.queue().join(None, ids.clone());
    let (first, second, third) = (join().unwrap(), join().unwrap(), join().unwrap());
    assert!(join().is_none());
    drop(second);
    assert_eq!(all.queue().waiting(), 2);
    drop(seat);
    assert_eq!(
        (endpoint.load(), all.queue().waiting()),
        (1, 1),
        "passed on"
    );
    assert!(endpoint.enter(0).is_none(), "nobody comes between");
    drop(first);
    assert_eq!((endpoint.load(), all.queue().waiting()), (1, 0));
    let seat = third.seat(Duration::from_secs(1)).await.unwrap();
    assert_eq!(endpoint.load(), 1);
    drop(seat);
    assert_eq!(endpoint.load(), 0);
    let (_all, others) = registry(1, |config| {
        config.gateway.max_in_flight = NonZeroUsize::new(1)
    });
    let late = join().unwrap().seat(Duration::from_millis(10)).await;
    assert!(late.is_none() && all.queue().waiting() == 0);
    assert_eq!(others[0].endpoint().load(), 0);
}

/// Whoever waits for a model that comes is let in.
#[tokio::test]
async fn those_who_wait_are_sorted_anew() {
    let (all, members) = registry(2, |config| {
        config.gateway.max_in_flight = NonZeroUsize::new(1);
        config.gateway.queue = 3;
    });
    lists(&members[0], &["a"]);
    lists(&members[1], &["b"]);
    let _busy = members[0].endpoint().enter(0).unwrap();
    let waits = all
        .queue()
        .join(Some("a"), all.table().ids(Some("a")))
        .unwrap();
    lists(&members[1], &["a", "b"]);
    let seat = waits.seat(Duration::from_secs(1)).await.unwrap();
    assert_eq!(seat.endpoint().url(), &url(1));
}

#[test]
fn of_two_the_less_loaded_and_of_all_the_least_bad() {
    let (all, members) = registry(3, |config| config.gateway.eject_after = 1);
    let config = Config::default();
    let balance = Balance::new(0, Arc::clone(&all), &config);
    let mut want = Want::default();
    let pick = |want: &Want| match balance.pick(want, Instant::now()) {
        Pick::Place(place) => Some(place),
        Pick::Busy | Pick::Nobody => None,
    };
    let busy: Vec<_> = (0..5)
        .map(|_| members[0].endpoint().enter(0).unwrap())
        .collect();
    for _ in 0..200 {
        let place = pick(&want).unwrap();
        assert_ne!(
            place.id(),
            members[0].endpoint().id(),
            "one of the two others has less"
        );
    }
    // What speaks against them: /health against one, failures against another.
    members[1].healthy(false);
    members[2]
        .endpoint()
        .breaker
        .failed(false, all.millis(Instant::now()));
    for _ in 0..50 {
        assert_eq!(pick(&want).unwrap().id(), members[0].endpoint().id());
    }
    want.tried.push(members[0].endpoint().id());
    assert_eq!(pick(&want).unwrap().id(), members[2].endpoint().id());
    want.tried.push(members[2].endpoint().id());
    assert_eq!(pick(&want).unwrap().id(), members[1].endpoint().id());
    want.tried.push(members[1].endpoint().id());
    assert!(matches!(balance.pick(&want, Instant::now()), Pick::Nobody));
    drop(busy);
    assert!(members.iter().all(|member| member.endpoint().load() == 0));
}
