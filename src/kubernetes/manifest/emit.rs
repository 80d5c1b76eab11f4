//! New YAML: block style, two spaces, quotes only where needed.

use serde_json::Value;

use super::scalar::is_plain;

/// How the file around it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// How far a list's dashes stand in from the key above it.
    pub(super) list: usize,
}

/// `key: value` as lines, at `indent`.
pub(super) fn entry(key: &str, value: &Value, indent: usize, style: Style, out: &mut String) {
    pad(indent, out);
    out.push_str(&scalar(&Value::from(key)));
    out.push(':');
    nested(value, indent, style, out);
}

/// `- value` as lines, the dash at `indent`.
pub(super) fn item(value: &Value, indent: usize, style: Style, out: &mut String) {
    pad(indent, out);
    out.push('-');
    match value {
        // The first key stands behind the dash.
        Value::Object(map) if !map.is_empty() => {
            let start = out.len();
            for (key, value) in map {
                entry(key, value, indent + 2, style, out);
            }
            out.replace_range(start..start + indent + 2, " ");
        }
        _ => nested(value, indent, style, out),
    }
}

/// What follows a `:` or a `-`, with the end of the line.
fn nested(value: &Value, indent: usize, style: Style, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            for (key, value) in map {
                entry(key, value, indent + 2, style, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            for value in list {
                item(value, indent + style.list, style, out);
            }
        }
        _ => {
            out.push(' ');
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
}

/// On one line: a string plain where it can be, all else as JSON, which YAML takes.
pub(super) fn scalar(value: &Value) -> String {
    match value.as_str() {
        Some(text) if is_plain(text) => text.to_owned(),
        _ => value.to_string(),
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}
