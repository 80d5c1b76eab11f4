//! JSON without its long strings, for who wants to know what stands beside them.
//!
//! A prompt is most of a large request, and all that the parser does with it is to pass over it, byte by byte. memchr
//! takes 32 at a time; what is left is parsed.

/// A shorter body is parsed as it is.
const LARGE: usize = 8 * 1024;

/// A longer string is left out. No name that is measured by is as long.
const LONG: usize = 1024;

/// The text with nothing in its long strings; none if it is parsed faster as it is. Whether what was in them is JSON
/// nobody asks any more: upstream does.
pub(super) fn hollow(json: &[u8]) -> Option<Vec<u8>> {
    if json.len() < LARGE {
        return None;
    }
    let mut kept = Vec::new();
    // Up to where it is in `kept`, if it is to be, and where the search goes on.
    let (mut copied, mut at) = (0, 0);
    while let Some(open) = memchr::memchr(b'"', json.get(at..)?) {
        let start = at + open + 1;
        let end = start + string(json.get(start..)?)?;
        if end - start > LONG {
            kept.extend_from_slice(json.get(copied..start)?);
            copied = end;
        }
        at = end + 1;
        if at > LARGE && 2 * (kept.len() + (at - copied)) > at {
            // Many short strings, each of which costs more to be found than to be parsed.
            return None;
        }
    }
    kept.extend_from_slice(json.get(copied..)?);
    (2 * kept.len() <= json.len()).then_some(kept)
}

/// How long the string is that begins here.
fn string(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', rest.get(at..)?)?;
        if rest.get(at) == Some(&b'"') {
            return Some(at);
        }
        // Behind what is escaped.
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// What should be left of it.
    fn shortened(value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let written = json!(text).to_string().len() - 2;
                json!(if written > LONG { "" } else { text })
            }
            Value::Array(list) => list.iter().map(shortened).collect(),
            Value::Object(object) => {
                let fields = object.iter();
                Value::Object(
                    fields
                        .map(|(key, value)| (key.clone(), shortened(value)))
                        .collect(),
                )
            }
            other => other.clone(),
        }
    }

    #[test]
    fn what_is_worth_it() {
        let long = "x".repeat(2 * LARGE);
        assert_eq!(
            hollow(json!({"a": long, "b": 1}).to_string().as_bytes()).unwrap(),
            br#"{"a":"","b":1}"#
        );
        for kept in [
            json!({"a": "x".repeat(2 * LONG)}).to_string(),
            json!({"a": vec![7; LARGE]}).to_string(),
            json!({"a": vec!["word"; LARGE], "b": long}).to_string(),
            format!("{{\"a\":\"{long}"),
            format!("{{\"a\":\"{long}\\"),
            format!("{{\"a\":\"{long}\\\""),
        ] {
            assert_eq!(hollow(kept.as_bytes()), None, "{kept:.100}");
        }
    }

    proptest! {
        #[test]
        fn only_long_strings_are_gone(
            texts in proptest::collection::vec("([a-z]|\\\\|\"|\n|é|日|[ -~]){0,40}", 0..4),
            times in 1..400usize,
        ) {
            let mut value = json!({"texts": texts, "n": [1, {"a\"b\\": null}], "last": true});
            value["long"] = json!(format!("{}{}", texts.concat().repeat(times), "z".repeat(LARGE)));
            let json = value.to_string();
            if let Some(hollowed) = hollow(json.as_bytes()) {
                let parsed: Value = serde_json::from_slice(&hollowed).unwrap();
                prop_assert_eq!(parsed, shortened(&value));
            }
        }
    }
}
