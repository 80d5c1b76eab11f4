//! Values as Python prints them: chat templates were written for it, and each character may be a token.

use std::fmt::Write;

use serde_json::Value;

/// How `json.dumps` is to set it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style<'a> {
    /// Spaces a level; none is one line.
    pub(super) indent: Option<usize>,
    /// Between items, and between key and value.
    pub(super) separators: Option<(&'a str, &'a str)>,
    pub(super) ascii: bool,
    pub(super) sorted: bool,
}

/// `json.dumps(value)`.
pub(super) fn json(value: &Value, style: Style<'_>) -> String {
    let mut out = String::new();
    write_json(value, style, 0, &mut out);
    out
}

/// `repr(value)`, which is also how a list or dict prints.
pub(super) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out);
    out
}

// === json ===

fn write_json(value: &Value, style: Style<'_>, level: usize, out: &mut String) {
    let item = match (style.separators, style.indent) {
        (Some((item, _)), _) => item,
        (None, None) => ", ",
        (None, Some(_)) => ",",
    };
    let colon = style.separators.map_or(": ", |(_, colon)| colon);
    let line = |level: usize, out: &mut String| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.saturating_mul(level)));
        }
    };
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_json_text(text, style.ascii, out),
        Value::Array(list) if list.is_empty() => out.push_str("[]"),
        Value::Object(object) if object.is_empty() => out.push_str("{}"),
        Value::Array(list) => {
            out.push('[');
            for (index, one) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(item);
                }
                line(level + 1, out);
                write_json(one, style, level + 1, out);
            }
            line(level, out);
            out.push(']');
        }
        Value::Object(object) => {
            let mut pairs: Vec<_> = object.iter().collect();
            if style.sorted {
                pairs.sort_by(|a, b| a.0.cmp(b.0));
            }
            out.push('{');
            for (index, (key, one)) in pairs.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(item);
                }
                line(level + 1, out);
                write_json_text(key, style.ascii, out);
                out.push_str(colon);
                write_json(one, style, level + 1, out);
            }
            line(level, out);
            out.push('}');
        }
    }
}

fn write_json_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => push_escape(c as u16, out),
            c if ascii && c >= '\u{7f}' => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    push_escape(*unit, out);
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_escape(unit: u16, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

/// As `repr(float)`: the same digits as Rust's, but an exponent has a sign and two digits at least.
fn write_number(number: &serde_json::Number, out: &mut String) {
    let text = number.to_string();
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent.trim_start_matches('+')),
            };
            let digits = digits.strip_suffix(".0").unwrap_or(digits);
            let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
        }
        None => out.push_str(&text),
    }
}

// === repr ===

fn write_repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(truth) => out.push_str(if *truth { "True" } else { "False" }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_repr_text(text, out),
        Value::Array(list) => {
            out.push('[');
            for (index, one) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(one, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (index, (key, one)) in object.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr_text(key, out);
                out.push_str(": ");
                write_repr(one, out);
            }
            out.push('}');
        }
    }
}

fn write_repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style<'_> = Style {
        indent: None,
        separators: None,
        ascii: false,
        sorted: false,
    };

    /// What CPython 3.11 prints for the same values.
    #[test]
    fn as_python_prints() {
        let value: Value = serde_json::from_str(
            r#"{"b":[1,2.0,-3.5e-9,1e+22,true,null,[],{}],"a":"é\"\\\n\u0001\u007f😀<'"}"#,
        )
        .unwrap();
        assert_eq!(
            json(&value, PLAIN),
            "{\"b\": [1, 2.0, -3.5e-09, 1e+22, true, null, [], {}], \"a\": \"é\\\"\\\\\\n\\u0001\u{7f}😀<'\"}"
        );
        let compact = Style {
            separators: Some((",", ":")),
            ascii: true,
            sorted: true,
            ..PLAIN
        };
        assert_eq!(
            json(&value, compact),
            "{\"a\":\"\\u00e9\\\"\\\\\\n\\u0001\\u007f\\ud83d\\ude00<'\",\"b\":[1,2.0,-3.5e-09,1e+22,true,null,[],{}]}"
        );
        let small: Value = serde_json::from_str(r#"{"a":[1,{"b":2}],"c":{}}"#).unwrap();
        let indented = Style {
            indent: Some(2),
            ..PLAIN
        };
        assert_eq!(
            json(&small, indented),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ],\n  \"c\": {}\n}"
        );
        let value: Value =
            serde_json::from_str(r#"{"a":[true,null,"it's","say \"it's\"","\n\u0001é"]}"#).unwrap();
        assert_eq!(
            repr(&value),
            "{'a': [True, None, \"it's\", 'say \"it\\'s\"', '\\n\\x01é']}"
        );
    }
}
