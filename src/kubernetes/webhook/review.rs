//! An AdmissionReview and its answer (admission.k8s.io/v1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::counters::Counters;
use crate::kubernetes::injector::{self, INJECT, Injection, Outcome, Path, Pod, Refusal, Settings};

/// What is no AdmissionReview that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// Something else.
    #[error("not an AdmissionReview of admission.k8s.io/v1")]
    Kind,
    /// Nothing to answer.
    #[error("an AdmissionReview without a request, or without the uid of one")]
    Request,
}

/// Answers a review.
///
/// # Errors
/// [`Malformed`] if there is nothing that could be answered.
pub fn answer(body: &[u8], settings: &Settings, counters: &Counters) -> Result<Value, Malformed> {
    let review: Value =
        serde_json::from_slice(body).map_err(|error| Malformed::Json(error.to_string()))?;
    let is = |key: &str, wanted: &str| review.get(key).and_then(Value::as_str) == Some(wanted);
    if !is("apiVersion", "admission.k8s.io/v1") || !is("kind", "AdmissionReview") {
        return Err(Malformed::Kind);
    }
    let request = review
        .get("request")
        .filter(|request| request.is_object())
        .ok_or(Malformed::Request)?;
    let uid = request
        .get("uid")
        .and_then(Value::as_str)
        .filter(|uid| !uid.is_empty())
        .ok_or(Malformed::Request)?;
    let mut response = json!({"uid": uid, "allowed": true});
    let decision = decide(request, settings);
    counters.review(decision.result);
    if let (Some(response), true) = (
        response.as_object_mut(),
        decision.patch.is_some() || !decision.warnings.is_empty(),
    ) {
        if let Some(patch) = decision.patch {
            response.insert("patchType".to_owned(), json!("JSONPatch"));
            response.insert(
                "patch".to_owned(),
                json!(STANDARD.encode(patch.to_string())),
            );
        }
        if !decision.warnings.is_empty() {
            response.insert("warnings".to_owned(), json!(decision.warnings));
        }
    }
    Ok(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

struct Decision {
    result: &'static str,
    patch: Option<Value>,
    warnings: Vec<String>,
}

impl Decision {
    const fn only(result: &'static str) -> Self {
        Self {
            result,
            patch: None,
            warnings: Vec::new(),
        }
    }
}

/// New pods only: of what exists nothing can be changed.
fn decide(request: &Value, settings: &Settings) -> Decision {
    let text = |path: &[&str]| {
        let found = path.iter().try_fold(request, |value, key| value.get(key));
        found.and_then(Value::as_str).unwrap_or_default()
    };
    let pods = text(&["resource", "resource"]) == "pods" && text(&["resource", "group"]).is_empty();
    if !pods || text(&["operation"]) != "CREATE" || !text(&["subResource"]).is_empty() {
        return Decision::only("ignored");
    }
    let Some(object) = request.get("object") else {
        return Decision::only("ignored");
    };
    // By the namespace's label come pods of all sorts; only who asks for the sidecar is told why there is none.
    let labels = object
        .get("metadata")
        .and_then(|metadata| metadata.get("labels"));
    let asked = labels
        .and_then(|labels| labels.get(INJECT))
        .and_then(Value::as_str)
        == Some("true");
    let Some(pod) = Pod::within(object, Path::default()) else {
        return refused(&Refusal::NoPod, asked, request);
    };
    match injector::inject(&pod, settings) {
        Outcome::Inject(injection) => injected(&injection, request),
        Outcome::Already { .. } => Decision::only("already"),
        Outcome::OptedOut => Decision::only("opted_out"),
        Outcome::Refuse(refusal) => {
            let told = asked || !matches!(refusal, Refusal::NoServer | Refusal::Worker);
            refused(&refusal, told, request)
        }
    }
}

fn injected(injection: &Injection, request: &Value) -> Decision {
    let Injection {
        container,
        listen,
        upstream,
        ..
    } = injection;
    let pod = shown(request);
    tracing::info!(%pod, %container, listen, upstream, "injected");
    Decision {
        result: "injected",
        patch: Some(injector::patch(&injection.edits)),
        warnings: injection
            .warnings
            .iter()
            .map(|warning| short(&warning.to_string()))
            .collect(),
    }
}

fn refused(refusal: &Refusal, told: bool, request: &Value) -> Decision {
    let pod = shown(request);
    tracing::info!(%pod, reason = %refusal, "not injected");
    let warnings = if told {
        vec![short(&format!("not injected: {refusal}"))]
    } else {
        Vec::new()
    };
    Decision {
        result: refusal.label(),
        patch: None,
        warnings,
    }
}

/// A pod's name, which it may not have yet.
fn shown(request: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let metadata = request
        .get("object")
        .and_then(|object| object.get("metadata"));
    let of = |key: &str| text(metadata.and_then(|metadata| metadata.get(key)));
    let name = Some(of("name"))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| of("generateName"));
    format!("{}/{name}", text(request.get("namespace")))
}

/// The API server cuts warnings at 256 characters.
fn short(warning: &str) -> String {
    const MOST: usize = 256;
    let warning = format!("tokenglass: {warning}");
    if warning.chars().count() <= MOST {
        warning
    } else {
        warning.chars().take(MOST - 1).chain(['…']).collect()
    }
}
