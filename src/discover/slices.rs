//! Which endpoints a Service's EndpointSlices make.
//!
//! - A Service has several slices: one or more for each address family, and one for each set of port numbers when a named
//!   port means another number in other pods. All of them together count.
//! - An endpoint gets requests if it is ready and not terminating. `serving` must not be false either: where a Service
//!   publishes addresses that are not ready (`publishNotReadyAddresses`, as LeaderWorkerSet's does), `ready` is always
//!   true and `serving` is what the readiness probe says; a vLLM that still loads its model could not answer. What is
//!   not said counts as ready (the API's own rule).
//! - A pod in a dual-stack Service is in slices of both families. It is one upstream, by its IPv4 address if it has one.
//!   Which family is taken does not depend on readiness: the slices of the two change one after the other, and a pod must
//!   not come as the one and be replaced by the other.
//! - While endpoints are moved between slices, one may be in two of them: it counts once, as ready if one says so, and as
//!   terminating if one says so, for nobody comes back from that.
//! - Of an endpoint's addresses the first is taken, as kube-proxy does: the API says that they are interchangeable.
//! - Slices of host names (`addressType: FQDN`) and UDP or SCTP ports are none of ours.
//!
//! What is found depends on the slices that are there now and not on how they came to be, so a list that is read again
//! after a gap mends whatever was missed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{Found, ServicePort};

/// The slices of one Service.
#[derive(Debug)]
pub(super) struct Slices {
    port: ServicePort,
    slices: BTreeMap<String, Slice>,
}

/// What is kept of one.
#[derive(Clone, Debug)]
struct Slice {
    seen: Vec<Seen>,
    /// Endpoints, though none with the port that is looked for.
    portless: bool,
}

#[derive(Clone, Debug)]
struct Seen {
    pod: Pod,
    address: SocketAddr,
    state: State,
}

/// What an endpoint is; the same in the slices of both families.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pod {
    Uid(String),
    Name(String),
    /// Endpoints that somebody wrote by hand need not say whose they are.
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    ready: bool,
    terminating: bool,
}

// === impl Slices ===

impl Slices {
    pub(super) fn new(port: ServicePort) -> Self {
        Self {
            port,
            slices: BTreeMap::new(),
        }
    }

    /// A slice is there, or is another now.
    pub(super) fn apply(&mut self, slice: &EndpointSlice) {
        let Some(name) = slice.metadata.name.clone() else {
            return;
        };
        self.slices.insert(name, Slice::new(slice, &self.port));
    }

    /// It is gone.
    pub(super) fn delete(&mut self, slice: &EndpointSlice) {
        if let Some(name) = &slice.metadata.name {
            self.slices.remove(name);
        }
    }

    /// All of them are to be listed again.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
    }

    /// Who gets requests.
    pub(super) fn found(&self) -> Found {
        let mut pods: BTreeMap<&Pod, BTreeMap<SocketAddr, State>> = BTreeMap::new();
        for seen in self.slices.values().flat_map(|slice| &slice.seen) {
            let addresses = pods.entry(&seen.pod).or_default();
            let state = addresses.entry(seen.address).or_default();
            state.ready |= seen.state.ready;
            state.terminating |= seen.state.terminating;
        }
        let mut found = Found::new();
        for addresses in pods.into_values() {
            let v4 = addresses.keys().any(SocketAddr::is_ipv4);
            let usable = addresses.into_iter().filter(|(address, state)| {
                address.is_ipv4() == v4 && state.ready && !state.terminating
            });
            found.extend(usable.map(|(address, _)| address));
        }
        found
    }

    /// Whether there are endpoints and yet none has the port: most likely it is the wrong one.
    pub(super) fn lacks_port(&self) -> bool {
        let mut slices = self.slices.values();
        slices.all(|slice| slice.seen.is_empty())
            && self.slices.values().any(|slice| slice.portless)
    }
}

// === impl Slice ===

impl Slice {
    fn new(slice: &EndpointSlice, port: &ServicePort) -> Self {
        let of_family: fn(&IpAddr) -> bool = match slice.address_type.as_str() {
            "IPv4" => IpAddr::is_ipv4,
            "IPv6" => IpAddr::is_ipv6,
            _ => |_| false,
        };
        let ports = slice.ports.as_deref().unwrap_or_default();
        let Some(port) = number(ports, port) else {
            return Self {
                seen: Vec::new(),
                portless: !slice.endpoints.is_empty(),
            };
        };
        let see = |endpoint: &Endpoint| {
            let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            of_family(&ip).then(|| Seen {
                pod: Pod::new(endpoint, ip),
                address: (ip, port).into(),
                state: State::new(endpoint),
            })
        };
        Self {
            seen: slice.endpoints.iter().filter_map(see).collect(),
            portless: false,
        }
    }
}

/// Which number `wanted` is in a slice with these ports.
fn number(ports: &[EndpointPort], wanted: &ServicePort) -> Option<u16> {
    // A headless Service need not name its ports, and then a number is as good as any.
    if let ([], ServicePort::Number(number)) = (ports, wanted) {
        return Some(*number);
    }
    let tcp = ports.iter().filter(|port| {
        port.protocol
            .as_deref()
            .is_none_or(|protocol| protocol == "TCP")
    });
    let mut numbers = tcp.filter_map(|port| {
        let number = u16::try_from(port.port?)
            .ok()
            .filter(|number| *number > 0)?;
        let is_it = match wanted {
            ServicePort::Number(wanted) => *wanted == number,
            ServicePort::Name(wanted) => port.name.as_ref() == Some(wanted),
        };
        is_it.then_some(number)
    });
    numbers.next()
}

// === impl Pod ===

impl Pod {
    fn new(endpoint: &Endpoint, ip: IpAddr) -> Self {
        let target = endpoint.target_ref.as_ref();
        if let Some(uid) = target.and_then(|target| target.uid.clone()) {
            return Self::Uid(uid);
        }
        // A Service's endpoints are in its own namespace.
        match target.and_then(|target| target.name.clone()) {
            Some(name) => Self::Name(name),
            None => Self::Address(ip),
        }
    }
}

// === impl State ===

impl State {
    fn new(endpoint: &Endpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let says = |condition: fn(
            &k8s_openapi::api::discovery::v1::EndpointConditions,
        ) -> Option<bool>| { conditions.and_then(condition) };
        Self {
            ready: says(|c| c.ready) != Some(false) && says(|c| c.serving) != Some(false),
            terminating: says(|c| c.terminating) == Some(true),
        }
    }
}

#[cfg(test)]
mod tests;
