//! Kinds of `[gateway]`.

use std::num::NonZeroUsize;

use http::header::HeaderName;

use super::{Kind, items, quote};
use crate::config::value::{Mistake, Value};
use crate::discover::Target;

/// A list of `dns:URL` and `kubernetes:NAMESPACE/SERVICE:PORT`.
pub(in crate::config) struct Discoveries;
/// The name of a header, or the empty string for none.
pub(in crate::config) struct Header;
/// A whole number up to this, or 0 for no limit.
pub(in crate::config) struct Limit(pub(in crate::config) u64);

impl Kind<Vec<Target>> for Discoveries {
    fn read(&self, value: &Value) -> Result<Vec<Target>, Vec<Mistake>> {
        let mut found: Vec<Target> = Vec::new();
        let mut mistakes = Vec::new();
        for item in items(value) {
            match item.text().map(|text| text.trim().parse::<Target>()) {
                Some(Ok(source)) if found.contains(&source) => {
                    mistakes.extend(item.mistake(format!("{source} is listed twice")));
                }
                // Its certificate would have to be for each of the addresses.
                Some(Ok(source)) if source.tls_name().is_some() => mistakes
                    .extend(item.mistake("dns: only http:// can be discovered by its addresses")),
                Some(Ok(source)) => found.push(source),
                Some(Err(error)) => mistakes.extend(item.mistake(error.to_string())),
                None => mistakes.extend(item.unexpected(
                    "\"dns:http://host:port\" or \"kubernetes:NAMESPACE/SERVICE:PORT\"",
                )),
            }
        }
        if mistakes.is_empty() {
            Ok(found)
        } else {
            Err(mistakes)
        }
    }

    fn show(&self, field: &Vec<Target>) -> String {
        let shown: Vec<_> = field
            .iter()
            .map(|source| quote(&source.to_string()))
            .collect();
        format!("[{}]", shown.join(", "))
    }
}

impl Kind<Option<HeaderName>> for Header {
    fn read(&self, value: &Value) -> Result<Option<HeaderName>, Vec<Mistake>> {
        match value.text().map(str::trim) {
            Some("") => Ok(None),
            Some(name) => HeaderName::from_bytes(name.as_bytes())
                .map(Some)
                .map_err(|_| value.mistake(format!("{name:?} is no header name"))),
            None => Err(value.unexpected("the name of a header, or \"\" for none")),
        }
    }

    fn show(&self, field: &Option<HeaderName>) -> String {
        quote(field.as_ref().map_or("", HeaderName::as_str))
    }
}

impl Kind<Option<NonZeroUsize>> for Limit {
    fn read(&self, value: &Value) -> Result<Option<NonZeroUsize>, Vec<Mistake>> {
        super::Count(0, self.0).read(value).map(NonZeroUsize::new)
    }

    fn show(&self, field: &Option<NonZeroUsize>) -> String {
        field.map_or(0, NonZeroUsize::get).to_string()
    }
}
