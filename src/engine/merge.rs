//! The families of all upstreams as one text.

use std::collections::{HashMap, HashSet};

use super::dropped::{Dropped, Reason};
use super::family::Family;
use super::open_metrics;
use crate::exposition::{Format, Kind};

/// Names that vLLM's families cannot have: those of ours.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    text: HashSet<String>,
    open_metrics: HashSet<String>,
}

impl Taken {
    /// The names of families and all that are derived from them.
    #[must_use]
    pub fn new<'a>(families: impl IntoIterator<Item = (&'a str, Kind)>) -> Self {
        let mut taken = Self::default();
        for (name, kind) in families {
            taken.text.extend(kind.sample_names(name));
            taken.open_metrics.extend(open_metrics::names(name, kind));
        }
        taken
    }

    /// Ours, whether or not there is one of that name at this moment: what `tokenglass_` and `DCGM_FI_` begin.
    fn has(&self, name: &str) -> bool {
        name.starts_with("tokenglass_") || name.starts_with("DCGM_FI_") || self.text.contains(name)
    }
}

/// One family, by upstream. The first one's help and type are shown.
pub(super) struct Merged<'a> {
    pub(super) parts: Vec<(Option<&'a str>, &'a Family)>,
}

/// What one upstream has, and its value of `upstream`, if there are several.
pub(super) struct Part<'a> {
    pub(super) upstream: Option<&'a str>,
    pub(super) families: &'a [Family],
}

/// Puts them together in one of the formats. The second part says what of each could not be shown.
pub(super) fn merge(parts: &[Part<'_>], taken: &Taken, format: Format) -> (Vec<u8>, Vec<Dropped>) {
    let mut merged: Vec<Merged<'_>> = Vec::new();
    // Names of samples, and whose they are.
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut dropped = vec![Dropped::default(); parts.len()];
    for (part, dropped) in parts.iter().zip(&mut dropped) {
        for family in part.families {
            let lines = family.samples.len().max(1);
            let claims: Vec<String> = family.sample_names().collect();
            if claims.iter().any(|name| taken.has(name)) {
                dropped.add(Reason::NameTaken, lines);
                continue;
            }
            let owner = claims.iter().find_map(|name| names.get(name)).copied();
            let Some(owner) = owner else {
                names.extend(claims.into_iter().map(|name| (name, merged.len())));
                merged.push(Merged {
                    parts: vec![(part.upstream, family)],
                });
                continue;
            };
            let Some(found) = merged.get_mut(owner) else {
                continue;
            };
            let same = |other: &Family| other.name == family.name && other.kind == family.kind;
            match found.parts.first() {
                Some((_, first)) if same(first) => found.parts.push((part.upstream, family)),
                Some((_, first)) if first.name == family.name => {
                    dropped.add(Reason::TypeConflict, lines);
                }
                _ => dropped.add(Reason::NameTaken, lines),
            }
        }
    }
    let text = match format {
        Format::Text => write(&merged),
        Format::OpenMetrics => open_metrics::write(&merged, &taken.open_metrics),
    };
    (text, dropped)
}

fn write(families: &[Merged<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for merged in families {
        if let Some((_, first)) = merged.parts.first() {
            first.write_head(&mut out);
        }
        for (upstream, family) in &merged.parts {
            family.write_samples(*upstream, &mut out);
        }
    }
    out
}
