//! Which model names may become label values.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// The value for everything that is unknown or too much.
pub const OTHER: &str = "other";

/// Names that upstream has listed or served. A client can send any string as `model`; only upstream can make one known.
#[derive(Debug)]
pub struct ModelNames {
    known: RwLock<HashSet<Box<str>>>,
    max: usize,
}

impl ModelNames {
    /// At most `max` names.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            known: RwLock::default(),
            max,
        }
    }

    /// Whether upstream is known to serve it.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }

    /// Upstream has served or listed it: whether it may be a label, which fails once the cap is reached.
    pub fn admit(&self, name: &str) -> bool {
        if self.knows(name) {
            return true;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.contains(name) || (known.len() < self.max && known.insert(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_holds_and_known_names_stay() {
        let names = ModelNames::new(2);
        assert!(!names.knows("a"));
        assert!(names.admit("a") && names.admit("b") && names.admit("a"));
        assert!(!names.admit("c") && !names.knows("c"));
        assert!(names.knows("b"));
    }
}
