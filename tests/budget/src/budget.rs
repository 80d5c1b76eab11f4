//! `budget.toml`: what each thing may cost, and where that was counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Where it was counted.
    pub(crate) environment: BTreeMap<String, String>,
    /// By scenario.
    pub(crate) instructions: BTreeMap<String, u64>,
}

impl Budget {
    /// As committed; empty before the first time.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let path = path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path)?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Commits to these, in their order.
    pub(crate) fn write(
        environment: &BTreeMap<String, String>,
        counts: &[(&str, &str, u64)],
    ) -> anyhow::Result<()> {
        let mut text =
            "# What each thing may cost. Written by: tests/budget/run --update\n\n[environment]\n"
                .to_owned();
        for (name, value) in environment {
            writeln!(text, "{name} = {value:?}")?;
        }
        text.push_str("\n[instructions]\n");
        for (name, unit, count) in counts {
            writeln!(text, "{name} = {count} # per {unit}")?;
        }
        std::fs::write(path(), text)?;
        Ok(())
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.toml")
}
