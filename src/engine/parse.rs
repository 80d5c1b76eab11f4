//! An exposition, read: text format 0.0.4 as python's client writes it, and what is near it.
//!
//! Types and helps may stand anywhere and families may be in pieces: all is read first and put together then.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use super::dropped::{Dropped, Reason};
use super::family::{Family, Sample};
use super::labels;
use super::line::{self, Line, Raw};
use crate::exposition::Kind;

/// What an exposition holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// In the order of their first lines, those that nobody has declared behind the others.
    pub families: Vec<Family>,
    /// What could not be kept.
    pub dropped: Dropped,
}

/// Reads an exposition; at most `max_series` of its series and as many families.
#[must_use]
pub fn parse(text: &[u8], max_series: usize) -> Parsed {
    let mut dropped = Dropped::default();
    let mut families = Families::default();
    let mut samples = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let read = std::str::from_utf8(line).ok().and_then(line::read);
        let accepted = match read {
            Some(Line::Empty) => Ok(()),
            Some(Line::Help(..) | Line::Type(..)) if families.all.len() >= max_series => {
                Err(Reason::TooMany)
            }
            Some(Line::Help(name, help)) => families.help(name, help),
            Some(Line::Type(name, kind)) => families.declare(name, kind),
            Some(Line::Sample(_)) if samples.len() >= max_series => Err(Reason::TooMany),
            Some(Line::Sample(sample)) => {
                samples.push(sample);
                Ok(())
            }
            None => Err(Reason::Malformed),
        };
        if let Err(reason) = accepted {
            dropped.add(reason, 1);
        }
    }
    for sample in samples {
        if let Err(reason) = families.add(&sample) {
            dropped.add(reason, 1);
        }
    }
    Parsed {
        families: families.finish(),
        dropped,
    }
}

/// Families under construction.
#[derive(Default)]
struct Families {
    all: Vec<Open>,
    index: HashMap<String, usize>,
    /// Hashes of the series that are there.
    seen: HashSet<u64>,
    hasher: RandomState,
}

struct Open {
    name: String,
    kind: Option<Kind>,
    help: Option<String>,
    samples: Vec<Sample>,
}

impl Families {
    fn help(&mut self, name: &str, help: &str) -> Result<(), Reason> {
        let family = self.get(name);
        if family.help.is_some() {
            return Err(Reason::Duplicate);
        }
        family.help = Some(tidy_help(help));
        Ok(())
    }

    fn declare(&mut self, name: &str, kind: &str) -> Result<(), Reason> {
        let kind = match kind {
            "counter" => Kind::Counter,
            // OpenMetrics' info and state set are gauges to the text format.
            "gauge" | "info" | "stateset" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "summary" => Kind::Summary,
            "untyped" | "unknown" | "gaugehistogram" => Kind::Untyped,
            _ => return Err(Reason::Malformed),
        };
        let family = self.get(name);
        if family.kind.is_some() {
            return Err(Reason::Duplicate);
        }
        family.kind = Some(kind);
        Ok(())
    }

    fn add(&mut self, raw: &Raw<'_>) -> Result<(), Reason> {
        let (at, suffix) = self.family_of(raw.name);
        let Some(family) = self.all.get_mut(at) else {
            return Err(Reason::Malformed);
        };
        let number = |label: &str| {
            raw.labels.iter().any(|(name, value)| {
                *name == label && line::number(value).is_some_and(|n| !n.is_nan())
            })
        };
        let has = |label: &str| raw.labels.iter().any(|(name, _)| *name == label);
        let whole = match (family.kind, suffix) {
            (Some(Kind::Histogram), "_bucket") => number("le"),
            (Some(Kind::Histogram), "") => false,
            (Some(Kind::Summary), "") => number("quantile"),
            // A sum of one bucket is nothing that there is.
            (Some(Kind::Histogram), _) => !has("le"),
            (Some(Kind::Summary), _) => !has("quantile"),
            _ => true,
        };
        if !whole {
            return Err(Reason::Malformed);
        }
        let identity = labels::identity(raw.labels.iter().copied());
        if !self.seen.insert(self.hasher.hash_one((raw.name, identity))) {
            return Err(Reason::Duplicate);
        }
        family.samples.push(Sample {
            suffix,
            labels: labels::write(raw.labels.iter().copied()).into(),
            value: raw.value.into(),
            time: raw.time,
        });
        Ok(())
    }

