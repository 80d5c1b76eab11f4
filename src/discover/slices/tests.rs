use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn slice(value: Value) -> EndpointSlice {
    serde_json::from_value(value).unwrap()
}

fn named(name: &str, family: &str, ports: &Value, endpoints: &Value) -> EndpointSlice {
    slice(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "ai", "resourceVersion": "7"},
        "addressType": family, "ports": ports, "endpoints": endpoints,
    }))
}

fn http() -> Value {
    json!([{"name": "metrics", "port": 9101, "protocol": "TCP"}, {"name": "http", "port": 8000, "protocol": "TCP"}])
}

fn found(port: &str, slices: &[EndpointSlice]) -> Vec<String> {
    let mut all = Slices::new(port.parse().unwrap());
    for slice in slices {
        all.apply(slice);
    }
    shown(&all)
}

fn shown(slices: &Slices) -> Vec<String> {
    slices.found().iter().map(ToString::to_string).collect()
}

fn with_conditions(conditions: &Value) -> Vec<String> {
    let endpoints = json!([{"addresses": ["10.0.0.1"], "conditions": conditions}]);
    found("http", &[named("a", "IPv4", &http(), &endpoints)])
}

#[test]
fn several_slices_are_one_service() {
    let one = named(
        "a",
        "IPv4",
        &http(),
        &json!([{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}]),
    );
    let two = named(
        "b",
        "IPv4",
        &http(),
        &json!([{"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.1"]}]),
    );
    let mut slices = Slices::new(ServicePort::Number(8000));
    slices.apply(&one);
    slices.apply(&two);
    assert_eq!(
        shown(&slices),
        ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]
    );
    slices.apply(&named(
        "b",
        "IPv4",
        &http(),
        &json!([{"addresses": ["10.0.0.9"]}]),
    ));
    assert_eq!(
        shown(&slices),
        ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.9:8000"]
    );
    slices.delete(&one);
    assert_eq!(shown(&slices), ["10.0.0.9:8000"]);
    slices.delete(&one);
    slices.clear();
    assert!(shown(&slices).is_empty());
}

#[test]
fn only_who_can_answer() {
    for conditions in [
        json!(null),
        json!({}),
        json!({"ready": true}),
        json!({"ready": true, "serving": true, "terminating": false}),
    ] {
        assert_eq!(with_conditions(&conditions), ["10.0.0.1:8000"]);
    }
    for conditions in [
        json!({"ready": false}),
        json!({"ready": false, "serving": true, "terminating": true}),
        // publishNotReadyAddresses: `ready` whatever happens.
        json!({"ready": true, "serving": false}),
        json!({"ready": true, "serving": true, "terminating": true}),
    ] {
        assert!(with_conditions(&conditions).is_empty());
    }
}

#[test]
fn a_port_by_name_or_number_in_each_slice() {
    let endpoints = |address| json!([{"addresses": [address]}]);
    let slices = [
        named("old", "IPv4", &http(), &endpoints("10.0.0.1")),
        named(
            "new",
            "IPv4",
            &json!([{"name": "http", "port": 9000}]),
            &endpoints("10.0.0.2"),
        ),
        named(
            "udp",
            "IPv4",
            &json!([{"name": "http", "port": 8000, "protocol": "UDP"}]),
            &endpoints("10.0.0.3"),
        ),
        named(
            "unnamed",
            "IPv4",
            &json!([{"name": "", "port": 8000}]),
            &endpoints("10.0.0.4"),
        ),
        named("any", "IPv4", &json!(null), &endpoints("10.0.0.5")),
        named(
            "portless",
            "IPv4",
            &json!([{"name": "http"}]),
            &endpoints("10.0.0.6"),
        ),
    ];
    assert_eq!(found("http", &slices), ["10.0.0.1:8000", "10.0.0.2:9000"]);
    assert_eq!(
        found("8000", &slices),
        ["10.0.0.1:8000", "10.0.0.4:8000", "10.0.0.5:8000"]
    );
    assert_eq!(found("metrics", &slices), ["10.0.0.1:9101"]);
}

