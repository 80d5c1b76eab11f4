//! Which container is vLLM's.

use serde_json::Value;

use super::launch::{Found, Launch, look};
use super::pod::Pod;
use super::refusal::Refusal;

/// vLLM's container: its place, and how it starts.
pub(super) struct Server<'a> {
    pub(super) index: usize,
    pub(super) container: &'a Value,
    pub(super) launch: Box<Launch<'a>>,
}

/// Finds it: by name, or as the only one.
pub(super) fn server<'a>(pod: &Pod<'a>, wanted: Option<&str>) -> Result<Server<'a>, Refusal> {
    let mut servers = Vec::new();
    let mut unsure = None;
    let mut worker = false;
    let containers = pod.containers().iter().enumerate();
    for (index, container) in
        containers.filter(|(_, container)| wanted.is_none_or(|wanted| name(container) == wanted))
    {
        match look(container) {
            Found::Server(launch) => servers.push(Server {
                index,
                container,
                launch,
            }),
            Found::Worker => worker = true,
            Found::Other => {}
            Found::Unsure(refusal) => {
                unsure.get_or_insert(refusal);
            }
        }
    }
    match (servers.pop(), servers.is_empty()) {
        (Some(server), true) => Ok(server),
        (Some(last), false) => {
            servers.push(last);
            Err(Refusal::SeveralServers(
                servers
                    .iter()
                    .map(|server| name(server.container).to_owned())
                    .collect(),
            ))
        }
        (None, _) => Err(match (unsure, wanted) {
            (Some(refusal), _) => refusal,
            (None, _) if worker => Refusal::Worker,
            (None, Some(wanted))
                if !pod
                    .containers()
                    .iter()
                    .any(|container| name(container) == wanted) =>
            {
                Refusal::NoSuchContainer(wanted.to_owned())
            }
            (None, _) => Refusal::NoServer,
        }),
    }
}

pub(super) fn name(container: &Value) -> &str {
    container
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
