//! Which ports a pod uses, and which it may use.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod::Pod;
use super::refusal::Refusal;

/// Every number in the containers that could be a port: of `ports`, in command lines, in variables. More than are ports,
/// and that is the safe side. But not of a hook that drains the proxy: it names the port at which the proxy will be.
pub(super) fn used(pod: &Pod<'_>) -> BTreeSet<u16> {
    let mut used = BTreeSet::new();
    for container in pod.containers().iter().chain(pod.init_containers()) {
        for (name, value) in container.as_object().into_iter().flatten() {
            let hooks = value.as_object().filter(|_| name == "lifecycle");
            match hooks {
                Some(hooks) => hooks
                    .values()
                    .filter(|hook| !drains(hook))
                    .for_each(|hook| gather(hook, &mut used)),
                None => gather(value, &mut used),
            }
        }
    }
    used
}

/// Whether a hook asks for `/drain`, by HTTP or in a command.
pub(super) fn drains(hook: &Value) -> bool {
    match hook {
        Value::String(text) => text.contains("/drain"),
        Value::Array(list) => list.iter().any(drains),
        Value::Object(map) => map.values().any(drains),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn gather(value: &Value, used: &mut BTreeSet<u16>) {
    match value {
        Value::Number(number) => used.extend(number.as_u64().and_then(|n| u16::try_from(n).ok())),
        Value::String(text) => {
            let numbers = text.split(|c: char| !c.is_ascii_digit());
            used.extend(numbers.filter_map(|digits| digits.parse::<u16>().ok()));
        }
        Value::Array(list) => list.iter().for_each(|value| gather(value, used)),
        Value::Object(map) => map.values().for_each(|value| gather(value, used)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// The next port above `port` that nobody uses.
pub(super) fn free(port: u16, used: &BTreeSet<u16>, admin: u16) -> Result<u16, Refusal> {
    (port..u16::MAX)
        .map(|below| below + 1)
        .find(|candidate| *candidate != admin && !used.contains(candidate))
        .ok_or(Refusal::NoFreePort(port))
}

/// Whether a container says that it listens on `port`.
pub(super) fn declares(container: &Value, port: u16) -> bool {
    ports(container).any(|entry| number(entry) == Some(port))
}

/// The number that a probe's port is: a number, or the name of one of the container's own.
pub(super) fn resolve(container: &Value, port: &Value) -> Option<u16> {
    match port {
        Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
        Value::String(name) => name.parse().ok().or_else(|| {
            let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some(name);
            ports(container).find(named).and_then(number)
        }),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn ports(container: &Value) -> impl Iterator<Item = &Value> {
    container
        .get("ports")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn number(entry: &Value) -> Option<u16> {
    entry
        .get("containerPort")?
        .as_u64()
        .and_then(|n| u16::try_from(n).ok())
}