    /// Which family a sample belongs to, and with which suffix.
    fn family_of(&mut self, name: &str) -> (usize, &'static str) {
        if let Some((at, family)) = self.find(name)
            && family.kind.is_some()
        {
            return (at, "");
        }
        for (suffix, kinds) in [
            ("_bucket", &[Kind::Histogram][..]),
            ("_sum", &[Kind::Histogram, Kind::Summary]),
            ("_count", &[Kind::Histogram, Kind::Summary]),
        ] {
            if let Some((at, family)) = name.strip_suffix(suffix).and_then(|stem| self.find(stem))
                && family.kind.is_some_and(|kind| kinds.contains(&kind))
            {
                return (at, suffix);
            }
        }
        // As OpenMetrics declares them: without the suffix that the samples have.
        for (suffix, kinds, kind) in [
            ("_total", &[Kind::Counter][..], Kind::Counter),
            ("_info", &[Kind::Gauge], Kind::Gauge),
            (
                "_created",
                &[Kind::Counter, Kind::Histogram, Kind::Summary],
                Kind::Gauge,
            ),
        ] {
            let Some(stem) = name.strip_suffix(suffix) else {
                continue;
            };
            let total;
            let declared = match self.find(stem) {
                Some(found) => Some(found),
                None => {
                    total = format!("{stem}_total");
                    self.find(&total)
                }
            };
            let Some((at, family)) = declared else {
                continue;
            };
            if !family.kind.is_some_and(|kind| kinds.contains(&kind)) {
                continue;
            }
            let help = family.help.clone();
            if suffix != "_created" && family.samples.is_empty() && family.name == stem {
                self.rename(at, name);
                return (at, "");
            }
            let at = self.at(name);
            if let Some(family) = self.all.get_mut(at) {
                family.kind = Some(kind);
                family.help = family.help.take().or(help);
            }
            return (at, "");
        }
        (self.at(name), "")
    }

    fn find(&self, name: &str) -> Option<(usize, &Open)> {
        let at = *self.index.get(name)?;
        let family = self.all.get(at)?;
        Some((at, family))
    }

    fn rename(&mut self, at: usize, name: &str) {
        let Some(family) = self.all.get_mut(at) else {
            return;
        };
        self.index.remove(&family.name);
        name.clone_into(&mut family.name);
        // Somebody may have said a help for it and nothing else.
        if let Some(other) = self.index.insert(name.to_owned(), at)
            && let Some(other) = self.all.get_mut(other)
        {
            other.name.clear();
        }
    }

    fn at(&mut self, name: &str) -> usize {
        match self.index.entry(name.to_owned()) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let at = self.all.len();
                self.all.push(Open {
                    name: name.to_owned(),
                    kind: None,
                    help: None,
                    samples: Vec::new(),
                });
                *entry.insert(at)
            }
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the index only holds places that are there"
    )]
    fn get(&mut self, name: &str) -> &mut Open {
        let at = self.at(name);
        &mut self.all[at]
    }

    fn finish(self) -> Vec<Family> {
        self.all
            .into_iter()
            // A help alone is no family.
            .filter(|open| {
                !open.name.is_empty() && (open.kind.is_some() || !open.samples.is_empty())
            })
            .map(|open| Family {
                name: open.name,
                kind: open.kind.unwrap_or(Kind::Untyped),
                help: open.help,
                samples: open.samples.into(),
            })
            .collect()
    }
}

/// As it was written, unless it has an escape that not every parser takes.
fn tidy_help(help: &str) -> String {
    let mut out = String::with_capacity(help.len());
    let mut rest = help.chars().peekable();
    while let Some(c) = rest.next() {
        out.push(c);
        if c == '\\' {
            match rest.next_if(|next| matches!(next, '\\' | 'n')) {
                Some(escaped) => out.push(escaped),
                None => out.push('\\'),
            }
        }
    }
    out
}
