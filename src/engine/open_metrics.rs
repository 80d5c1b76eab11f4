//! vLLM's families in OpenMetrics, whose parsers are stricter: they refuse a whole exposition for a name that two families
//! could mean or a histogram without its last bucket. What cannot be said there is left out there.

use std::collections::{HashMap, HashSet};

use super::family::{Family, Sample, put};
use super::labels;
use super::merge::Merged;
use crate::exposition::{Kind, help};

/// All sample names that a family of OpenMetrics could have, its own among them.
pub(super) fn names(name: &str, kind: Kind) -> Vec<String> {
    let (stem, kind) = kind.in_open_metrics(name);
    let suffixes: &[&str] = match kind {
        "counter" => &["", "_total", "_created"],
        "histogram" => &["", "_bucket", "_sum", "_count", "_created"],
        "summary" => &["", "_sum", "_count", "_created"],
        _ => &[""],
    };
    suffixes
        .iter()
        .map(|suffix| format!("{stem}{suffix}"))
        .collect()
}

/// All of them, none under a name that is `taken`.
pub(super) fn write(families: &[Merged<'_>], taken: &HashSet<String>) -> Vec<u8> {
    let mut used: HashSet<String> = HashSet::new();
    let mut out = Vec::new();
    let creations = creations(families);
    for merged in families {
        let Some((_, first)) = merged.parts.first() else {
            continue;
        };
        // Python shows the time of creation as a gauge of its own; here it would be one of the other family's samples.
        if creations.contains(first.name.as_str()) {
            continue;
        }
        let free = |kind: &Kind| {
            names(&first.name, *kind)
                .iter()
                .all(|name| !taken.contains(name) && !used.contains(name))
        };
        // A counter may share its stem with a gauge: its own name is free all the same.
        let simple = matches!(first.kind, Kind::Counter | Kind::Gauge | Kind::Untyped);
        let kinds = [Some(first.kind), simple.then_some(Kind::Untyped)];
        let Some(kind) = kinds.into_iter().flatten().find(free) else {
            continue;
        };
        used.extend(names(&first.name, kind));
        write_head(first, kind, &mut out);
        for (upstream, family) in &merged.parts {
            write_samples(family, *upstream, &mut out);
        }
    }
    out
}

/// The gauges that OpenMetrics has no room for.
fn creations(families: &[Merged<'_>]) -> HashSet<String> {
    families
        .iter()
        .filter_map(|merged| {
            let (_, first) = merged.parts.first()?;
            matches!(first.kind, Kind::Counter | Kind::Histogram | Kind::Summary)
                .then(|| format!("{}_created", first.kind.in_open_metrics(&first.name).0))
        })
        .collect()
}

fn write_head(family: &Family, kind: Kind, out: &mut Vec<u8>) {
    let (name, kind) = kind.in_open_metrics(&family.name);
    put(out, &["# TYPE ", name, " ", kind, "\n"]);
    if let Some(escaped) = &family.help {
        put(out, &["# HELP ", name, " "]);
        help::escape(&unescape(escaped), true, out);
        out.push(b'\n');
    }
}

fn unescape(help: &str) -> String {
    let mut out = String::with_capacity(help.len());
    let mut rest = help.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    out
}

fn write_samples(family: &Family, upstream: Option<&str>, out: &mut Vec<u8>) {
    let mut write = |sample: &Sample| {
        sample.write(&family.name, upstream, out);
        if let Some(time) = sample.time {
            put(out, &[" ", &format!("{}.{:03}", time / 1000, time % 1000)]);
        }
        out.push(b'\n');
    };
    match family.kind {
        Kind::Histogram | Kind::Summary => {
            for group in groups(family) {
                if group.is_whole(family.kind) {
                    group.buckets.iter().for_each(|(_, sample)| write(sample));
                    group.rest.iter().for_each(|sample| write(sample));
                }
            }
        }
        Kind::Counter => {
            let counts = |sample: &&Sample| sample.number() >= 0.0;
            family.samples.iter().filter(counts).for_each(write);
        }
        Kind::Gauge | Kind::Untyped => family.samples.iter().for_each(write),
    }
}

/// The samples of one histogram or summary.
#[derive(Default)]
struct Group<'a> {
    /// Or quantiles, with their edges.
    buckets: Vec<(f64, &'a Sample)>,
    rest: Vec<&'a Sample>,
}

/// In order of appearance.
fn groups(family: &Family) -> Vec<Group<'_>> {
    let mut all: Vec<Group<'_>> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for sample in family.samples.iter() {
        let mut edge = None;
        let others = labels::pairs(&sample.labels).filter(|(name, value)| {
            let is_edge = matches!(
                (family.kind, sample.suffix, *name),
                (Kind::Histogram, "_bucket", "le") | (Kind::Summary, "", "quantile")
            );
            if is_edge {
                edge = value.parse().ok();
            }
            !is_edge
        });
        let identity = labels::identity(others);
        let at = *index.entry(identity).or_insert_with(|| {
            all.push(Group::default());
            all.len() - 1
        });
        if let Some(group) = all.get_mut(at) {
            match edge {
                Some(edge) => group.buckets.push((edge, sample)),
                None => group.rest.push(sample),
            }
        }
    }
    for group in &mut all {
        group.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    all
}

impl Group<'_> {
    /// Whether a strict parser takes it.
    fn is_whole(&self, kind: Kind) -> bool {
        let count = self
            .rest
            .iter()
            .find(|sample| sample.suffix == "_count")
            .map(|sample| sample.number());
        let sum = self.rest.iter().find(|sample| sample.suffix == "_sum");
        let positive = |sample: &&Sample| sample.number() >= 0.0;
        if count.is_some_and(|count| !(count >= 0.0 && count.is_finite())) {
            return false;
        }
        if kind == Kind::Summary {
            let quantiles = |(edge, _): &(f64, &Sample)| (0.0..=1.0).contains(edge);
            return self.buckets.iter().all(quantiles) && sum.is_none_or(positive);
        }
        let grows = self
            .buckets
            .iter()
            .map(|(_, sample)| sample.number())
            .is_sorted();
        let Some((edge, last)) = self.buckets.last() else {
            return false;
        };
        let negative_edges = self.buckets.first().is_some_and(|(edge, _)| *edge < 0.0);
        grows
            && *edge == f64::INFINITY
            && last.number().is_finite()
            && self.buckets.first().is_some_and(|(_, sample)| positive(sample))
            && count.is_none_or(|count| count.to_bits() == last.number().to_bits())
            // One is there only with the other.
            && sum.is_some() == count.is_some()
            && (negative_edges || sum.is_none_or(positive))
    }
}
