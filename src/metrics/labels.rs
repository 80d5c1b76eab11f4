//! Which names may become label values.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// The value for everything that is unknown or too much.
pub const OTHER: &str = "other";

/// The values of one label, up to a cap. Of models those that upstream has listed or served: a client can send any
/// string as `model`; only upstream can make one known.
#[derive(Debug)]
pub struct Values {
    known: RwLock<HashSet<Box<str>>>,
    max: usize,
}

impl Values {
    /// At most `max` names.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            known: RwLock::default(),
            max,
        }
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }

    /// Whether it may be one, which fails once the cap is reached.
    pub fn admit(&self, name: &str) -> bool {
        if self.knows(name) {
            return true;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.contains(name) || (known.len() < self.max && known.insert(name.into()))
    }

    /// Nothing is shown of it any more: its place is free.
    pub fn forget(&self, name: &str) {
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
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
}
