//! Who is asking: tenant labels from a header or the API key, through a table or a keyed hash, never raw.
//!
//! A label's values are bounded: what is in no table and not hashed is `other`, and so is everything over the cap.

mod map;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use ring::{digest, hmac};
use smallvec::SmallVec;

pub use map::{MapError, TenantMap};

use crate::metrics::labels::{OTHER, Values};

/// The value of a request that names no tenant.
pub const NONE: &str = "none";
/// Bytes of the keyed hash that are shown: enough that 200 tenants do not meet, too few to be worth attacking.
const SHOWN: usize = 6;

/// One label: its name, and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantLabel {
    /// The label on `/metrics`.
    pub name: String,
    /// Where the value comes from.
    pub source: TenantSource,
}

/// Where a tenant's identity is in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSource {
    /// The value of a header.
    Header(HeaderName),
    /// `Authorization: Bearer …`, or `x-api-key` as Anthropic's clients send it.
    ApiKey,
}

/// The values of one request, in the order of the labels. Empty where no label is configured.
pub type TenantValues = SmallVec<[Arc<str>; 1]>;

/// Resolves requests to label values.
#[derive(Debug)]
pub struct Tenants {
    labels: Vec<Label>,
    map: RwLock<Arc<TenantMap>>,
    map_file: Option<PathBuf>,
    key: Option<hmac::Key>,
}

#[derive(Debug)]
struct Label {
    label: TenantLabel,
    values: Values,
}

impl Tenants {
    /// From the configuration; the table is read from `map_file`.
    ///
    /// # Errors
    /// [`MapError`] if the table cannot be read.
    pub fn new(settings: &crate::config::Tenants) -> Result<Self, MapError> {
        let map = settings
            .map_file
            .as_deref()
            .map(TenantMap::read)
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            labels: settings
                .labels
                .iter()
                .map(|label| Label {
                    label: label.clone(),
                    values: Values::new(settings.max_values),
                })
                .collect(),
            map: RwLock::new(Arc::new(map)),
            map_file: settings.map_file.clone(),
            key: settings
                .hash_key
                .as_ref()
                .map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes())),
        })
    }

    /// Whether there is nothing to resolve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| label.label.name.as_str())
    }

    /// The file of the table, to be looked at for changes.
    #[must_use]
    pub fn map_file(&self) -> Option<&std::path::Path> {
        self.map_file.as_deref()
    }

    /// Reads the table again.
    ///
    /// # Errors
    /// [`MapError`]; the old table stays in force.
    pub fn reload(&self) -> Result<(), MapError> {
        if let Some(file) = &self.map_file {
            let map = Arc::new(TenantMap::read(file)?);
            *self.map.write().unwrap_or_else(PoisonError::into_inner) = map;
        }
        Ok(())
    }

    /// The label values of a request. Calls `overflow` with the label's name for each value over its cap.
    pub fn resolve(&self, headers: &HeaderMap, mut overflow: impl FnMut(&str)) -> TenantValues {
        if self.labels.is_empty() {
            return TenantValues::new();
        }
        let map = Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner));
        self.labels
            .iter()
            .map(|Label { label, values }| {
                let Some(raw) = raw(headers, &label.source) else {
                    return Arc::from(NONE);
                };
                let named = map.name(&label.name, raw).or_else(|| self.hash(raw));
                match named {
                    Some(name) if values.admit(&name) => name,
                    Some(_) => {
                        overflow(&label.name);
                        Arc::from(OTHER)
                    }
                    None => Arc::from(OTHER),
                }
            })
            .collect()
    }

    /// Values whose series are gone make room for others.
    pub fn forget(&self, label: usize, value: &str) {
        if let Some(label) = self.labels.get(label) {
            label.values.forget(value);
        }
    }

    fn hash(&self, raw: &[u8]) -> Option<Arc<str>> {
        let tag = hmac::sign(self.key.as_ref()?, raw);
        let shown = tag.as_ref().get(..SHOWN).unwrap_or_default();
        Some(Arc::from(hex(shown)))
    }
}

fn raw<'a>(headers: &'a HeaderMap, source: &TenantSource) -> Option<&'a [u8]> {
    let value = match source {
        TenantSource::Header(name) => headers.get(name)?.as_bytes(),
        TenantSource::ApiKey => match headers.get(AUTHORIZATION) {
            Some(value) => bearer(value.as_bytes()),
            None => headers.get("x-api-key")?.as_bytes(),
        },
    };
    let value = value.trim_ascii();
    (!value.is_empty()).then_some(value)
}

/// The token behind the scheme, whose case does not matter (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> &[u8] {
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
        _ => value,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in hex, as the table may have its keys.
fn fingerprint(raw: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, raw).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn tenants(hash: bool, map: &str, max: usize) -> Tenants {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tenants.toml");
        std::fs::write(&file, map).unwrap();
        Tenants::new(&crate::config::Tenants {
            labels: vec![
                TenantLabel {
                    name: "team".to_owned(),
                    source: TenantSource::Header(HeaderName::from_static("x-team")),
                },
                TenantLabel {
                    name: "key".to_owned(),
                    source: TenantSource::ApiKey,
                },
            ],
            map_file: Some(file),
            hash_key: hash.then(|| Secret::new("pepper")),
            max_values: max,
        })
        .unwrap()
    }

    fn values(tenants: &Tenants, lines: &[(&'static str, &str)]) -> (Vec<String>, usize) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let mut over = 0;
        let values = tenants.resolve(&headers, |_| over += 1);
        (values.iter().map(ToString::to_string).collect(), over)
    }

    #[test]
    fn through_the_table_or_the_hash_and_never_raw() {
        let map = format!(
            "[team]\n\"7\" = \"search\"\n[key]\n\"sha256:{}\" = \"alice\"\n",
            fingerprint(b"sk-1")
        );
        let plain = tenants(false, &map, 10);
        assert_eq!(values(&plain, &[]).0, ["none", "none"]);
        assert_eq!(
            values(&plain, &[("x-team", "7"), ("authorization", "bEARER sk-1")]).0,
            ["search", "alice"]
        );
        assert_eq!(
            values(&plain, &[("x-team", "8"), ("x-api-key", "sk-1")]).0,
            ["other", "alice"]
        );
        let hashed = tenants(true, &map, 10);
        let (first, _) = values(
            &hashed,
            &[("x-team", "8"), ("authorization", "Bearer sk-2")],
        );
        assert_eq!(first[0].len(), 2 * SHOWN);
        assert!(!first.concat().contains("sk-2"));
        assert_eq!(
            values(&hashed, &[("x-team", "8"), ("x-api-key", "sk-2")]).0,
            first,
            "stable"
        );
        assert_eq!(
            values(&hashed, &[("x-team", "7")]).0[0],
            "search",
            "the table first"
        );
    }

    #[test]
    fn the_cap_holds_and_room_can_be_made() {
        let tenants = tenants(true, "", 2);
        let one = |n: usize| values(&tenants, &[("x-team", &n.to_string())]);
        let first = one(0).0[0].clone();
        one(1);
        assert_eq!(one(2), (vec!["other".to_owned(), "none".to_owned()], 1));
        assert_eq!(one(0).0[0], first, "known ones stay");
        tenants.forget(0, &first);
        assert_ne!(one(2).0[0], "other");
    }
}
