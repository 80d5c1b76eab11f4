//! `TOKENGLASS_SECTION__KEY`, as raw values.

use std::ffi::OsString;

use super::error::{Place, Problem};
use super::key::Key;
use super::keys::KEYS;
use super::load::Entry;
use super::origin::Origin;
use super::suggest::for_variable;
use super::value::Value;

/// What all our variables begin with.
pub(super) const PREFIX: &str = "TOKENGLASS_";

/// The variable that names the configuration file.
pub(super) const CONFIG: &str = "TOKENGLASS_CONFIG";

/// Our variables among all of them. An empty one is as good as unset: compose files write `X=${X:-}`.
pub(super) fn ours(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(String, OsString)> {
    environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect()
}

pub(super) fn read(ours: &[(String, OsString)], problems: &mut Vec<Problem>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (variable, value) in ours.iter().filter(|(variable, _)| variable != CONFIG) {
        let mut problem = |message: String| {
            let place = Place::Environment {
                variable: variable.clone(),
            };
            problems.push(Problem::new(place, message));
        };
        let Some(key) = KEYS.iter().position(|key| key.variable() == *variable) else {
            if !is_service_link(variable) {
                let hint = for_variable(variable)
                    .map_or_else(String::new, |near| format!(", did you mean {near}?"));
                problem(format!("unknown variable{hint}"));
            }
            continue;
        };
        let Some(text) = value.to_str() else {
            problem("is not UTF-8".to_owned());
            continue;
        };
        let value = if KEYS.get(key).is_some_and(|key: &Key| key.list) {
            Value::words(text.split(',').map(str::trim))
        } else {
            Value::word(text)
        };
        let origin = Origin::Environment {
            variable: variable.clone(),
        };
        entries.push(Entry { key, value, origin });
    }
    entries
}

/// Kubernetes puts `TOKENGLASS_SERVICE_HOST`, `TOKENGLASS_PORT_8080_TCP_ADDR` and the like into every container of a
/// namespace that has a Service called `tokenglass` or `tokenglass-admin`. To call those unknown would stop every such pod.
fn is_service_link(variable: &str) -> bool {
    let mut parts = variable.trim_start_matches(PREFIX).rsplit('_').peekable();
    if matches!(parts.peek(), Some(&("PROTO" | "PORT" | "ADDR"))) {
        let last = parts.next();
        // `…_SERVICE_PORT`, `…_PORT`
        if last == Some("PORT") && !matches!(parts.peek(), Some(&("TCP" | "UDP" | "SCTP"))) {
            return true;
        }
    }
    match parts.next() {
        Some("HOST") => parts.next() == Some("SERVICE"),
        Some("TCP" | "UDP" | "SCTP") => {
            parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
                && parts.next() == Some("PORT")
        }
        // `…_SERVICE_PORT_HTTP`: the name of a port.
        _ => variable.contains("SERVICE_PORT_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_service_links_are_not_ours() {
        for variable in [
            "TOKENGLASS_SERVICE_HOST",
            "TOKENGLASS_SERVICE_PORT",
            "TOKENGLASS_SERVICE_PORT_HTTP",
            "TOKENGLASS_PORT",
            "TOKENGLASS_PORT_8080_TCP",
            "TOKENGLASS_PORT_8080_TCP_ADDR",
            "TOKENGLASS_PORT_8080_TCP_PORT",
            "TOKENGLASS_PORT_8080_TCP_PROTO",
            "TOKENGLASS_ADMIN_SERVICE_HOST",
            "TOKENGLASS_ADMIN_PORT_9101_TCP",
        ] {
            assert!(is_service_link(variable), "{variable}");
        }
        for variable in [
            "TOKENGLASS_SERVER__LISTEN",
            "TOKENGLASS_SERVER_LISTEN",
            "TOKENGLASS_HOST",
            "TOKENGLASS_UPSTREAM",
            "TOKENGLASS_PORT_X_TCP",
            "TOKENGLASS_",
        ] {
            assert!(!is_service_link(variable), "{variable}");
        }
    }
}
