//! What is to change: as JSON Patch for the API server, as places in a text for files.

use std::fmt;
use std::ops::Range;

use serde_json::{Value, json};

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A member of a mapping.
    Key(String),
    /// An element of a list.
    Index(usize),
}

/// A place in a document; shown as a JSON pointer (RFC 6901).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

/// A change to one place. Edits never move each other's places: they replace, or add at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Where: for [`Change::Push`] the list, else the value itself.
    pub path: Path,
    /// What.
    pub change: Change,
}

/// What becomes of a place.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A member that is not there yet.
    Add(Value),
    /// One more element of the list.
    Push(Value),
    /// Another value in its place.
    Replace(Value),
    /// A string of which parts change.
    Splice {
        /// The parts, in order, apart from each other.
        cuts: Vec<Cut>,
        /// The string afterwards.
        whole: String,
    },
}

/// A part of a string and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the string; empty to insert.
    pub at: Range<usize>,
    /// The new text.
    pub with: String,
}

/// An edit that does not fit the document. It would be a bug of ours.
#[derive(Debug, thiserror::Error)]
#[error("nothing to edit at {0}")]
pub struct Misplaced(String);

// === impl Path ===

impl Path {
    /// This and one key further.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// This and one index further.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The steps, from the root.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What is there.
    #[must_use]
    pub fn find<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(root, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
    }

    fn find_mut<'v>(steps: &[Step], root: &'v mut Value) -> Option<&'v mut Value> {
        steps.iter().try_fold(root, |value, step| match step {
            Step::Key(key) => value.get_mut(key),
            Step::Index(index) => value.get_mut(index),
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => write!(f, "/{index}"),
        })
    }
}

// === impl Edit ===

impl Edit {
    pub(super) fn add(path: Path, value: Value) -> Self {
        let change = Change::Add(value);
        Self { path, change }
    }

    pub(super) fn push(path: Path, value: Value) -> Self {
        let change = Change::Push(value);
        Self { path, change }
    }

    pub(super) fn replace(path: Path, value: Value) -> Self {
        let change = Change::Replace(value);
        Self { path, change }
    }

    /// Nothing, where nothing is to be cut.
    pub(super) fn splice(path: Path, text: &str, mut cuts: Vec<Cut>) -> Option<Self> {
        cuts.sort_by_key(|cut| cut.at.start);
        let mut whole = String::with_capacity(text.len());
        let mut from = 0;
        for cut in &cuts {
            whole.push_str(text.get(from..cut.at.start)?);
            whole.push_str(&cut.with);
            from = cut.at.end;
        }
        whole.push_str(text.get(from..)?);
        let change = Change::Splice { cuts, whole };
        Some(Self { path, change })
            .filter(|edit| !matches!(&edit.change, Change::Splice { cuts, .. } if cuts.is_empty()))
    }

    fn operation(&self) -> Value {
        let path = self.path.to_string();
        match &self.change {
            Change::Add(value) => json!({"op": "add", "path": path, "value": value}),
            Change::Push(value) => {
                json!({"op": "add", "path": format!("{path}/-"), "value": value})
            }
            Change::Replace(value) => json!({"op": "replace", "path": path, "value": value}),
            Change::Splice { whole, .. } => json!({"op": "replace", "path": path, "value": whole}),
        }
    }
}

/// The edits as JSON Patch (RFC 6902).
#[must_use]
pub fn patch(edits: &[Edit]) -> Value {
    edits.iter().map(Edit::operation).collect()
}

/// The document with the edits made.
///
/// # Errors
/// [`Misplaced`] where an edit does not fit.
pub fn apply(edits: &[Edit], document: &Value) -> Result<Value, Misplaced> {
    let mut document = document.clone();
    for edit in edits {
        let misplaced = || Misplaced(edit.path.to_string());
        let steps = edit.path.steps();
        match &edit.change {
            Change::Push(value) => match Path::find_mut(steps, &mut document) {
                Some(Value::Array(list)) => list.push(value.clone()),
                _ => return Err(misplaced()),
            },
            Change::Add(value) => {
                let (last, before) = steps.split_last().ok_or_else(misplaced)?;
                match (Path::find_mut(before, &mut document), last) {
                    (Some(Value::Object(map)), Step::Key(key)) => {
                        map.insert(key.clone(), value.clone());
                    }
                    _ => return Err(misplaced()),
                }
            }
            Change::Replace(value) => {
                *Path::find_mut(steps, &mut document).ok_or_else(misplaced)? = value.clone();
            }
            Change::Splice { whole, .. } => {
                *Path::find_mut(steps, &mut document).ok_or_else(misplaced)? =
                    Value::String(whole.clone());
            }
        }
    }
    Ok(document)
}
