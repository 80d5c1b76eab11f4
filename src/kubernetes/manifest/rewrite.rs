//! A whole file.

use serde_json::Value;

use super::document;
use super::report::{Report, Verdict};
use super::tree::{self, Syntax};
use crate::kubernetes::injector::Settings;

/// A file with what could be injected.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    /// The file, unchanged outside of the edits.
    pub text: String,
    /// Each object that has pods with vLLM, or is asked to.
    pub reports: Vec<Report>,
}

/// A file that is no YAML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not YAML: {0}")]
pub struct Unreadable(#[from] Syntax);

/// Injects into every pod of a file: YAML of one or more documents, or JSON.
///
/// # Errors
/// If it cannot be read at all; a pod that cannot be injected is a [`Report`].
pub fn rewrite(text: &str, settings: &Settings) -> Result<Rewritten, Unreadable> {
    let documents = tree::parse(text)?;
    let mut reports = Vec::new();
    let mut current = text.to_owned();
    for (index, root) in documents.iter().enumerate() {
        let Some(root) = root else { continue };
        if let Some(edited) = document::edit(&current, index, root, settings, &mut reports) {
            current = edited;
        }
    }
    Ok(Rewritten {
        text: current,
        reports,
    })
}

/// The documents of a file as JSON; null for one without content.
///
/// # Errors
/// If it cannot be read.
pub fn values(text: &str) -> Result<Vec<Option<Value>>, Unreadable> {
    let documents = tree::parse(text)?;
    Ok(documents
        .iter()
        .map(|root| root.as_ref().map(tree::Node::value))
        .collect())
}

impl Rewritten {
    /// How many pods were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.reports
            .iter()
            .filter(|report| matches!(report.verdict, Verdict::Refused(_)))
            .count()
    }
}
