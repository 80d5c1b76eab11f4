//! Where each value of a configuration came from.

use std::fmt;
use std::path::PathBuf;

use super::error::Place;
use super::keys::KEYS;

/// The layer that a value came from, lowest first: a later one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File {
        /// As it was given.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An environment variable.
    Environment {
        /// The variable.
        variable: String,
    },
    /// A flag.
    Flag {
        /// With its dashes.
        flag: &'static str,
    },
}

/// The origin of every key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

// === impl Origin ===

impl Origin {
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Default => Place::Default,
            Self::File { path, line, column } => Place::File {
                path: path.clone(),
                at: Some((*line, *column)),
            },
            Self::Environment { variable } => Place::Environment {
                variable: variable.clone(),
            },
            Self::Flag { flag } => Place::Flag { flag },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, .. } => write!(f, "file {}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

// === impl Origins ===

impl Origins {
    pub(super) fn defaults() -> Self {
        Self(vec![Origin::Default; KEYS.len()])
    }

    pub(super) fn set(&mut self, key: usize, origin: Origin) {
        if let Some(slot) = self.0.get_mut(key) {
            *slot = origin;
        }
    }

    pub(super) fn at(&self, key: usize) -> &Origin {
        self.0.get(key).unwrap_or(&Origin::Default)
    }

    /// Of a key by its dotted name, `server.listen`. A name that is no key has its value from nowhere: `Default`.
    #[must_use]
    pub fn of(&self, key: &str) -> &Origin {
        KEYS.iter()
            .position(|k| k.path() == key)
            .map_or(&Origin::Default, |i| self.at(i))
    }
}
