//! One line of an exposition.

use super::labels::{self, Pairs, blanks};

/// What a line says.
#[derive(Debug)]
pub(super) enum Line<'a> {
    /// Nothing: empty, or a comment.
    Empty,
    /// `# HELP name text`, the text as it was written.
    Help(&'a str, &'a str),
    /// `# TYPE name type`
    Type(&'a str, &'a str),
    /// A sample.
    Sample(Raw<'a>),
}

/// A sample as it was read.
#[derive(Debug)]
pub(super) struct Raw<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Pairs<'a>,
    /// A number, as it was written unless Go would not read it.
    pub(super) value: &'a str,
    /// Milliseconds, not negative.
    pub(super) time: Option<i64>,
}

/// Reads a line, which has no line feed; `None` if it is malformed.
pub(super) fn read(line: &str) -> Option<Line<'_>> {
    // Blanks at the end of a help are part of it.
    let line = blanks(line.strip_suffix('\r').unwrap_or(line));
    // Prometheus takes a NUL for the end of the text.
    if line.contains('\0') {
        return None;
    }
    let Some(comment) = line.strip_prefix('#') else {
        return if line.is_empty() {
            Some(Line::Empty)
        } else {
            sample(line).map(Line::Sample)
        };
    };
    let comment = blanks(comment);
    if let Some(rest) = keyword(comment, "HELP") {
        let (name, rest) = metric_name(blanks(rest))?;
        // A help may be empty, but what follows a name is a blank.
        let help = match rest.strip_prefix([' ', '\t']) {
            Some(help) => blanks(help),
            None if rest.is_empty() => "",
            None => return None,
        };
        return Some(Line::Help(name, help));
    }
    if let Some(rest) = keyword(comment, "TYPE") {
        let (name, rest) = metric_name(blanks(rest))?;
        return rest
            .starts_with([' ', '\t'])
            .then(|| Line::Type(name, rest.trim_matches([' ', '\t'])));
    }
    Some(Line::Empty)
}

fn keyword<'a>(comment: &'a str, word: &str) -> Option<&'a str> {
    comment
        .strip_prefix(word)
        .filter(|rest| rest.starts_with([' ', '\t']))
}

fn sample(line: &str) -> Option<Raw<'_>> {
    let (name, rest) = metric_name(line)?;
    let (labels, rest) = match blanks(rest).strip_prefix('{') {
        Some(inside) => labels::braced(inside)?,
        None if rest.starts_with([' ', '\t']) => (Pairs::new(), rest),
        None => return None,
    };
    // What follows a number mark is an exemplar, which the text format has not.
    let rest = rest.split_once('#').map_or(rest, |(front, _)| front);
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?;
    // C prints a sign before it, with which Go refuses the whole text.
    let value = if number(value)?.is_nan() {
        "NaN"
    } else {
        value
    };
    // OpenMetrics has seconds with a fraction there: only milliseconds can be told for sure. Prometheus 3 refuses the whole
    // text for a sign.
    let time = match words.next() {
        None => None,
        Some(time) => {
            number(time)?;
            time.parse().ok().filter(|time| *time >= 0)
        }
    };
    words.next().is_none().then_some(Raw {
        name,
        labels,
        value,
        time,
    })
}

fn metric_name(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    valid.then_some((name, rest))
}

/// A number that every parser takes, but for the sign of a NaN: Go refuses one that is too large instead of calling it
/// infinite.
pub(super) fn number(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let said = !text.contains(|c: char| c.is_ascii_digit());
    (!number.is_infinite() || said).then_some(number)
}
