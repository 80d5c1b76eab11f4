//! The layers one over the other: defaults, file, environment, flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::{Errors, Place, Problem};
use super::key::Draft;
use super::keys::KEYS;
use super::origin::{Origin, Origins};
use super::value::Value;
use super::{Config, check, environment, file};

/// Everything that a configuration is made from, kept so that it can be read again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(String, OsString)>,
    flags: Vec<(&'static str, Vec<String>)>,
}

/// A configuration, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the process goes by.
    pub config: Config,
    /// Where each value came from.
    pub origins: Origins,
    sources: Sources,
}

/// A raw value on its way to its key.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its row in the table.
    pub(super) key: usize,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

// === impl Sources ===

impl Sources {
    /// The environment is an argument, since a test cannot set it. Others' variables are not kept.
    #[must_use]
    pub fn new(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            environment: environment::ours(environment),
            ..Self::default()
        }
    }

    /// `--config`; wins over `TOKENGLASS_CONFIG`.
    #[must_use]
    pub fn with_file(mut self, file: Option<PathBuf>) -> Self {
        self.file = file;
        self
    }

    /// The values of a flag, none where it was not given. A flag that no key in the table has sets nothing.
    #[must_use]
    pub fn with_flag(
        mut self,
        flag: &'static str,
        values: impl IntoIterator<Item = String>,
    ) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        if !values.is_empty() {
            self.flags.push((flag, values));
        }
        self
    }

    /// The file that is read. There is no search path: a file that is picked up from wherever one happens to stand is
    /// a surprise.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref().or_else(|| {
            let (_, path) = self
                .environment
                .iter()
                .find(|(variable, _)| variable == environment::CONFIG)?;
            Some(Path::new(path))
        })
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    ///
    /// All that is wrong, also in values that a higher layer hides: they would strike on the day it goes away.
    pub fn load(&self) -> Result<Loaded, Errors> {
        let mut problems = Vec::new();
        let mut entries = Vec::new();
        if let Some(path) = self.file() {
            entries.extend(file::read(path, &mut problems));
        }
        entries.extend(environment::read(&self.environment, &mut problems));
        entries.extend(self.flags());

        let mut draft = Draft::from(Config::default());
        let mut origins = Origins::defaults();
        let mut broken = Vec::new();
        for entry in entries {
            let index = entry.key;
            let mistakes = apply(entry, &mut draft, &mut origins);
            if !mistakes.is_empty() {
                broken.push(index);
                problems.extend(mistakes);
            }
        }
        let config = check::whole(draft, &origins, &broken, &mut problems);
        problems.sort_by(|a, b| a.place.order().cmp(&b.place.order()));
        Errors::unless_empty(problems)?;
        Ok(Loaded {
            config,
            origins,
            sources: self.clone(),
        })
    }

    fn flags(&self) -> impl Iterator<Item = Entry> {
        self.flags.iter().filter_map(|(flag, values)| {
            let index = KEYS.iter().position(|key| key.flag == Some(*flag))?;
            let value = match values.as_slice() {
                [one] => Value::word(one),
                many => Value::words(many),
            };
            Some(Entry {
                key: index,
                value,
                origin: Origin::Flag { flag },
            })
        })
    }
}

fn apply(entry: Entry, draft: &mut Draft, origins: &mut Origins) -> Vec<Problem> {
    let Entry {
        key: index,
        value,
        origin,
    } = entry;
    let Some(key) = KEYS.get(index) else {
        return Vec::new();
    };
    let Err(mistakes) = (key.write)(draft, &value) else {
        origins.set(index, origin);
        return Vec::new();
    };
    mistakes
        .into_iter()
        .map(|mistake| {
            if key.secret {
                mistake.hidden()
            } else {
                mistake
            }
        })
        .map(|mistake| match origin.place() {
            Place::File { path, at } => {
                let place = Place::File {
                    path,
                    at: mistake.at.or(at),
                };
                Problem::new(place, format!("{}: {}", key.path(), mistake.message))
            }
            // The variable's or flag's name says which key.
            place => Problem::new(place, mistake.message),
        })
        .collect()
}

// === impl Loaded ===

impl Loaded {
    /// The file that was read.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.sources.file()
    }

    /// Reads the same sources anew: the file may have changed, environment and flags are those of the start.
    ///
    /// # Errors
    ///
    /// As [`Sources::load`]; the caller keeps what it has.
    pub fn reload(&self) -> Result<Self, Errors> {
        self.sources.load()
    }
}
