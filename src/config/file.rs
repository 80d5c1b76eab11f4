//! The TOML file, as raw values with their places.
//!
//! serde's derive would be shorter, but it stops at the first mistake and knows the place of none but the last.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Place, Problem, reason};
use super::keys;
use super::load::Entry;
use super::origin::Origin;
use super::suggest::{did_you_mean, for_key, for_section};
use super::value::{Field, Form, Value};

/// Enough for any configuration, and the end of `--config /dev/zero`.
const LONGEST: u64 = 1 << 20;

/// Reads the file into entries; what is wrong with it goes into `problems`.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> Vec<Entry> {
    match text(path) {
        Ok(text) => parse(path, &text, problems),
        Err(why) => {
            let place = Place::File {
                path: path.to_owned(),
                at: None,
            };
            problems.push(Problem::new(place, format!("cannot be read: {why}")));
            Vec::new()
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = |bytes: &mut Vec<u8>| -> io::Result<u64> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(file.take(LONGEST + 1).read_to_end(bytes)? as u64)
    };
    if read(&mut bytes).map_err(|error| reason(&error))? > LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("not UTF-8 in line {line}")
    })
}

pub(super) fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
    // Windows editors leave a byte order mark, which would count as a column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        path,
        text,
        entries: Vec::new(),
        problems: Vec::new(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        reader.sections(table.get_ref());
    }
    // What a broken file would mean is a guess, and its follow-up errors would only bury the cause.
    for error in errors {
        let message = error.message().replace('\n', " ");
        reader.problem(error.span().unwrap_or_default(), message);
    }
    problems.append(&mut reader.problems);
    reader.entries
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    entries: Vec<Entry>,
    problems: Vec<Problem>,
}

// === impl Reader ===

impl Reader<'_> {
    fn sections(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let section = name.get_ref().as_ref();
            if !keys::sections().contains(&section) {
                let hint = did_you_mean(&for_section(section));
                self.problem(name.span(), format!("unknown key {section:?}{hint}"));
                continue;
            }
            match value.get_ref() {
                DeValue::Table(table) => self.keys(section, table),
                _ => {
                    let found = self.value(value);
                    let message =
                        format!("{section}: expected a section [{section}], found {found}");
                    self.problem(value.span(), message);
                }
            }
        }
    }

    fn keys(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            let Some(index) = keys::index(section, key) else {
                let full = format!("{section}.{key}");
                let hint = did_you_mean(&for_key(section, key));
                self.problem(name.span(), format!("unknown key {full:?}{hint}"));
                continue;
            };
            let (line, column) = self.position(name.span().start);
            let origin = Origin::File {
                path: self.path.to_owned(),
                line,
                column,
            };
            let value = self.value(value);
            self.entries.push(Entry {
                key: index,
                value,
                origin,
            });
        }
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        let form = match value.get_ref() {
            DeValue::String(text) => Form::Text(text.clone().into_owned()),
            DeValue::Integer(number) => {
                Form::Integer(i128::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Boolean(value) => Form::Boolean(*value),
            DeValue::Array(items) => {
                Form::List(items.iter().map(|item| self.value(item)).collect())
            }
            DeValue::Float(_) => Form::Other("a number with a fraction"),
            DeValue::Datetime(_) => Form::Other("a date or time"),
            DeValue::Table(table) => Form::Table(
                table
                    .iter()
                    .map(|(name, value)| Field {
                        name: name.get_ref().clone().into_owned(),
                        at: self.position(name.span().start),
                        value: self.value(value),
                    })
                    .collect(),
            ),
        };
        Value {
            form,
            at: Some(self.position(value.span().start)),
        }
    }

    fn problem(&mut self, span: Range<usize>, message: String) {
        let at = Some(self.position(span.start));
        let place = Place::File {
            path: self.path.to_owned(),
            at,
        };
        self.problems.push(Problem::new(place, message));
    }

    /// Line and column, from 1, in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        (line, before[start..].chars().count() + 1)
    }
}