#[test]
fn a_wrong_port_is_noticed() {
    let mut slices = Slices::new(ServicePort::Number(80));
    assert!(!slices.lacks_port());
    slices.apply(&named("empty", "IPv4", &json!([]), &json!([])));
    assert!(!slices.lacks_port());
    slices.apply(&named(
        "a",
        "IPv4",
        &http(),
        &json!([{"addresses": ["10.0.0.1"]}]),
    ));
    assert!(slices.lacks_port());
    slices.apply(&named(
        "b",
        "IPv4",
        &json!([{"port": 80}]),
        &json!([{"addresses": ["10.0.0.2"]}]),
    ));
    assert!(!slices.lacks_port());
}

fn pod(address: &str, uid: &str, ready: bool) -> Value {
    json!({
        "addresses": [address], "conditions": {"ready": ready},
        "targetRef": {"kind": "Pod", "name": uid, "uid": uid},
    })
}

#[test]
fn a_dual_stack_pod_is_one_upstream() {
    let v4 = named("v4", "IPv4", &http(), &json!([pod("10.0.0.1", "a", true)]));
    let v6 = named(
        "v6",
        "IPv6",
        &http(),
        &json!([pod("fd00::1", "a", true), pod("fd00::2", "b", true)]),
    );
    let both = [v4, v6.clone()];
    assert_eq!(found("http", &both), ["10.0.0.1:8000", "[fd00::2]:8000"]);
    // Not ready yet by the one slice: it does not come by the other address meanwhile.
    let unready = named("v4", "IPv4", &http(), &json!([pod("10.0.0.1", "a", false)]));
    assert_eq!(found("http", &[unready, v6.clone()]), ["[fd00::2]:8000"]);
    assert_eq!(found("http", &[v6]), ["[fd00::1]:8000", "[fd00::2]:8000"]);
}

#[test]
fn moved_between_slices() {
    let a = |ready| named("a", "IPv4", &http(), &json!([pod("10.0.0.1", "a", ready)]));
    let b = |ready| named("b", "IPv4", &http(), &json!([pod("10.0.0.1", "a", ready)]));
    assert_eq!(found("http", &[a(true), b(true)]), ["10.0.0.1:8000"]);
    assert_eq!(found("http", &[a(false), b(true)]), ["10.0.0.1:8000"]);
    assert_eq!(found("http", &[a(true), b(false)]), ["10.0.0.1:8000"]);
    let mut leaving = pod("10.0.0.1", "a", true);
    leaving["conditions"]["terminating"] = json!(true);
    let leaving = named("b", "IPv4", &http(), &json!([leaving]));
    assert!(found("http", &[a(true), leaving.clone()]).is_empty());
    // Another pod with the address of one that left is there.
    let next = named(
        "c",
        "IPv4",
        &http(),
        &json!([pod("10.0.0.1", "next", true)]),
    );
    assert_eq!(found("http", &[leaving, next]), ["10.0.0.1:8000"]);
}

