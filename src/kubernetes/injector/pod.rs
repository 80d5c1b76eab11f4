//! A pod's specification within whatever holds it.

use serde_json::{Value, json};

use super::edit::{Edit, Path, apply};

/// A pod or the template of one, and where in its document it is.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    document: &'a Value,
    /// `metadata` and `spec` may lie apart: a KServe InferenceService hands its own annotations to its pods.
    metadata: Option<&'a Value>,
    spec: &'a Value,
    /// What holds `metadata`.
    holder: Path,
    at: Path,
}

impl<'a> Pod<'a> {
    /// The usual: `metadata` and `spec` side by side at `holder`.
    #[must_use]
    pub fn within(document: &'a Value, holder: Path) -> Option<Self> {
        let at = holder.key("spec");
        Self::apart(document, holder, at)
    }

    /// The specification at `at`, its metadata at `holder`.
    #[must_use]
    pub fn apart(document: &'a Value, holder: Path, at: Path) -> Option<Self> {
        let spec = at.find(document)?;
        let metadata = holder.find(document)?.get("metadata");
        spec.get("containers")?.as_array()?;
        Some(Self {
            document,
            metadata,
            spec,
            holder,
            at,
        })
    }

    /// Whether edits fit: what is there may be of a kind that Kubernetes does not have.
    pub(super) fn fits(&self, edits: &[Edit]) -> bool {
        apply(edits, self.document).is_ok()
    }

    pub(super) fn path(&self) -> &Path {
        &self.at
    }

    /// A field that is there and not null.
    pub(super) fn field(&self, name: &str) -> Option<&'a Value> {
        self.spec.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn containers(&self) -> &'a [Value] {
        self.list("containers")
    }

    pub(super) fn init_containers(&self) -> &'a [Value] {
        self.list("initContainers")
    }

    fn list(&self, name: &str) -> &'a [Value] {
        self.spec
            .get(name)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    fn of_metadata(&self, name: &str, key: &str) -> Option<&'a str> {
        self.metadata?.get(name)?.get(key)?.as_str()
    }

    pub(super) fn label(&self, key: &str) -> Option<&'a str> {
        // Unquoted, `true` is a boolean, which the API server would not take but what is meant is plain.
        let value = self.metadata?.get("labels")?.get(key)?;
        match value {
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            other => other.as_str(),
        }
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.of_metadata("annotations", key)
    }

    pub(super) fn annotations(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.metadata
            .and_then(|metadata| metadata.get("annotations"))
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    }

    pub(super) fn annotation_path(&self, key: &str) -> Path {
        self.holder.key("metadata").key("annotations").key(key)
    }

    /// Sets an annotation, making what holds it where it is missing.
    pub(super) fn annotate(&self, key: &str, value: &str) -> Edit {
        let metadata = self.holder.key("metadata");
        let map = json!({key: value});
        let present = |value: Option<&'a Value>| value.filter(|value| !value.is_null());
        let Some(given) = present(self.metadata) else {
            let member = json!({"annotations": map});
            return member_edit(metadata, self.metadata, member);
        };
        let annotations = given.get("annotations");
        if present(annotations).is_none() {
            return member_edit(metadata.key("annotations"), annotations, map);
        }
        let there = annotations.and_then(|annotations| annotations.get(key));
        member_edit(self.annotation_path(key), there, Value::from(value))
    }

    /// Sets a field of the specification.
    pub(super) fn set(&self, name: &str, value: Value) -> Edit {
        member_edit(self.at.key(name), self.spec.get(name), value)
    }

    /// One more element of a list of the specification.
    pub(super) fn append(&self, name: &str, element: Value) -> Edit {
        match self.spec.get(name) {
            Some(Value::Array(_)) => Edit::push(self.at.key(name), element),
            there => member_edit(self.at.key(name), there, json!([element])),
        }
    }
}

/// Adds a member, or replaces the one that is there (a null counts).
pub(super) fn member_edit(path: Path, there: Option<&Value>, value: Value) -> Edit {
    if there.is_some() {
        Edit::replace(path, value)
    } else {
        Edit::add(path, value)
    }
}
