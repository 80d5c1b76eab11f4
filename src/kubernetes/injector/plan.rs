//! The function itself.

use serde_json::{Value, json};

use super::edit::{Edit, Path};
use super::find::{self, Server, name};
use super::flags::{self, ApiKey, Host, Listening, Move};
use super::outcome::{Injection, Outcome, Warning};
use super::pod::Pod;
use super::ports;
use super::probes::Moving;
use super::refusal::Refusal;
use super::settings::Settings;
use super::sidecar::{Sidecar, VOLUME};
use super::{CONTAINER, INJECT, STATUS, stamp};

/// What to do with a pod. Deterministic, and once done it is [`Outcome::Already`].
#[must_use]
pub fn inject(pod: &Pod<'_>, settings: &Settings) -> Outcome {
    if pod.label(INJECT) == Some("false") {
        return Outcome::OptedOut;
    }
    let mut warnings = Vec::new();
    let settings = match settings.for_pod(pod, &mut warnings) {
        Ok(settings) => settings,
        Err(bad) => return Outcome::Refuse(bad.into()),
    };
    let mut all = pod.containers().iter().chain(pod.init_containers());
    if all.any(|container| name(container) == CONTAINER) {
        return match pod.annotation(STATUS) {
            Some(status) => Outcome::Already {
                same: stamp::is_same(status, &settings),
            },
            None => Outcome::Refuse(Refusal::NameTaken),
        };
    }
    match plan(pod, &settings, warnings) {
        Ok(injection) if pod.fits(&injection.edits) => Outcome::Inject(injection),
        Ok(_) => Outcome::Refuse(Refusal::Malformed),
        Err(refusal) => Outcome::Refuse(refusal),
    }
}

fn plan(
    pod: &Pod<'_>,
    settings: &Settings,
    mut warnings: Vec<Warning>,
) -> Result<Injection, Refusal> {
    // First whether there is vLLM at all: of other pods nothing is to be said.
    let server = find::server(pod, settings.container.as_deref())?;
    fits(pod, settings)?;
    let listening = flags::listening(&server.launch)?;
    let (listen, upstream) = choose(pod, settings, listening.port)?;
    let container = pod.path().key("containers").index(server.index);

    let mut edits = Vec::new();
    if upstream != listening.port {
        edits.extend(moved(&server, &listening, &container, upstream));
    }
    let moving = Moving {
        container: server.container,
        path: &container,
        from: listening.port,
        to: upstream,
        listen,
        admin: settings.admin_port,
        closed: matches!(listening.host, Host::Loopback | Host::LoopbackV6),
    };
    edits.extend(moving.edits(&mut warnings)?);

    let sidecar = Sidecar {
        settings,
        pod,
        server: server.container,
        host: listening.host,
        listen,
        upstream,
        key: listening.key.as_ref(),
        declared: ports::declares(server.container, listen),
        drained_by_kubelet: moving.is_drained_by_kubelet(),
    };
    let no_key = listening.key.is_some() && sidecar.api_key().is_none();
    // A key that is nobody's secret is not copied either: `--api-key X` stays where it is.
    if no_key || listening.key == Some(ApiKey::Elsewhere) {
        warnings.push(Warning::ApiKey);
    }
    // The last of the init containers: what downloads the model is done by then, and needs no proxy.
    let list = if settings.native_sidecar {
        "initContainers"
    } else {
        "containers"
    };
    edits.push(pod.append(list, sidecar.container()));
    if let Some(config) = &settings.config {
        edits.push(pod.append(
            "volumes",
            json!({"name": VOLUME, "configMap": {"name": config}}),
        ));
    }
    edits.extend(grace(pod, settings));
    edits.extend(service_links(pod, &mut warnings));
    edits.extend(scraped(pod, listening.port, settings.admin_port));
    let container = name(server.container).to_owned();
    let admin = settings.admin_port;
    edits.push(pod.annotate(
        STATUS,
        &stamp::stamp(settings, &container, [listen, upstream, admin]),
    ));
    warnings.dedup();
    Ok(Injection {
        edits,
        container,
        listen,
        upstream,
        admin,
        warnings,
    })
}

/// Whether a sidecar can be in such a pod at all.
fn fits(pod: &Pod<'_>, settings: &Settings) -> Result<(), Refusal> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if pod.annotation("kubernetes.io/config.mirror").is_some() {
        return Err(Refusal::Mirror);
    }
    if pod.field("hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Err(Refusal::HostNetwork);
    }
    let selector = pod.field("nodeSelector");
    let selected = |key: &str| text(selector.and_then(|selector| selector.get(key)));
    let os = text(pod.field("os").and_then(|os| os.get("name")))
        .or_else(|| selected("kubernetes.io/os"));
    if let Some(os) = os.filter(|os| os != "linux") {
        return Err(Refusal::Platform(os));
    }
    if let Some(arch) =
        selected("kubernetes.io/arch").filter(|arch| arch != "amd64" && arch != "arm64")
    {
        return Err(Refusal::Platform(arch));
    }
    let index = pod
        .label("leaderworkerset.sigs.k8s.io/worker-index")
        .is_some_and(|index| index != "0");
    if index || pod.label("ray.io/node-type") == Some("worker") {
        return Err(Refusal::Worker);
    }
    match text(pod.field("restartPolicy")).filter(|policy| policy != "Always") {
        Some(policy) if !settings.native_sidecar => Err(Refusal::WouldNotEnd(policy)),
        _ => Ok(()),
    }
}

