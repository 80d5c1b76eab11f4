//! Edits as replacements in the text.

use std::ops::Range;

use granit_parser::ScalarStyle;
use serde_json::Value;

use super::emit::{self, Style};
use super::tree::{Kind, Node};
use crate::kubernetes::injector::{Change, Cut, Edit, Path, Step};

/// A part of the text and what takes its place.
struct Replacement {
    at: Range<usize>,
    with: String,
    /// Of insertions at one place the deeper comes first: it ends what the other goes on after.
    depth: usize,
}

/// The text with the edits made in the document `root`. Comments, order and style of all else stay.
///
/// # Errors
/// Says which place cannot be edited.
pub(super) fn edit(text: &str, root: &Node, edits: &[Edit]) -> Result<String, String> {
    let page = Page {
        text,
        root,
        style: Style {
            list: list_indent(text, root),
        },
    };
    let mut replacements = Vec::new();
    for edit in edits {
        let replacement = page.replacement(edit);
        replacements.push(replacement.map_err(|why| format!("{}: {why}", edit.path))?);
    }
    replacements.sort_by(|a, b| (a.at.start, b.depth).cmp(&(b.at.start, a.depth)));
    let crlf = text.contains("\r\n");
    let mut out = String::with_capacity(text.len() + 4096);
    let mut from = 0;
    for Replacement { at, with, .. } in replacements {
        out.push_str(text.get(from..at.start).ok_or("edits overlap")?);
        // A last line without its end.
        if with.ends_with('\n') && !out.is_empty() && !out.ends_with('\n') {
            out.push_str(if crlf { "\r\n" } else { "\n" });
        }
        out.push_str(&if crlf {
            with.replace("\r\n", "\n").replace('\n', "\r\n")
        } else {
            with
        });
        from = at.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Ok(out)
}

struct Page<'t> {
    text: &'t str,
    root: &'t Node,
    style: Style,
}

