//! The table from what a request carries to what may be shown.
//!
//! TOML, a section a label: `[team]` then `"raw value" = "name"`. An API key need not stand there in the clear:
//! `"sha256:HEX" = "name"` does as well.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::fingerprint;

/// Longest label value that a table may give.
const MAX_NAME: usize = 128;

/// Label → raw value → name.
#[derive(Debug, Default)]
pub struct TenantMap(HashMap<String, Names>);

#[derive(Debug, Default)]
struct Names {
    plain: HashMap<Vec<u8>, Arc<str>>,
    /// By SHA-256; hashing each request's value is saved where there are none.
    hashed: HashMap<String, Arc<str>>,
}

/// Why a table cannot be used. Its content is not repeated: there may be keys in it.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No such file, no permission.
    #[error("cannot read the tenant table {file}")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not a TOML table of tables of strings.
    #[error(
        "the tenant table {file} is not valid{place}: expected [label] sections with \"value\" = \"name\""
    )]
    Syntax {
        /// The file.
        file: String,
        /// ` (line N)`, where it is known.
        place: String,
    },
    /// A name that is empty or too long.
    #[error(
        "the tenant table {file} has a name in [{label}] that is empty or longer than 128 bytes"
    )]
    Name {
        /// The file.
        file: String,
        /// The label's section.
        label: String,
    },
}

impl TenantMap {
    /// Reads a table.
    ///
    /// # Errors
    /// [`MapError`] with the file's name.
    pub fn read(path: &Path) -> Result<Self, MapError> {
        let file = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(source) => return Err(MapError::Read { file, source }),
        };
        let sections: HashMap<String, HashMap<String, String>> =
            toml::from_str(&text).map_err(|error| {
                let line = error
                    .span()
                    .and_then(|span| text.get(..span.start))
                    .map(|before| before.lines().count().max(1));
                MapError::Syntax {
                    file: file.clone(),
                    place: line.map_or_else(String::new, |line| format!(" (line {line})")),
                }
            })?;
        let mut map = HashMap::new();
        for (label, rows) in sections {
            let mut names = Names::default();
            for (raw, name) in rows {
                if name.is_empty() || name.len() > MAX_NAME {
                    return Err(MapError::Name { file, label });
                }
                let name = Arc::from(name);
                match raw.strip_prefix("sha256:") {
                    Some(hash) => names.hashed.insert(hash.to_ascii_lowercase(), name),
                    None => names.plain.insert(raw.into_bytes(), name),
                };
            }
            map.insert(label, names);
        }
        Ok(Self(map))
    }

    /// What `raw` is called.
    #[must_use]
    pub fn name(&self, label: &str, raw: &[u8]) -> Option<Arc<str>> {
        let names = self.0.get(label)?;
        if let Some(name) = names.plain.get(raw) {
            return Some(Arc::clone(name));
        }
        if names.hashed.is_empty() {
            return None;
        }
        names.hashed.get(&fingerprint(raw)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_table_says_where_and_quotes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        assert!(matches!(TenantMap::read(&file), Err(MapError::Read { .. })));
        std::fs::write(&file, "[key]\n\"a\" = \"b\"\n\"sk-secret\" = 7\n").unwrap();
        let error = TenantMap::read(&file).unwrap_err().to_string();
        assert!(
            error.contains("t.toml") && error.contains("line") && !error.contains("sk-secret"),
            "{error}"
        );
        std::fs::write(&file, "[key]\n\"a\" = \"\"\n").unwrap();
        assert!(matches!(TenantMap::read(&file), Err(MapError::Name { .. })));
    }
}
