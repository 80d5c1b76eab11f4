//! Label sets as they are written between the braces.

use std::borrow::Cow;

/// Pairs of name and value; the value is escaped as it was.
pub(super) type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// Reads from behind `{` to behind `}`. What is left comes with the pairs.
pub(super) fn braced(mut rest: &str) -> Option<(Pairs<'_>, &str)> {
    let mut pairs = Pairs::new();
    loop {
        rest = blanks(rest);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((pairs, behind));
        }
        let (name, behind) = label_name(rest)?;
        let behind = blanks(blanks(behind).strip_prefix('=')?);
        let (value, behind) = quoted(behind.strip_prefix('"')?)?;
        if name == "__name__" || pairs.iter().any(|(other, _)| *other == name) {
            return None;
        }
        pairs.push((name, value));
        rest = blanks(behind);
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// The pairs of a set that [`write()`] has written.
pub(super) fn pairs(written: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = written;
    std::iter::from_fn(move || {
        let (name, behind) = rest.split_once("=\"")?;
        let (value, behind) = quoted(behind)?;
        rest = behind.strip_prefix(',').unwrap_or(behind);
        Some((name, value))
    })
}

/// The set without braces, blanks and last comma.
pub(super) fn write<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        push(&mut out, name, value);
    }
    out
}

/// One more pair.
pub(super) fn push(out: &mut String, name: &str, escaped: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    out.push_str(escaped);
    out.push('"');
}

/// As a label value is written.
pub(super) fn escape(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
            .into()
    } else {
        value.into()
    }
}

/// What tells series apart: order does not, an empty value is none, and edges are numbers (Prometheus 3 writes them anew).
pub(super) fn identity(
    pairs: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
) -> String {
    let mut sorted: Vec<(String, String)> = pairs
        .into_iter()
        .filter(|(_, value)| !value.as_ref().is_empty())
        .map(|(name, value)| {
            let (name, value) = (name.as_ref(), value.as_ref());
            let number = matches!(name, "le" | "quantile")
                .then(|| super::line::number(value))
                .flatten();
            let value = number.map_or_else(|| value.to_owned(), |number| number.to_string());
            (name.to_owned(), value)
        })
        .collect();
    sorted.sort_unstable();
    write(sorted.iter().map(|(n, v)| (n.as_str(), v.as_str())))
}

/// Without blanks in front.
pub(super) fn blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn label_name(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    valid.then_some((name, rest))
}

/// From behind the first quote: what is between the two, still escaped, and what is behind the second.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((text.get(..at)?, text.get(at + 1..)?)),
            // The three that the format has; parsers differ on any other.
            b'\\' if !matches!(bytes.next(), Some((_, b'\\' | b'"' | b'n'))) => return None,
            _ => {}
        }
    }
    None
}
