//! Which alerts the rule files have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// An alert as it is told apart: several rules may share a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) severity: String,
    /// Of a burn rate.
    pub(crate) window: String,
}

/// The rule files of a folder, each with its text.
pub(crate) fn files(folder: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let context = || format!("cannot read the rules in {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = fs::read_to_string(&path).with_context(context)?;
            files.push((path, text));
        }
    }
    files.sort();
    anyhow::ensure!(!files.is_empty(), "no rules in {}", folder.display());
    Ok(files)
}

/// The alerts of a rule file.
pub(crate) fn alerts(text: &str) -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push(Alert {
                name: name.to_owned(),
                severity: String::new(),
                window: String::new(),
            });
        } else if let Some(last) = alerts.last_mut() {
            if let Some(severity) = line.strip_prefix("severity: ") {
                severity.clone_into(&mut last.severity);
            } else if let Some(window) = line.strip_prefix("window: ") {
                window.clone_into(&mut last.window);
            }
        }
    }
    alerts
}
