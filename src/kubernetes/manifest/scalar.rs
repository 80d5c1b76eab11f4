//! What a scalar is: as sigs.k8s.io/yaml, which kubectl reads with, has it.

use granit_parser::ScalarStyle;
use serde_json::{Number, Value};

pub(super) fn value(text: &str, style: ScalarStyle, tag: Option<&str>) -> Value {
    if style != ScalarStyle::Plain || tag == Some("str") {
        return Value::from(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::from(text), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let (radix, bare) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o', ..] => (8, digits.get(2..)?),
        [b'0', b'b', ..] => (2, digits.get(2..)?),
        // YAML 1.1: `defaultMode: 0644` is what it looks like.
        [b'0', _, ..] if digits.bytes().all(|digit| (b'0'..b'8').contains(&digit)) => {
            (8, digits.get(1..)?)
        }
        _ => (10, digits),
    };
    if bare.bytes().all(|digit| (digit as char).is_digit(radix)) && !bare.is_empty() {
        let number = i64::from_str_radix(bare, radix).ok()?;
        return Some(Number::from(if text.starts_with('-') {
            -number
        } else {
            number
        }));
    }
    let float = digits
        .bytes()
        .all(|c| c.is_ascii_digit() || b".eE+-".contains(&c));
    if radix != 10 || !float || text.ends_with('.') {
        return None;
    }
    text.trim_start_matches('+')
        .parse()
        .ok()
        .and_then(Number::from_f64)
}

/// Whether a string may stand without quotes and stay itself.
pub(super) fn is_plain(text: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(safe)
        && value(text, ScalarStyle::Plain, None) == *text
        && !["y", "n", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars() {
        for (text, expected) in [
            ("8000", json!(8000)),
            ("-1", json!(-1)),
            ("0644", json!(420)),
            ("0x10", json!(16)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("yes", json!("yes")),
            ("0.9.2", json!("0.9.2")),
            ("100m", json!("100m")),
            ("12:30", json!("12:30")),
            ("-", json!("-")),
            ("089", json!(89)),
        ] {
            assert_eq!(value(text, ScalarStyle::Plain, None), expected, "{text}");
        }
        assert_eq!(
            value("8000", ScalarStyle::DoubleQuoted, None),
            json!("8000")
        );
        assert!(is_plain("ghcr.io/a/b-c_d"));
        for text in ["8001", "true", "no", "", "a: b", "--port", "5e3", "a b"] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
