//! The answer of `/v1/models`. It is upstream's, so anything may be in it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde::de::SeqAccess;

use crate::observe::json::{Count, Field, Object, Text, any};

/// Of a longer list the rest is left out.
const MOST: usize = 10_000;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// U+FFFD, as an escape.
const LONE: &str = "\\ufffd";

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
    let body = body.strip_prefix(BOM).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let wire = serde_json::from_str::<Wire>(&text);
    // One name that python wrote of a broken file name must not cost the others.
    let wire = wire.or_else(|_| serde_json::from_str(&whole(&text)));
    let mut models = wire.ok()?.data.0?;
    models.sort_by_key(|model| model.adapter);
    Some(models)
}

/// With another character for each half of a surrogate pair that stands alone: no string may have one.
fn whole(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        let (escape, after) = match (unit(escaped), escaped.chars().next()) {
            (Some((0xd800..=0xdbff, after)), _) => match after.strip_prefix('\\').and_then(unit) {
                Some((0xdc00..=0xdfff, after)) => (None, after),
                _ => (Some(LONE), after),
            },
            (Some((0xdc00..=0xdfff, after)), _) => (Some(LONE), after),
            (Some((_, after)), _) => (None, after),
            // Another backslash too: it escapes nothing then.
            (None, first) => {
                let length = first.map_or(0, char::len_utf8);
                (
                    None,
                    escaped
                        .split_at_checked(length)
                        .map_or("", |(_, after)| after),
                )
            }
        };
        match escape {
            Some(instead) => out.push_str(instead),
            None => {
                let length = escaped.len() - after.len();
                out.push('\\');
                out.push_str(escaped.get(..length).unwrap_or_default());
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The unit of UTF-16 behind a backslash, and what follows it.
fn unit(escaped: &str) -> Option<(u16, &str)> {
    let (digits, after) = escaped.strip_prefix('u')?.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, after))
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
    fn what_is_odd_in_one_name_costs_no_other() {
        let names = |body: &[u8]| -> Vec<String> {
            let models = read(body).unwrap();
            models.into_iter().map(|model| model.id).collect()
        };
        assert_eq!(names(b"\xef\xbb\xbf{\"data\":[{\"id\":\"a\"}]}"), ["a"]);
        let body = b"{\"data\":[{\"id\":\"\xff\"},{\"id\":\"a\"}]}";
        assert_eq!(names(body), ["\u{fffd}", "a"]);
        let body = br#"{"data":[{"id":"x\ud800"},{"id":"\udc00y","root":"\ud83d\ud83d\ude00\\u\\ud800\n"},{"id":"\ud83d\ude00"}]}"#;
        assert_eq!(names(body), ["x\u{fffd}", "\u{fffd}y", "\u{1f600}"]);
        let models = read(body).unwrap();
        assert_eq!(models[1].root, "\u{fffd}\u{1f600}\\u\\ud800\n");
        assert_eq!(whole("\\"), "\\");
        assert_eq!(whole("\\u12\\ud8"), "\\u12\\ud8");
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
