//! What is wrong with a configuration, and exactly where.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a mistake stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file; without a position it is the file itself, which could not be read.
    File {
        /// As it was given.
        path: PathBuf,
        /// Line and column, both from 1.
        at: Option<(usize, usize)>,
    },
    /// In the environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// On the command line.
    Flag {
        /// With its dashes.
        flag: &'static str,
    },
    /// In a default that this machine does not allow, or that clashes with what was set.
    Default,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, in one line; it begins with the key where there is one.
    pub message: String,
}

/// Every mistake that was found, never empty. `Display` is one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

/// The operating system's reason as a clause: no capital, no errno.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match text.find(" (os error ") {
        Some(end) => &text[..end],
        None => &text,
    };
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(rest).collect()
    })
}

// === impl Place ===

impl Place {
    /// As a person reads: the file from the top, the environment by name, flags.
    pub(super) fn order(&self) -> (u8, Option<(usize, usize)>, &str) {
        match self {
            Self::File { at, .. } => (0, *at, ""),
            Self::Environment { variable } => (1, None, variable),
            Self::Flag { flag } => (2, None, flag),
            Self::Default => (3, None, ""),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, at: None } => write!(f, "{}", path.display()),
            Self::File {
                path,
                at: Some((line, column)),
            } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Environment { variable } => f.write_str(variable),
            Self::Flag { flag } => f.write_str(flag),
            Self::Default => f.write_str("default"),
        }
    }
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

// === impl Errors ===

impl Errors {
    /// `Ok` where nothing was wrong, so that an empty list of errors cannot be made.
    pub(super) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }

    /// The file's from the top, then the environment's by name, then the flags'.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
