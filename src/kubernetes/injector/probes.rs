//! Probes and hooks of vLLM's container.
//!
//! What asks whether vLLM lives keeps asking vLLM, at its new port: a proxy in trouble must not restart a model that takes
//! minutes to load. Readiness asks through the proxy, whose port is the old one, so there is nothing to edit. The declared
//! port stays with vLLM's container too: the containers of a pod share their network, and Services find a named port of
//! a native sidecar only from Kubernetes 1.32 on (kubernetes/kubernetes#127958).

use serde_json::{Value, json};

use super::edit::{Cut, Edit, Path};
use super::outcome::Warning;
use super::pod::member_edit;
use super::ports::{drains, resolve};
use super::refusal::Refusal;

/// vLLM's container and where its server goes.
pub(super) struct Moving<'a> {
    pub(super) container: &'a Value,
    pub(super) path: &'a Path,
    pub(super) from: u16,
    pub(super) to: u16,
    /// The port at which the proxy is.
    pub(super) listen: u16,
    pub(super) admin: u16,
    /// vLLM, and so the proxy, is not open to the kubelet.
    pub(super) closed: bool,
}

/// Handlers that are about vLLM itself.
const OWN: [(&str, &str); 4] = [
    ("livenessProbe", ""),
    ("startupProbe", ""),
    ("lifecycle", "postStart"),
    ("lifecycle", "preStop"),
];

impl Moving<'_> {
    /// The edits to probes and hooks.
    pub(super) fn edits(&self, warnings: &mut Vec<Warning>) -> Result<Vec<Edit>, Refusal> {
        let mut edits = Vec::new();
        for (outer, inner) in OWN {
            let mut path = self.path.key(outer);
            let mut handler = self.container.get(outer);
            if !inner.is_empty() {
                path = path.key(inner);
                handler = handler.and_then(|hooks| hooks.get(inner));
            }
            let Some(handler) = handler else { continue };
            self.refuse_other_protocols(handler)?;
            if self.from != self.to {
                let place = if inner.is_empty() { outer } else { inner };
                self.handler(handler, &path, place, &mut edits, warnings);
            }
        }
        self.readiness(&mut edits)?;
        self.drain(&mut edits, warnings);
        Ok(edits)
    }

    fn refuse_other_protocols(&self, handler: &Value) -> Result<(), Refusal> {
        let ours = |handler: &Value| {
            let port = handler.get("port")?;
            (resolve(self.container, port) == Some(self.from)).then_some(())
        };
        if let Some(get) = handler.get("httpGet").filter(|get| ours(get).is_some()) {
            let scheme = get.get("scheme").and_then(Value::as_str);
            if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
                return Err(Refusal::Tls);
            }
        }
        match handler.get("grpc").and_then(ours) {
            Some(()) => Err(Refusal::Grpc),
            None => Ok(()),
        }
    }

    fn handler(
        &self,
        handler: &Value,
        path: &Path,
        place: &'static str,
        edits: &mut Vec<Edit>,
        warnings: &mut Vec<Warning>,
    ) {
        for kind in ["httpGet", "tcpSocket"] {
            let port = handler.get(kind).and_then(|action| action.get("port"));
            if port.is_some_and(|port| resolve(self.container, port) == Some(self.from)) {
                edits.push(Edit::replace(path.key(kind).key("port"), json!(self.to)));
            }
        }
        let command = handler.get("exec").and_then(|exec| exec.get("command"));
        let words = command
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate();
        for (index, text) in words.filter_map(|(index, word)| Some((index, word.as_str()?))) {
            let cuts = addresses(text, self.from, self.to);
            let all = numbers(text, self.from);
            if all > cuts.len() {
                warnings.push(Warning::ExecPort {
                    place,
                    port: self.from,
                });
            }
            let path = path.key("exec").key("command").index(index);
            edits.extend(Edit::splice(path, text, cuts));
        }
    }

    fn readiness(&self, edits: &mut Vec<Edit>) -> Result<(), Refusal> {
        let path = self.path.key("readinessProbe");
        let there = self.container.get("readinessProbe");
        let Some(probe) = there.filter(|probe| !probe.is_null()) else {
            if self.closed {
                return Ok(());
            }
            // Without one a pod takes requests before the model is loaded, which the proxy would have to answer with 502.
            let probe = json!({
                "httpGet": {"path": "/health", "port": self.listen},
                "periodSeconds": 5,
                "timeoutSeconds": 5,
                "failureThreshold": 3,
            });
            edits.push(member_edit(path, there, probe));
            return Ok(());
        };
        self.refuse_other_protocols(probe)?;
        let port = probe.get("httpGet").and_then(|get| get.get("port"));
        let asks_server = port.is_some_and(|port| resolve(self.container, port) == Some(self.from));
        if asks_server && self.listen != self.from {
            edits.push(Edit::replace(
                path.key("httpGet").key("port"),
                json!(self.listen),
            ));
        }
        // That the proxy's port is open says nothing of vLLM's.
        let port = probe.get("tcpSocket").and_then(|action| action.get("port"));
        if self.from != self.to
            && port.is_some_and(|port| resolve(self.container, port) == Some(self.from))
        {
            edits.push(Edit::replace(
                path.key("tcpSocket").key("port"),
                json!(self.to),
            ));
        }
        Ok(())
    }

    /// The hook for its end that vLLM's container comes with, which stays.
    fn own_hook(&self) -> Option<&Value> {
        let own = self.container.get("lifecycle")?.get("preStop")?;
        (!own.is_null()).then_some(own)
    }

    /// Whether the kubelet drains the proxy: by the hook that is added, or by one of the container's own that does the same.
    pub(super) fn is_drained_by_kubelet(&self) -> bool {
        let Some(own) = self.own_hook() else {
            return true;
        };
        own.get("httpGet").is_some_and(|get| {
            let port = get
                .get("port")
                .and_then(|port| resolve(self.container, port));
            let path = get.get("path").and_then(Value::as_str).unwrap_or_default();
            port == Some(self.admin) && path.starts_with("/drain")
        })
    }

    /// The kubelet stops the main containers before a native sidecar. The hook holds vLLM until its streams are through.
    fn drain(&self, edits: &mut Vec<Edit>, warnings: &mut Vec<Warning>) {
        let hook = json!({"httpGet": {"path": "/drain?wait=1", "port": self.admin}});
        let path = self.path.key("lifecycle");
        let there = self.container.get("lifecycle");
        let Some(hooks) = there.filter(|hooks| !hooks.is_null()) else {
            edits.push(member_edit(path, there, json!({"preStop": hook})));
            return;
        };
        if let Some(own) = self.own_hook() {
            if !drains(own) {
                warnings.push(Warning::OwnPreStop { admin: self.admin });
            }
        } else {
            let path = path.key("preStop");
            edits.push(member_edit(path, hooks.get("preStop"), hook));
        }
    }
}

