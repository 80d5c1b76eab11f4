//! `[tenants]`: label definitions and the hash's key.

use http::header::HeaderName;

use super::super::Secret;
use super::super::value::{Mistake, Value};
use super::{Kind, items, quote};
use crate::tenants::{TenantLabel, TenantSource};

/// A list of `name=header:X-Team` or `name=api_key`.
pub(in crate::config) struct Labels;
/// A string that is not shown; empty for none.
pub(in crate::config) struct Hidden;

/// Labels that the families have already, or that Prometheus keeps for itself.
const TAKEN: &[&str] = &[
    "model",
    "endpoint",
    "stream",
    "error_type",
    "phase",
    "source",
    "finish_reason",
    "le",
    "quantile",
    "job",
    "instance",
];

impl Kind<Vec<TenantLabel>> for Labels {
    fn read(&self, value: &Value) -> Result<Vec<TenantLabel>, Vec<Mistake>> {
        let mut labels: Vec<TenantLabel> = Vec::new();
        let mut mistakes = Vec::new();
        for item in items(value) {
            match item.text().map(str::trim).map(parse) {
                Some(Ok(label)) if labels.iter().any(|seen| seen.name == label.name) => {
                    mistakes
                        .extend(item.mistake(format!("the label {} is there twice", label.name)));
                }
                Some(Ok(label)) => labels.push(label),
                Some(Err(why)) => mistakes.extend(item.mistake(why)),
                None => mistakes.extend(
                    item.unexpected("a label such as \"team=header:X-Team\" or \"key=api_key\""),
                ),
            }
        }
        if mistakes.is_empty() {
            Ok(labels)
        } else {
            Err(mistakes)
        }
    }

    fn show(&self, field: &Vec<TenantLabel>) -> String {
        let labels: Vec<_> = field
            .iter()
            .map(|label| match &label.source {
                TenantSource::Header(header) => quote(&format!("{}=header:{header}", label.name)),
                TenantSource::ApiKey => quote(&format!("{}=api_key", label.name)),
            })
            .collect();
        format!("[{}]", labels.join(", "))
    }
}

fn parse(text: &str) -> Result<TenantLabel, String> {
    let Some((name, source)) = text.split_once('=') else {
        return Err(format!(
            "{text:?} is no label: expected \"name=header:X-Team\" or \"name=api_key\""
        ));
    };
    let (name, source) = (name.trim(), source.trim());
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid || name.starts_with("__") {
        return Err(format!("{name:?} is no label name (letters, digits, _)"));
    }
    if TAKEN.contains(&name) {
        return Err(format!("the label {name} is taken"));
    }
    let source = match source.split_once(':') {
        Some(("header", header)) => TenantSource::Header(
            HeaderName::from_bytes(header.trim().as_bytes())
                .map_err(|_| format!("{header:?} is no header name"))?,
        ),
        None if source == "api_key" => TenantSource::ApiKey,
        _ => {
            return Err(format!(
                "{source:?} is no source: expected \"header:NAME\" or \"api_key\""
            ));
        }
    };
    Ok(TenantLabel {
        name: name.to_owned(),
        source,
    })
}

impl Kind<Option<Secret>> for Hidden {
    fn read(&self, value: &Value) -> Result<Option<Secret>, Vec<Mistake>> {
        match value.text() {
            Some("") => Ok(None),
            Some(text) if text.len() < 8 => {
                Err(value.mistake("is too short: at least 8 characters"))
            }
            Some(text) => Ok(Some(Secret::new(text))),
            None => Err(value.unexpected("a string")),
        }
    }

    fn show(&self, field: &Option<Secret>) -> String {
        quote(field.as_ref().map_or("", Secret::expose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_and_show() {
        let value = Value::words(["team=header:X-Team", "key = api_key"]);
        let labels = Labels.read(&value).unwrap();
        assert_eq!(
            Labels.show(&labels),
            r#"["team=header:x-team", "key=api_key"]"#
        );
        for wrong in [
            "team",
            "1a=api_key",
            "__a=api_key",
            "model=api_key",
            "a=header:b c",
            "a=cookie:b",
            "a=header",
        ] {
            assert!(Labels.read(&Value::words([wrong])).is_err(), "{wrong}");
        }
        assert!(
            Labels
                .read(&Value::words(["a=api_key", "a=header:b"]))
                .is_err()
        );
        assert_eq!(Labels.read(&Value::words([""; 0])).unwrap(), []);
    }
}