#[test]
fn what_is_none_of_ours() {
    let odd = [
        named(
            "names",
            "FQDN",
            &http(),
            &json!([{"addresses": ["vllm.example"]}]),
        ),
        named(
            "mixed",
            "IPv4",
            &http(),
            &json!([{"addresses": ["fd00::1"]}, {"addresses": ["10.0.0"]}, {"addresses": []}]),
        ),
        named(
            "future",
            "IPv8",
            &http(),
            &json!([{"addresses": ["10.0.0.1"]}]),
        ),
        slice(
            json!({"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
        ),
    ];
    assert!(found("http", &odd).is_empty());
    let several = named(
        "a",
        "IPv4",
        &http(),
        &json!([{"addresses": ["10.0.0.1", "10.0.0.2"]}]),
    );
    assert_eq!(found("http", &[several]), ["10.0.0.1:8000"]);
}

/// What happens to slices.
#[derive(Clone, Debug)]
enum Event {
    Apply(EndpointSlice),
    Delete(EndpointSlice),
    /// A list that is read again, as it was at that moment.
    Relist,
}

fn any_endpoint() -> impl Strategy<Value = (u8, Option<bool>, Option<bool>, Option<bool>, bool)> {
    let condition = || prop_oneof![Just(None), any::<bool>().prop_map(Some)];
    (
        0..6_u8,
        condition(),
        condition(),
        condition(),
        any::<bool>(),
    )
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    (
        0..5_u8,
        any::<bool>(),
        0..4_u8,
        prop::collection::vec(any_endpoint(), 0..5),
    )
        .prop_map(|(name, v6, ports, endpoints)| {
            let endpoint = |(pod, ready, serving, terminating, known): (u8, _, _, _, bool)| {
                let address = if v6 {
                    format!("fd00::{pod}")
                } else {
                    format!("10.0.0.{pod}")
                };
                json!({
                    "addresses": [address],
                    "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                    "targetRef": known.then(|| json!({"kind": "Pod", "uid": pod.to_string()})),
                })
            };
            let endpoints: Vec<_> = endpoints.into_iter().map(endpoint).collect();
            let ports = match ports {
                0 => json!(null),
                1 => json!([{"name": "http", "port": 9000}]),
                _ => http(),
            };
            named(
                &name.to_string(),
                if v6 { "IPv6" } else { "IPv4" },
                &ports,
                &json!(endpoints),
            )
        })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any_slice().prop_map(Event::Apply),
        2 => any_slice().prop_map(Event::Delete),
        1 => Just(Event::Relist),
    ]
}

/// Said another way than in `found`: over all endpoints and without any state kept.
fn oracle(slices: &[EndpointSlice], wanted: &str) -> BTreeSet<SocketAddr> {
    let mut rows = Vec::new();
    for slice in slices {
        let port = match (&slice.ports, wanted.parse::<u16>()) {
            (None, Ok(number)) => Some(number),
            (None, Err(_)) => None,
            (Some(ports), number) => {
                let of = |port: &EndpointPort| u16::try_from(port.port.unwrap()).unwrap();
                let is = |port: &&EndpointPort| match &number {
                    Ok(number) => of(port) == *number,
                    Err(_) => port.name.as_deref() == Some(wanted),
                };
                ports.iter().find(is).map(of)
            }
        };
        for endpoint in &slice.endpoints {
            let ip: IpAddr = endpoint.addresses[0].parse().unwrap();
            let uid = endpoint
                .target_ref
                .as_ref()
                .map(|target| target.uid.clone().unwrap());
            let c = endpoint.conditions.clone().unwrap();
            let id = uid.unwrap_or_else(|| ip.to_string());
            if let Some(port) = port {
                let ready = c.ready.unwrap_or(true) && c.serving.unwrap_or(true);
                rows.push((
                    id,
                    SocketAddr::new(ip, port),
                    ready,
                    c.terminating.unwrap_or(false),
                ));
            }
        }
    }
    let usable = |id: &String, address: &SocketAddr| {
        let same: Vec<_> = rows.iter().filter(|row| row.0 == *id).collect();
        let here: Vec<_> = same.iter().filter(|row| row.1 == *address).collect();
        here.iter().any(|row| row.2)
            && !here.iter().any(|row| row.3)
            && (address.is_ipv4() || same.iter().all(|row| row.1.is_ipv6()))
    };
    rows.iter()
        .filter(|row| usable(&row.0, &row.1))
        .map(|row| row.1)
        .collect()
}

proptest! {
    #[test]
    fn any_history_is_as_good_as_a_fresh_list(events in prop::collection::vec(any_event(), 0..40), by_name in any::<bool>()) {
        let wanted = if by_name { "http" } else { "8000" };
        let mut watched = Slices::new(wanted.parse().unwrap());
        // What the API server has.
        let mut there: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap();
        for event in events {
            match event {
                Event::Apply(slice) => {
                    watched.apply(&slice);
                    there.insert(name(&slice), slice);
                }
                Event::Delete(slice) => {
                    watched.delete(&slice);
                    there.remove(&name(&slice));
                }
                Event::Relist => {
                    watched.clear();
                    there.values().for_each(|slice| watched.apply(slice));
                }
            }
            let list: Vec<_> = there.values().cloned().collect();
            let mut fresh = Slices::new(wanted.parse().unwrap());
            list.iter().rev().for_each(|slice| fresh.apply(slice));
            prop_assert_eq!(watched.found(), fresh.found());
            prop_assert_eq!(watched.found(), oracle(&list, wanted));
        }
    }
}
