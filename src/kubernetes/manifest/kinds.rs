//! Where in which kinds of objects pods are.

use serde_json::Value;

use crate::kubernetes::injector::{self, INJECT, Outcome, Path, Pod, Refusal, Settings};

/// An object with pods.
pub(super) struct Object<'a> {
    /// `deployment/vllm`
    pub(super) name: String,
    pub(super) sites: Vec<Site<'a>>,
}

/// A pod of it.
pub(super) enum Site<'a> {
    /// To be looked at.
    Pod {
        pod: Pod<'a>,
        /// Its label says `"true"`: then not to inject is worth a word.
        asked: bool,
    },
    /// Not to be touched.
    Alone(&'static str),
    /// Not to be done.
    Refuse(Refusal),
}

/// The objects of a document.
pub(super) fn sites(document: &Value) -> Vec<Object<'_>> {
    let mut objects = Vec::new();
    walk(document, &Path::default(), &mut objects, 0);
    objects
}

/// Lists in lists; nobody has them.
const DEPTH: usize = 8;

fn walk<'a>(document: &'a Value, path: &Path, objects: &mut Vec<Object<'a>>, depth: usize) {
    let Some(object) = path.find(document) else {
        return;
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = text("kind");
    if kind.ends_with("List") && depth < DEPTH {
        let items = object
            .get("items")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        for index in 0..items {
            walk(
                document,
                &path.key("items").index(index),
                objects,
                depth + 1,
            );
        }
        return;
    }
    let name = object.get("metadata").and_then(|metadata| {
        metadata
            .get("name")
            .or_else(|| metadata.get("generateName"))
    });
    let name = name.and_then(Value::as_str).unwrap_or("(no name)");
    let found = Finder {
        document,
        path,
        object,
    };
    let group = text("apiVersion").split('/').next().unwrap_or_default();
    let mut sites = match (group, kind) {
        ("v1", "Pod") => found.pod(),
        ("apps" | "extensions", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job")
        | ("v1", "ReplicationController")
        | ("argoproj.io", "Rollout") => found.template(&["spec", "template"]),
        ("batch", "CronJob") => found.template(&["spec", "jobTemplate", "spec", "template"]),
        ("leaderworkerset.x-k8s.io", "LeaderWorkerSet") => found.leader_worker_set(),
        ("serving.kserve.io", "InferenceService") => found.inference_service(),
        ("serving.kserve.io", "ServingRuntime" | "ClusterServingRuntime") => {
            found.serving_runtime()
        }
        ("serving.kserve.io", "LLMInferenceService" | "LLMInferenceServiceConfig") => {
            found.llm_inference_service()
        }
        _ => return,
    };
    if label(object) == Some("false") {
        sites = vec![Site::Alone("its label tokenglass.dev/inject is \"false\"")];
    }
    if !sites.is_empty() {
        objects.push(Object {
            name: format!("{}/{name}", kind.to_ascii_lowercase()),
            sites,
        });
    }
}

fn label(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("labels")?.get(INJECT)?.as_str()
}

/// Whether it would be injected, or refused for another reason than that there is no vLLM.
fn is_ours(site: &Site<'_>) -> bool {
    match site {
        Site::Pod { pod, .. } => !matches!(
            injector::inject(pod, &Settings::default()),
            Outcome::Refuse(Refusal::NoServer | Refusal::Worker)
                | Outcome::OptedOut
                | Outcome::Already { .. }
        ),
        Site::Alone(_) | Site::Refuse(_) => true,
    }
}

struct Finder<'a, 'p> {
    document: &'a Value,
    path: &'p Path,
    object: &'a Value,
}

impl<'a> Finder<'a, '_> {
    fn at(&self, keys: &[&str]) -> (Path, Option<&'a Value>) {
        let path = keys
            .iter()
            .fold(self.path.clone(), |path, key| path.key(key));
        let value = path.find(self.document).filter(|value| !value.is_null());
        (path, value)
    }

    fn site(pod: Option<Pod<'a>>, holder: Option<&Value>) -> Vec<Site<'a>> {
        let asked = holder.and_then(label) == Some("true");
        match pod {
            Some(pod) => vec![Site::Pod { pod, asked }],
            None if asked => vec![Site::Refuse(Refusal::NoPod)],
            None => Vec::new(),
        }
    }

    fn template(&self, keys: &[&str]) -> Vec<Site<'a>> {
        let (path, holder) = self.at(keys);
        Self::site(Pod::within(self.document, path), holder)
    }

    /// One that was read from a cluster exists, and is not to be changed.
    fn pod(&self) -> Vec<Site<'a>> {
        let exists =
            self.at(&["metadata", "uid"]).1.is_some() || self.at(&["status", "phase"]).1.is_some();
        let sites = self.template(&[]);
        if exists {
            Self::instead(&sites, Refusal::Running)
        } else {
            sites
        }
    }

    /// The refusal in the place of pods that are ours.
    fn instead(sites: &[Site<'_>], refusal: Refusal) -> Vec<Site<'a>> {
        let concerned = sites.iter().any(is_ours);
        if concerned {
            vec![Site::Refuse(refusal)]
        } else {
            Vec::new()
        }
    }

    fn leader_worker_set(&self) -> Vec<Site<'a>> {
        let base = ["spec", "leaderWorkerTemplate"];
        let [spec, template] = base;
        let (_, leader) = self.at(&[spec, template, "leaderTemplate"]);
        if leader.is_some() {
            let mut sites = self.template(&[spec, template, "leaderTemplate"]);
            if sites.iter().any(is_ours) {
                sites.push(Site::Alone("workerTemplate: workers have no API"));
            }
            return sites;
        }
        let sites = self.template(&[spec, template, "workerTemplate"]);
        // A group of one is its leader.
        if self.at(&[spec, template, "size"]).1.and_then(Value::as_u64) == Some(1) {
            return sites;
        }
        Self::instead(&sites, Refusal::SharedTemplate)
    }

    /// KServe hands the predictor's pod on as it is, with the service's own labels and annotations; but only outside Knative.
    fn inference_service(&self) -> Vec<Site<'a>> {
        let (at, _) = self.at(&["spec", "predictor"]);
        let sites = Self::site(
            Pod::apart(self.document, self.path.clone(), at),
            Some(self.object),
        );
        let mode = self
            .at(&[
                "metadata",
                "annotations",
                "serving.kserve.io/deploymentMode",
            ])
            .1;
        match mode.and_then(Value::as_str) {
            Some("RawDeployment" | "Standard") => sites,
            _ => Self::instead(&sites, Refusal::Knative),
        }
    }

    /// A runtime's containers get arguments of each service that uses it, and it has no place for init containers.
    fn serving_runtime(&self) -> Vec<Site<'a>> {
        let (at, _) = self.at(&["spec"]);
        let sites = Self::site(
            Pod::apart(self.document, self.path.clone(), at),
            Some(self.object),
        );
        Self::instead(
            &sites,
            Refusal::Merged("the arguments of each InferenceService"),
        )
    }

    /// KServe lays these over configurations of its own, which bring a command, TLS and probes where these are silent.
    fn llm_inference_service(&self) -> Vec<Site<'a>> {
        let (at, _) = self.at(&["spec", "template"]);
        let several = ["prefill", "worker"]
            .iter()
            .any(|part| self.at(&["spec", part]).1.is_some());
        let complete = self
            .at(&["spec", "template", "containers"])
            .1
            .and_then(Value::as_array)
            .is_some_and(|containers| {
                containers.iter().all(|container| {
                    [
                        "command",
                        "args",
                        "ports",
                        "livenessProbe",
                        "readinessProbe",
                        "startupProbe",
                    ]
                    .iter()
                    .all(|part| container.get(part).is_some())
                })
            });
        let sites = Self::site(
            Pod::apart(self.document, self.path.clone(), at),
            Some(self.object),
        );
        if complete && !several {
            return sites;
        }
        match sites.is_empty() {
            true => sites,
            // Even without a command here: KServe's own starts vLLM.
            false => vec![Site::Refuse(Refusal::Merged(
                "its LLMInferenceServiceConfig",
            ))],
        }
    }
}