impl Page<'_> {
    fn replacement(&self, edit: &Edit) -> Result<Replacement, &'static str> {
        let depth = edit.path.steps().len();
        let (at, with) = match &edit.change {
            Change::Replace(value) => self.replace(self.node(&edit.path)?, value)?,
            Change::Splice { cuts, whole } => self.splice(self.node(&edit.path)?, cuts, whole)?,
            Change::Push(value) => {
                let list = self.node(&edit.path)?;
                self.grow(list, &[(None, value)])?
            }
            Change::Add(value) => {
                let (last, before) = edit.path.steps().split_last().ok_or("no place")?;
                let map = before
                    .iter()
                    .fold(Path::default(), |path, step| match step {
                        Step::Key(key) => path.key(key),
                        Step::Index(index) => path.index(*index),
                    });
                let Step::Key(key) = last else {
                    return Err("no key");
                };
                self.grow(self.node(&map)?, &[(Some(key.as_str()), value)])?
            }
        };
        // A list is deeper by one than the path that names it, as what is added has a place of its own in it.
        let depth = depth + usize::from(matches!(edit.change, Change::Push(_)));
        Ok(Replacement { at, with, depth })
    }

    fn node(&self, path: &Path) -> Result<&Node, &'static str> {
        let node = self.root.find(path).ok_or("it is not in the text")?;
        if node.shared {
            return Err("it comes from an anchor that is used at other places too");
        }
        Ok(node)
    }

    fn replace(&self, node: &Node, value: &Value) -> Result<(Range<usize>, String), &'static str> {
        let Kind::Scalar { style, .. } = &node.kind else {
            if node.is_flow() {
                return Ok((node.span.clone(), value.to_string()));
            }
            return Err("it is more than one line");
        };
        let with = match (style, value) {
            (ScalarStyle::SingleQuoted, Value::String(new)) => {
                format!("'{}'", new.replace('\'', "''"))
            }
            (ScalarStyle::Plain, _) if node.is_absent() => format!(" {value}"),
            (ScalarStyle::Literal | ScalarStyle::Folded, _) => return Err("it is a block of text"),
            (ScalarStyle::Plain, _) => emit::scalar(value),
            _ => value.to_string(),
        };
        let at = node.span.start..node.end(self.text);
        Ok((at, with))
    }

    /// Cuts of a string, found again in its text. Which of several equal places is meant is tried out: the right one reads
    /// back as the whole.
    fn splice(
        &self,
        node: &Node,
        cuts: &[Cut],
        whole: &str,
    ) -> Result<(Range<usize>, String), &'static str> {
        let Kind::Scalar { text: old, .. } = &node.kind else {
            return Err("it is no string");
        };
        let at = node.span.start..node.end(self.text);
        let raw = self.text.get(at.clone()).unwrap_or_default();
        let mut tried = vec![(raw.to_owned(), old.clone())];
        // From the last, so that the places of the earlier ones stay.
        for cut in cuts.iter().rev() {
            let piece = old.get(cut.at.clone()).ok_or("it is not in the text")?;
            // An insertion is found by the word before it.
            let before = old.get(..cut.at.start).unwrap_or_default();
            let anchor = if piece.is_empty() {
                before
                    .rsplit(char::is_whitespace)
                    .next()
                    .unwrap_or_default()
            } else {
                ""
            };
            let wanted = format!("{anchor}{piece}");
            let mut next = Vec::new();
            for (raw, text) in &tried {
                let mut expected = text.clone();
                expected.replace_range(cut.at.clone(), &cut.with);
                for (found, _) in raw.match_indices(&wanted) {
                    let start = found + anchor.len();
                    let mut candidate = raw.clone();
                    candidate.replace_range(start..start + piece.len(), &cut.with);
                    if self.reads(node, &at, &candidate).as_deref() == Some(&expected) {
                        next.push((candidate, expected.clone()));
                    }
                }
            }
            tried = next;
        }
        if let Some((candidate, _)) = tried.into_iter().next() {
            return Ok((at, candidate));
        }
        if matches!(
            node.kind,
            Kind::Scalar {
                style: ScalarStyle::Literal | ScalarStyle::Folded,
                ..
            }
        ) {
            return Err("the place in the block of text is not found again");
        }
        Ok((at, Value::from(whole).to_string()))
    }

    /// What the node would be with another text.
    fn reads(&self, node: &Node, at: &Range<usize>, candidate: &str) -> Option<String> {
        // Behind a key at the margin: what is indented stays further in than that.
        let header = node.header(self.text).unwrap_or(at.start);
        let header = self.text.get(header..at.start)?;
        let text = format!("x: {header}{candidate}\n");
        let documents = super::tree::parse(&text).ok()?;
        let root = documents.into_iter().next()??;
        let Kind::Map { entries, .. } = root.kind else {
            return None;
        };
        let (_, value) = entries.into_iter().next()?;
        match (value.kind, &node.kind) {
            (Kind::Scalar { text, .. }, Kind::Scalar { text: old, .. }) => {
                // A last line that ended with the file.
                let newline = old.ends_with('\n');
                Some(if newline || !text.ends_with('\n') {
                    text
                } else {
                    text.trim_end_matches('\n').to_owned()
                })
            }
            _ => None,
        }
    }

    /// More entries of a mapping, or more elements of a list.
    fn grow(
        &self,
        node: &Node,
        more: &[(Option<&str>, &Value)],
    ) -> Result<(Range<usize>, String), &'static str> {
        let last = match &node.kind {
            Kind::Map { entries, .. } => entries
                .iter()
                .rev()
                .find(|(key, _)| !key.shared)
                .map(|(key, value)| (key.span.start, value.end(self.text).max(key.span.end))),
            Kind::List { items, .. } => items
                .last()
                .map(|item| (item.span.start, item.end(self.text))),
            Kind::Scalar { .. } => return Err("it is no collection"),
        };
        let first = match &node.kind {
            Kind::Map { entries, .. } => entries.first().map(|(key, _)| key.span.start),
            Kind::List { items, .. } => items.first().map(|item| item.span.start),
            Kind::Scalar { .. } => None,
        };
        if node.is_flow() {
            return Ok(self.grow_flow(node, first, last.map(|(_, end)| end), more));
        }
        let (Some(first), Some(_)) = (first, last) else {
            return Err("it is empty");
        };
        let mut with = String::new();
        for (key, value) in more {
            match key {
                Some(key) => emit::entry(key, value, self.column(first)?, self.style, &mut with),
                None => emit::item(value, self.column(self.dash(node)?)?, self.style, &mut with),
            }
        }
        let end = self.line_end(node.end(self.text));
        Ok((end..end, with))
    }

    fn grow_flow(
        &self,
        node: &Node,
        first: Option<usize>,
        last: Option<usize>,
        more: &[(Option<&str>, &Value)],
    ) -> (Range<usize>, String) {
        let text: Vec<String> = more
            .iter()
            .map(|(key, value)| match key {
                Some(key) => format!("{}: {value}", Value::from(*key)),
                None => value.to_string(),
            })
            .collect();
        let (Some(first), Some(last)) = (first, last) else {
            let inside = node.span.end - 1;
            return (inside..inside, text.join(", "));
        };
        // Each on a line of its own, as in JSON that was printed for people.
        let line = self
            .text
            .get(..first)
            .map_or("", |before| before.rsplit('\n').next().unwrap_or_default());
        let between = if line.trim().is_empty() && !line.is_empty() {
            format!(",\n{line}")
        } else {
            ", ".to_owned()
        };
        let with: String = text
            .iter()
            .map(|entry| format!("{between}{entry}"))
            .collect();
        (last..last, with)
    }

    fn dash(&self, node: &Node) -> Result<usize, &'static str> {
        dash(self.text, node).ok_or("its first dash is not found")
    }

    fn column(&self, at: usize) -> Result<usize, &'static str> {
        let line = self
            .text
            .get(..at)
            .unwrap_or_default()
            .rsplit('\n')
            .next()
            .unwrap_or_default();
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if line.chars().all(|c| c == ' ' || c == '-') {
            Ok(line.len())
        } else {
            Err("something else stands before it on its line")
        }
    }

    /// Where the line of this place ends, the newline included.
    fn line_end(&self, at: usize) -> usize {
        // A block scalar that keeps its newlines ends at the beginning of a line.
        if at > 0
            && self
                .text
                .get(..at)
                .is_some_and(|before| before.ends_with('\n'))
        {
            return at;
        }
        self.text
            .get(at..)
            .and_then(|rest| rest.find('\n'))
            .map_or(self.text.len(), |newline| at + newline + 1)
    }
}

