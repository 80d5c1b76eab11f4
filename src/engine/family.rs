//! A family: a name, a type, a help and samples.

use std::sync::Arc;

use super::labels;
use crate::exposition::Kind;

/// One family of one upstream.
#[derive(Clone, Debug)]
pub struct Family {
    /// As the text format has it: of a counter mostly with `_total`.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// As it was written, escaped; `None` if nobody has said anything.
    pub help: Option<String>,
    /// Shared with the family's aliases.
    pub samples: Arc<[Sample]>,
}

/// One sample. Its name is the family's with the suffix.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: &'static str,
    /// `a="b",c="d"`, escaped, in upstream's order.
    pub labels: Box<str>,
    /// A number as upstream wrote it, but `NaN` in one spelling.
    pub value: Box<str>,
    /// Milliseconds, if upstream has said when; not negative.
    pub time: Option<i64>,
}

impl Family {
    /// The names that its samples have or could have.
    pub fn sample_names(&self) -> impl Iterator<Item = String> {
        self.kind.sample_names(&self.name)
    }

    /// The lines of its head in the text format.
    pub(super) fn write_head(&self, out: &mut Vec<u8>) {
        if let Some(help) = &self.help {
            put(out, &["# HELP ", &self.name, " ", help, "\n"]);
        }
        put(
            out,
            &["# TYPE ", &self.name, " ", self.kind.in_text(), "\n"],
        );
    }

    /// Its samples in the text format, as upstream wrote them, or with an `upstream` label.
    pub(super) fn write_samples(&self, upstream: Option<&str>, out: &mut Vec<u8>) {
        for sample in self.samples.iter() {
            sample.write(&self.name, upstream, out);
            if let Some(time) = sample.time {
                put(out, &[" ", &time.to_string()]);
            }
            out.push(b'\n');
        }
    }
}

impl Sample {
    /// The value as a number.
    #[must_use]
    pub fn number(&self) -> f64 {
        self.value.parse().unwrap_or(f64::NAN)
    }

    /// Without time and line feed.
    pub(super) fn write(&self, family: &str, upstream: Option<&str>, out: &mut Vec<u8>) {
        put(out, &[family, self.suffix]);
        match upstream {
            None if self.labels.is_empty() => {}
            None => put(out, &["{", &self.labels, "}"]),
            Some(upstream) => put(out, &["{", &with_upstream(&self.labels, upstream), "}"]),
        }
        put(out, &[" ", &self.value]);
    }
}

/// Adds the label. One of that name that vLLM already has becomes `exported_upstream`, as Prometheus does it.
fn with_upstream(written: &str, upstream: &str) -> String {
    let names: Vec<_> = labels::pairs(written).map(|(name, _)| name).collect();
    let mut moved = "exported_upstream".to_owned();
    while names.contains(&moved.as_str()) {
        moved.insert_str(0, "exported_");
    }
    let pairs = labels::pairs(written).map(|(name, value)| match name {
        "upstream" => (moved.as_str(), value),
        _ => (name, value),
    });
    let mut out = labels::write(pairs);
    labels::push(&mut out, "upstream", &labels::escape(upstream));
    out
}

pub(super) fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
