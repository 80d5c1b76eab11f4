//! Which names may become label values.

use std::collections::{BTreeMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The value for everything that is unknown or too much.
pub const OTHER: &str = "other";

/// A longer value is nobody's name.
pub const LONGEST: usize = 256;

/// Names that upstreams may list in all.
const LISTED: usize = 10_000;

/// The values of one label, up to a cap. Of models those that upstream has listed or served: a client can send any
/// string as `model`; only upstream can make one known.
#[derive(Debug)]
pub struct Values {
    names: RwLock<Names>,
    max: usize,
}

#[derive(Debug, Default)]
struct Names {
    /// They have a place.
    known: HashSet<Box<str>>,
    /// They get one when they are asked for: of 500 adapters that are listed, most may never be used.
    listed: HashSet<Box<str>>,
    /// What each upstream lists.
    lists: BTreeMap<usize, HashSet<Box<str>>>,
}

impl Values {
    /// At most `max` names.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            names: RwLock::default(),
            max,
        }
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.read().known.contains(name)
    }

    /// Whether upstream lists it, with or without a place.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        self.read().listed.contains(name)
    }

    /// Whether it may be one, which fails once the cap is reached.
    pub fn admit(&self, name: &str) -> bool {
        {
            let names = self.read();
            if names.known.contains(name) {
                return true;
            }
            if names.known.len() >= self.max {
                return false;
            }
        }
        let mut names = self.write();
        names.known.contains(name)
            || (names.known.len() < self.max && names.known.insert(name.into()))
    }

    /// Whether it may be one though only a client has said it: it is one, or upstream lists it and there is a place.
    pub fn admit_listed(&self, name: &str) -> bool {
        {
            let names = self.read();
            if names.known.contains(name) {
                return true;
            }
            if !names.listed.contains(name) {
                return false;
            }
        }
        self.admit(name)
    }

    /// An upstream lists these, and no longer what it listed before. Names beyond a bound are left out.
    pub fn list<'a>(&self, upstream: usize, listed: impl Iterator<Item = &'a str>) {
        let new: HashSet<Box<str>> = listed
            .filter(|name| name.len() <= LONGEST)
            .take(LISTED)
            .map(Box::from)
            .collect();
        if self.read().lists.get(&upstream) == Some(&new) {
            return;
        }
        let mut names = self.write();
        names.lists.insert(upstream, new);
        names.list();
    }

    /// An upstream is gone, and so is what it lists.
    pub fn unlist(&self, upstream: usize) {
        let mut names = self.write();
        if names.lists.remove(&upstream).is_some() {
            names.list();
        }
    }

    /// Nothing is shown of it any more: its place is free.
    pub fn forget(&self, name: &str) {
        self.write().known.remove(name);
    }

    fn read(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn list(&mut self) {
        let all = self.lists.values().flatten();
        self.listed = all.take(LISTED).cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_holds_and_known_names_stay() {
        let names = Values::new(2);
        assert!(!names.knows("a"));
        assert!(names.admit("a") && names.admit("b") && names.admit("a"));
        assert!(!names.admit("c") && !names.knows("c"));
        assert!(names.knows("b"));
    }

    #[test]
    fn a_listed_name_takes_a_place_only_when_it_is_asked_for() {
        let names = Values::new(2);
        let many: Vec<String> = (0..500).map(|number| format!("lora-{number}")).collect();
        names.list(0, many.iter().map(String::as_str));
        assert!(names.lists("lora-499") && !names.knows("lora-499"));
        assert!(names.admit_listed("lora-499") && names.admit("served"));
        assert!(!names.admit_listed("lora-1"), "the cap holds");
        assert!(!names.admit_listed("made-up"));
        names.forget("lora-499");
        assert!(names.admit_listed("lora-1") && !names.admit_listed("lora-499"));
    }

    #[test]
    fn what_an_upstream_lists_no_longer_is_gone_unless_another_does() {
        let names = Values::new(9);
        names.list(0, ["a", "b"].into_iter());
        names.list(1, ["b"].into_iter());
        names.list(0, [].into_iter());
        assert!(!names.admit_listed("a") && names.admit_listed("b"));
        names.list(1, ["b", "c"].into_iter());
        names.unlist(1);
        assert!(!names.admit_listed("c"));
        assert!(names.admit_listed("b"), "its series are still there");
        names.list(0, [&*"x".repeat(257)].into_iter());
        assert!(!names.lists(&"x".repeat(257)));
    }
}