/// The first dash of a block list: the last before its first element.
fn dash(text: &str, list: &Node) -> Option<usize> {
    let Kind::List { items, flow: false } = &list.kind else {
        return None;
    };
    let before = text.get(..items.first()?.span.start)?;
    before
        .trim_end()
        .ends_with('-')
        .then(|| before.trim_end().len() - 1)
}

/// How far the file's lists stand in from their keys: as the first one does.
fn list_indent(text: &str, node: &Node) -> usize {
    fn first(text: &str, node: &Node) -> Option<usize> {
        let column = |at: usize| {
            let line = text.get(..at)?.rsplit('\n').next()?;
            line.chars()
                .all(|c| c == ' ' || c == '-')
                .then_some(line.len())
        };
        match &node.kind {
            Kind::Scalar { .. } => None,
            Kind::List { items, .. } => items.iter().find_map(|item| first(text, item)),
            Kind::Map { entries, .. } => {
                entries
                    .iter()
                    .filter(|(key, _)| !key.shared)
                    .find_map(|(key, value)| {
                        if matches!(value.kind, Kind::List { flow: false, .. }) && !value.shared {
                            return column(dash(text, value)?)?
                                .checked_sub(column(key.span.start)?);
                        }
                        first(text, value)
                    })
            }
        }
    }
    first(text, node).unwrap_or(0)
}
