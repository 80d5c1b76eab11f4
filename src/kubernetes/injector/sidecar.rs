//! The sidecar's container.

use serde_json::{Map, Value, json};

use super::CONTAINER;
use super::find::name;
use super::flags::{ApiKey, Host};
use super::pod::Pod;
use super::settings::{Gpu, Settings};

/// Where the configuration is mounted.
const CONFIG: &str = "/etc/tokenglass";
/// The volume of it.
pub(super) const VOLUME: &str = "tokenglass-config";

/// What the sidecar depends on.
pub(super) struct Sidecar<'a> {
    pub(super) settings: &'a Settings,
    pub(super) pod: &'a Pod<'a>,
    /// vLLM's container.
    pub(super) server: &'a Value,
    pub(super) host: Host,
    pub(super) listen: u16,
    pub(super) upstream: u16,
    /// The entry of vLLM's container that has the key, and whether the sidecar gets it too.
    pub(super) key: Option<&'a ApiKey>,
    /// vLLM's container declares the port that is the proxy's now.
    pub(super) declared: bool,
    /// A hook of vLLM's container drains it.
    pub(super) drained_by_kubelet: bool,
}

impl Sidecar<'_> {
    pub(super) fn container(&self) -> Value {
        let settings = self.settings;
        let admin = settings.admin_port;
        let mut container = Map::new();
        let mut put = |name: &str, value: Value| {
            container.insert(name.to_owned(), value);
        };
        put("name", json!(CONTAINER));
        put("image", json!(settings.image));
        if settings.native_sidecar {
            put("restartPolicy", json!("Always"));
        }
        put("env", Value::Array(self.variables()));
        let mut ports = Vec::new();
        if !self.declared {
            ports.push(json!({"name": CONTAINER, "containerPort": self.listen}));
        }
        ports.push(json!({"name": "tg-admin", "containerPort": admin}));
        put("ports", json!(ports));
        // A second at most until vLLM's container starts; /healthz asks nobody else.
        let health = json!({"path": "/healthz", "port": admin});
        put(
            "startupProbe",
            json!({"httpGet": health, "periodSeconds": 1, "failureThreshold": 60}),
        );
        put(
            "livenessProbe",
            json!({"httpGet": health, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}),
        );
        put(
            "readinessProbe",
            json!({"httpGet": {"path": "/readyz", "port": admin}, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 2}),
        );
        put("resources", self.resources());
        put("securityContext", self.security());
        if settings.config.is_some() {
            put(
                "volumeMounts",
                json!([{"name": VOLUME, "mountPath": CONFIG, "readOnly": true}]),
            );
        }
        Value::Object(container)
    }

    fn variables(&self) -> Vec<Value> {
        let settings = self.settings;
        let mut variables = Vec::new();
        let mut set = |name: &str, value: String| {
            variables.push(json!({"name": format!("TOKENGLASS_{name}"), "value": value}))
        };
        let (listen, loopback, anywhere) = match self.host {
            Host::Any => ("0.0.0.0", "127.0.0.1", "0.0.0.0"),
            Host::AnyV6 => ("[::]", "[::1]", "[::]"),
            // Somebody else is in front of vLLM; what was not open to the network does not become so.
            Host::Loopback => ("127.0.0.1", "127.0.0.1", "0.0.0.0"),
            Host::LoopbackV6 => ("[::1]", "[::1]", "[::]"),
        };
        set("SERVER__LISTEN", format!("{listen}:{}", self.listen));
        set(
            "UPSTREAM__URL",
            format!("http://{loopback}:{}", self.upstream),
        );
        set(
            "ADMIN__LISTEN",
            format!("{anywhere}:{}", settings.admin_port),
        );
        if self.drained_by_kubelet {
            // It comes from the node.
            set("ADMIN__REMOTE_DRAIN", "true".to_owned());
        }
        set("SERVER__WORKERS", settings.workers.to_string());
        set(
            "SHUTDOWN__READY_DELAY",
            format!("{}s", settings.ready_delay.as_secs()),
        );
        set(
            "SHUTDOWN__DRAIN_TIMEOUT",
            format!("{}s", settings.drain_timeout.as_secs()),
        );
        if let Some(level) = &settings.log_level {
            set("LOG__LEVEL", level.clone());
        }
        if settings.config.is_some() {
            set("CONFIG", format!("{CONFIG}/tokenglass.toml"));
        }
        match settings.gpu {
            Gpu::Off | Gpu::DcgmExporter => set("GPU__MODE", "off".to_owned()),
            Gpu::Nvml => {
                set("GPU__MODE", "nvml".to_owned());
                set("GPU__CONTAINER", name(self.server).to_owned());
                let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
                variables.extend([
                    json!({"name": "TOKENGLASS_GPU__NAMESPACE", "valueFrom": field("metadata.namespace")}),
                    json!({"name": "TOKENGLASS_GPU__POD", "valueFrom": field("metadata.name")}),
                    // Not a request for a GPU, which two containers cannot share: NVIDIA's runtime lends its library and devices.
                    json!({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}),
                    json!({"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"}),
                ]);
            }
        }
        variables.extend(self.api_key());
        variables
    }

    /// The poller reads `/v1/models`, for which vLLM wants its key.
    pub(super) fn api_key(&self) -> Option<Value> {
        let Some(ApiKey::Variable(wanted)) = self.key else {
            return None;
        };
        let entries = self.server.get("env")?.as_array()?;
        let entry = entries.iter().rev().find(|entry| name(entry) == wanted)?;
        let mut entry = entry.clone();
        // What refers to other variables of that container means nothing in this one.
        if entry
            .get("value")
            .and_then(Value::as_str)
            .is_some_and(|value| value.contains("$("))
        {
            return None;
        }
        entry
            .as_object_mut()?
            .insert("name".to_owned(), json!("TOKENGLASS_HEALTH__API_KEY"));
        Some(entry)
    }

    /// Without a CPU limit, which would add waits to each token; but a pod that is Guaranteed stays so, or it would lose
    /// the cores that are its own.
    fn resources(&self) -> Value {
        let settings = self.settings;
        let mut requests = json!({"cpu": settings.cpu_request, "memory": settings.memory_request});
        let mut limits = json!({"memory": settings.memory_limit});
        let containers = self
            .pod
            .containers()
            .iter()
            .chain(self.pod.init_containers());
        if self.pod.containers().iter().all(is_guaranteed)
            && containers.into_iter().all(is_guaranteed)
        {
            limits = json!({"cpu": settings.cpu_request, "memory": settings.memory_limit});
            requests = limits.clone();
        }
        json!({"requests": requests, "limits": limits})
    }

    /// What Pod Security *restricted* asks for. No user of its own, so that a cluster that assigns users (OpenShift) may; but
    /// not root, where the pod is.
    fn security(&self) -> Value {
        let mut security = json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        let root = self
            .pod
            .field("securityContext")
            .and_then(|context| context.get("runAsUser"));
        if let (Some(map), Some(0)) = (security.as_object_mut(), root.and_then(Value::as_u64)) {
            map.insert("runAsUser".to_owned(), json!(65532));
            map.insert("runAsGroup".to_owned(), json!(65532));
        }
        security
    }
}

/// Whether requests and limits of CPU and memory are the same.
fn is_guaranteed(container: &Value) -> bool {
    let resources = container.get("resources");
    let of = |kind: &str, name: &str| resources?.get(kind)?.get(name);
    ["cpu", "memory"].iter().all(|name| {
        let limit = of("limits", name);
        limit.is_some() && of("requests", name).is_none_or(|request| Some(request) == limit)
    })
}
