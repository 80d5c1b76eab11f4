//! A container's variables, as far as the specification says them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::word::reference;

/// The variables of one container.
#[derive(Clone, Debug)]
pub(super) struct Environment<'a> {
    entries: Vec<(&'a str, &'a Value)>,
    /// `envFrom`: any name may be set.
    open: bool,
    /// Names that a script sets for itself.
    assigned: BTreeSet<String>,
}

/// What is known of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Its value.
    Known(String),
    /// It is not set.
    Absent,
    /// It comes from elsewhere: a Secret, a field, `envFrom`, the script.
    Unknown,
}

/// How deep values may refer to others.
const DEPTH: usize = 8;

impl<'a> Environment<'a> {
    pub(super) fn of(container: &'a Value) -> Self {
        let entries = container.get("env").and_then(Value::as_array);
        let entries = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some((entry.get("name")?.as_str()?, entry)));
        let open = container
            .get("envFrom")
            .and_then(Value::as_array)
            .is_some_and(|from| !from.is_empty());
        Self {
            entries: entries.collect(),
            open,
            assigned: BTreeSet::new(),
        }
    }

    /// As a script in it has it: some it sets itself, and others may come from the image, unless that sets none.
    pub(super) fn within(&self, assigned: BTreeSet<String>, bare_image: bool) -> Self {
        Self {
            assigned,
            open: self.open || !bare_image,
            ..self.clone()
        }
    }

    pub(super) fn get(&self, name: &str) -> Lookup {
        if self.assigned.contains(name) {
            return Lookup::Unknown;
        }
        self.at(name, self.entries.len(), DEPTH)
    }

    /// The entry itself: where it comes from.
    pub(super) fn entry(&self, name: &str) -> Option<&'a Value> {
        self.entries
            .iter()
            .rev()
            .find(|(given, _)| *given == name)
            .map(|(_, entry)| *entry)
    }

    /// As the entries before `end` have it; a value may use those before its own.
    fn at(&self, name: &str, end: usize, depth: usize) -> Lookup {
        let before = self.entries.get(..end).unwrap_or_default();
        let Some((place, (_, entry))) = before
            .iter()
            .enumerate()
            .rev()
            .find(|(_, (given, _))| *given == name)
        else {
            return if self.open {
                Lookup::Unknown
            } else {
                Lookup::Absent
            };
        };
        if entry.get("valueFrom").is_some_and(|from| !from.is_null()) {
            return Lookup::Unknown;
        }
        match entry.get("value") {
            None | Some(Value::Null) => Lookup::Known(String::new()),
            Some(Value::String(value)) => self.expand(value, place, depth),
            // The API server takes strings only; what a number was meant to be is plain.
            Some(Value::Number(value)) => Lookup::Known(value.to_string()),
            Some(_) => Lookup::Unknown,
        }
    }

    fn expand(&self, value: &str, place: usize, depth: usize) -> Lookup {
        let Some(depth) = depth.checked_sub(1) else {
            return Lookup::Unknown;
        };
        let mut text = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('$') {
            let (before, dollar) = rest.split_at(at);
            text.push_str(before);
            if let Some(after) = dollar.strip_prefix("$$") {
                text.push('$');
                rest = after;
                continue;
            }
            match reference(dollar).map(|(name, after)| (self.at(name, place, depth), after)) {
                Some((Lookup::Known(inner), after)) => {
                    text.push_str(&inner);
                    rest = after;
                }
                Some((Lookup::Unknown, _)) => return Lookup::Unknown,
                Some((Lookup::Absent, _)) | None => {
                    text.push('$');
                    rest = dollar.get(1..).unwrap_or_default();
                }
            }
        }
        text.push_str(rest);
        Lookup::Known(text)
    }
}
