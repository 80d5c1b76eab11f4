//! Whatever is read here, serde_json reads too, and the same.

use std::cell::Cell;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;
use crate::observe::json::{Count, Object, Text};
use crate::observe::wire::{ErrorBody, Usage};

thread_local! {
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Has serde_json read everything meanwhile.
pub(crate) fn without<T>(run: impl FnOnce() -> T) -> T {
    OFF.set(true);
    let done = run();
    OFF.set(false);
    done
}

pub(crate) fn is_off() -> bool {
    OFF.get()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Typed<'a> {
    #[serde(borrow, alias = "text")]
    content: Text<'a>,
    index: Count,
    usage: Object<Usage>,
    #[serde(borrow)]
    error: Object<ErrorBody<'a>>,
}

fn as_serde<'a, T: Deserialize<'a> + Debug>(json: &'a [u8]) -> bool {
    let Some(read) = plain::<T>(json) else {
        return false;
    };
    let slow = serde_json::from_slice::<T>(json);
    let slow = slow.unwrap_or_else(|error| panic!("{}: {error}", json.escape_ascii()));
    assert_eq!(
        format!("{read:?}"),
        format!("{slow:?}"),
        "{}",
        json.escape_ascii()
    );
    true
}

fn all_as_serde(json: &[u8]) {
    as_serde::<Value>(json);
    as_serde::<IgnoredAny>(json);
    as_serde::<Typed<'_>>(json);
    as_serde::<ErrorBody<'_>>(json);
    as_serde::<Vec<IgnoredAny>>(json);
}

#[test]
fn plain_documents_are_read() {
    let long = format!(r#"{{"content":"{}","index":1}}"#, "long ".repeat(40));
    for json in [
        r#"{}"#,
        r#" { "content" : "a" , "index" : 17 , "x" : [ ] , "usage" : { "prompt_tokens" : 0 } } "#,
        r#"{"content":"é\n\"\u00e9","index":1.5,"x":{"a":[1,-2.5e3,true,false,null,{"b":"\\"}]}}"#,
        r#"{"text":null,"index":"17","usage":[1,2],"error":{"error":null,"detail":"a","code":"400"}}"#,
        &long,
    ] {
        assert!(as_serde::<Typed<'_>>(json.as_bytes()), "{json}");
        assert!(as_serde::<Value>(json.as_bytes()), "{json}");
        assert!(as_serde::<IgnoredAny>(json.as_bytes()), "{json}");
    }
}

#[test]
fn what_is_wrong_is_left_to_serde_json() {
    let deep = "[".repeat(100) + &"]".repeat(100);
    let many = format!(r#"{{"x":{}}}"#, "[".repeat(63) + &"]".repeat(63));
    for json in [
        r#"{"index":1,"index":2}"#,
        r#"{"content":"a","text":"b"}"#,
        r#"{"a":1,}"#,
        r#"{"a":[1,]}"#,
        r#"{"a" 1}"#,
        r#"{,}"#,
        r#"{"a":01}"#,
        r#"{"index":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":-}"#,
        r#"{"index":1e999}"#,
        r#"{"a":nul}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"content":"\ud800"}"#,
        r#"{"a":[}]"#,
        r#"{"a":1}}"#,
        r#"{"a":1"#,
        "{\"a\":\"\n\"}",
        "{\"a\":\"long enough to be searched for its end at once, as it were\t\"}",
        "",
        "{",
        r#"{"#,
        r#"{"a":""#,
        r#"{"a":"\"#,
        r#"["a"]"#,
        &deep,
    ] {
        all_as_serde(json.as_bytes());
        assert!(plain::<Typed<'_>>(json.as_bytes()).is_none(), "{json}");
    }
    all_as_serde(many.as_bytes());
    all_as_serde(deep.as_bytes());
    all_as_serde(b"{\"a\":\"\xff\",\"\xff\":1}");
    all_as_serde(b"{\"content\":\"\xff\"}");
}

#[test]
fn what_engines_send_is_read_without_serde_json() {
    for body in crate::observe::tests::bodies() {
        for line in body.split(|byte| *byte == b'\n') {
            let json = line.strip_prefix(b"data: ").unwrap_or(line);
            if json.starts_with(b"{") && serde_json::from_slice::<Typed<'_>>(json).is_ok() {
                assert!(as_serde::<Typed<'_>>(json), "{}", json.escape_ascii());
                all_as_serde(json);
            }
        }
    }
}

/// JSON, or nearly.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "null|true|false|-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        "\"[ -~]{0,70}\"",
        "\"(\\\\[nrtbf/\"\\\\u]|\\PC|[a-f0-9]){0,12}\"",
        "[ -~]{0,3}",
    ];
    let key = || {
        proptest::sample::select(vec![
            "content",
            "text",
            "index",
            "usage",
            "error",
            "prompt_tokens",
            "code",
            "detail",
            "x",
            "é",
            "a\\n",
        ])
    };
    let space = || proptest::sample::select(vec!["", "", "", " ", "\n\t", "\r"]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let entry = (key(), space(), inner.clone(), space());
        let entry = entry.prop_map(|(key, a, value, b)| format!("{a}\"{key}\"{b}:{a}{value}{b}"));
        prop_oneof![
            proptest::collection::vec(entry, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
            proptest::collection::vec(inner, 0..6).prop_map(|all| format!("[{}]", all.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn documents_are_read_as_serde_json_reads_them(json in json()) {
        all_as_serde(json.as_bytes());
    }

    #[test]
    fn broken_ones_too(json in json(), at: prop::sample::Index, byte: u8, cut: bool) {
        let mut json = json.into_bytes();
        if !json.is_empty() {
            let at = at.index(json.len());
            json[at] = byte;
            if cut {
                json.truncate(at);
            }
        }
        all_as_serde(&json);
    }
}
