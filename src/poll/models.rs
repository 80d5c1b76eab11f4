//! The answer of `/v1/models`. It is upstream's, so anything may be in it.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::SeqAccess;

use crate::observe::json::{Count, Field, Object, Text, any};

/// Of a longer list the rest is left out.
const MOST: usize = 10_000;

/// One model, or a LoRA adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What a request calls it.
    pub id: String,
    /// Empty if not said.
    pub owned_by: String,
    /// Where its weights come from. Empty if not said.
    pub root: String,
    /// It is an adapter to another model.
    pub adapter: bool,
    /// Its longest context.
    pub max_model_len: Option<u64>,
}

#[derive(Deserialize)]
struct Wire {
    data: List,
}

/// None if it is no list.
#[derive(Default)]
struct List(Option<Vec<Model>>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    owned_by: Text<'a>,
    #[serde(borrow)]
    root: Text<'a>,
    #[serde(borrow)]
    parent: Text<'a>,
    max_model_len: Count,
}

/// Reads a list, each name once, models before adapters. None if it is not one.
pub(super) fn read(body: &[u8]) -> Option<Vec<Model>> {
    let wire: Wire = serde_json::from_slice(body).ok()?;
    let mut models = wire.data.0?;
    models.sort_by_key(|model| model.adapter);
    Some(models)
}

impl<'de> Field<'de> for List {
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut models = Vec::new();
        let mut names = HashSet::new();
        while let Some(entry) = list.next_element::<Object<Entry<'de>>>()? {
            let Some(entry) = entry.0.filter(|entry| !entry.id.is_empty()) else {
                continue;
            };
            if models.len() < MOST && names.insert(entry.id.as_str().to_owned()) {
                models.push(Model {
                    id: entry.id.as_str().to_owned(),
                    owned_by: entry.owned_by.as_str().to_owned(),
                    root: entry.root.as_str().to_owned(),
                    adapter: !entry.parent.is_empty(),
                    max_model_len: entry.max_model_len.0,
                });
            }
        }
        Ok(Self(Some(models)))
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_adapters_come_last() {
        let body = br#"{"object":"list","data":[
            {"id":"lora","object":"model","owned_by":"vllm","root":"/l","parent":"tiny","max_model_len":null},
            {"id":"tiny","owned_by":"vllm","root":"/srv/tiny","parent":null,"max_model_len":2048,"permission":[{"id":"p"}]},
            {"id":"tiny","root":"again"}, {"id":7}, {"id":""}, {}, 5, null]}"#;
        let models = read(body).unwrap();
        assert_eq!(models.len(), 2);
        assert_eq!(models[0].id, "tiny");
        assert_eq!(models[0].root, "/srv/tiny");
        assert_eq!(models[0].max_model_len, Some(2048));
        assert!(!models[0].adapter);
        assert_eq!((&*models[1].id, models[1].max_model_len), ("lora", None));
        assert!(models[1].adapter);
    }

    #[test]
    fn what_is_no_list_is_none() {
        for body in [
            "",
            "no json",
            "[]",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{"id":"a"}}"#,
            r#"{"data":[{"id":"a"}"#,
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
        assert_eq!(read(br#"{"data":[]}"#), Some(Vec::new()));
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let mut body = String::from(r#"{"data":[{"id":"a"}"#);
        for number in 0..20_000 {
            body.push_str(&format!(r#",{{"id":"m{number}"}}"#));
        }
        body.push_str("]}");
        assert_eq!(read(body.as_bytes()).map(|models| models.len()), Some(MOST));
    }
}