/// The proxy's port and vLLM's.
fn choose(pod: &Pod<'_>, settings: &Settings, port: u16) -> Result<(u16, u16), Refusal> {
    let used = ports::used(pod);
    let admin = settings.admin_port;
    if admin == port || used.contains(&admin) {
        return Err(Refusal::PortTaken(admin, "tokenglass.dev/admin-port"));
    }
    let listen = settings.listen_port.unwrap_or(port);
    if listen == admin || (listen != port && used.contains(&listen)) {
        return Err(Refusal::PortTaken(listen, "tokenglass.dev/listen-port"));
    }
    let upstream = match settings.upstream_port {
        Some(wanted) if wanted == port && listen != port => port,
        Some(wanted) if wanted == listen || wanted == admin || used.contains(&wanted) => {
            return Err(Refusal::PortTaken(wanted, "tokenglass.dev/upstream-port"));
        }
        Some(wanted) => wanted,
        // The proxy is elsewhere, so vLLM need not move.
        None if listen != port => port,
        None => ports::free(port, &used, admin)?,
    };
    Ok((listen, upstream))
}

/// vLLM's command line with its new port.
fn moved(server: &Server<'_>, listening: &Listening, container: &Path, port: u16) -> Vec<Edit> {
    match listening.moved(port) {
        Move::Cut { argument, cut } => {
            let Some(string) = server.launch.strings.get(argument) else {
                return Vec::new();
            };
            let path = container.key(string.list).index(string.index);
            Edit::splice(path, string.text, vec![cut])
                .into_iter()
                .collect()
        }
        Move::Append { list, elements } => {
            let path = container.key(list);
            match server.container.get(list) {
                Some(Value::Array(_)) => elements
                    .into_iter()
                    .map(|element| Edit::push(path.clone(), json!(element)))
                    .collect(),
                Some(_) => vec![Edit::replace(path, json!(elements))],
                None => vec![Edit::add(path, json!(elements))],
            }
        }
    }
}

/// Raised, never lowered: the owner may know of longer streams.
fn grace(pod: &Pod<'_>, settings: &Settings) -> Option<Edit> {
    const FIELD: &str = "terminationGracePeriodSeconds";
    /// What Kubernetes takes where nothing is said.
    const DEFAULT: u64 = 30;
    let now = pod.field(FIELD).and_then(Value::as_u64).unwrap_or(DEFAULT);
    let least = settings.grace();
    (now < least).then(|| pod.set(FIELD, json!(least)))
}

/// A Service called `vllm` sets VLLM_PORT to a URL, on which vLLM ends; one called `tokenglass` sets variables that look
/// like ours. The API server writes `true` into every pod, so that `true` says nothing about anybody's wish.
fn service_links(pod: &Pod<'_>, warnings: &mut Vec<Warning>) -> Option<Edit> {
    const FIELD: &str = "enableServiceLinks";
    if pod.field(FIELD).and_then(Value::as_bool) == Some(false) {
        return None;
    }
    let mut all = pod.containers().iter().chain(pod.init_containers());
    if all.any(uses_links) {
        warnings.push(Warning::ServiceLinks);
        return None;
    }
    Some(pod.set(FIELD, json!(false)))
}

/// Whether the container names such a variable. The API server's own are set in any case, and what its `env` sets is no link.
fn uses_links(container: &Value) -> bool {
    let entries = container.get("env").and_then(Value::as_array);
    let own: Vec<&str> = entries.into_iter().flatten().map(name).collect();
    mentions_link(container, &own)
}

fn mentions_link(value: &Value, own: &[&str]) -> bool {
    match value {
        Value::String(text) => {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            words.into_iter().any(|word| {
                let link = ["_SERVICE_HOST", "_SERVICE_PORT"]
                    .iter()
                    .any(|part| word.contains(part));
                link && !word.starts_with("KUBERNETES_") && !own.contains(&word)
            })
        }
        Value::Array(list) => list.iter().any(|value| mentions_link(value, own)),
        Value::Object(map) => map.values().any(|value| mentions_link(value, own)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Prometheus by annotations: our port has vLLM's families too, and scraping both would have them twice.
fn scraped(pod: &Pod<'_>, port: u16, admin: u16) -> Vec<Edit> {
    let port_key = "prometheus.io/port";
    if pod
        .annotation(port_key)
        .and_then(|given| given.parse().ok())
        != Some(port)
    {
        return Vec::new();
    }
    let mut edits = vec![Edit::replace(
        pod.annotation_path(port_key),
        json!(admin.to_string()),
    )];
    let path_key = "prometheus.io/path";
    if pod
        .annotation(path_key)
        .is_some_and(|path| path != "/metrics")
    {
        edits.push(Edit::replace(
            pod.annotation_path(path_key),
            json!("/metrics"),
        ));
    }
    edits
}