/// Hosts that are the pod itself.
const HERE: [&str; 4] = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];

/// `localhost:8000` and the like.
fn addresses(text: &str, from: u16, to: u16) -> Vec<Cut> {
    let port = from.to_string();
    text.match_indices(&port)
        .filter(|(at, _)| {
            let before = text.get(..*at).and_then(|before| before.strip_suffix(':'));
            let after = text.get(at + port.len()..).unwrap_or_default();
            before.is_some_and(|before| HERE.iter().any(|host| before.ends_with(host)))
                && !after.starts_with(|c: char| c.is_ascii_digit())
        })
        .map(|(at, _)| Cut {
            at: at..at + port.len(),
            with: to.to_string(),
        })
        .collect()
}

/// How often the number stands in the text.
fn numbers(text: &str, number: u16) -> usize {
    let number = number.to_string();
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|digits| **digits == number)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_pod_itself() {
        let cuts = |text: &str| addresses(text, 8000, 8001).len();
        assert_eq!(cuts("curl -f http://localhost:8000/health"), 1);
        assert_eq!(cuts("curl 127.0.0.1:8000 || curl http://[::1]:8000/"), 2);
        for text in [
            "http://vllm:8000/",
            "localhost:80000",
            "localhost:18000",
            "--port 8000",
            "localhost:800",
        ] {
            assert_eq!(cuts(text), 0, "{text}");
        }
        assert_eq!(numbers("nc -z localhost 8000; echo 80001", 8000), 1);
    }
}
