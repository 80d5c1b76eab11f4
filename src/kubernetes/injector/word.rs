//! A word of a command line and what is known of it.

use std::ops::Range;

use super::environment::{Environment, Lookup};

/// A word: an element of `command` or `args`, or a part of a script in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Which string of the command line it is in.
    pub(super) argument: usize,
    /// Where in that string, quotes included.
    pub(super) span: Range<usize>,
    /// What it is made of.
    pub(super) pieces: Vec<Piece>,
    /// The shell splits an unquoted variable into words.
    pub(super) splits: bool,
    /// Part of it is quoted: then it is a word even where there is nothing in it.
    pub(super) quoted: bool,
}

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it stands, quotes and escapes gone.
    Text(String),
    /// `$(NAME)`, `$NAME` or `${NAME:-fallback}`.
    Variable {
        /// Its name.
        name: String,
        /// What it is where unset.
        fallback: Option<String>,
    },
    /// `$@`: the words after the script.
    Positional,
    /// Known only once it runs.
    Opaque,
}

impl Word {
    /// The text, if every piece is known.
    pub(super) fn text(&self, environment: &Environment<'_>) -> Option<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Variable { name, fallback } => match environment.get(name) {
                    Lookup::Known(value) if value.is_empty() => {
                        text.push_str(fallback.as_deref().unwrap_or_default());
                    }
                    Lookup::Known(value) => text.push_str(&value),
                    Lookup::Absent => text.push_str(fallback.as_deref().unwrap_or_default()),
                    Lookup::Unknown => return None,
                },
                Piece::Positional | Piece::Opaque => return None,
            }
        }
        Some(text)
    }

    /// Whether with this text it is no word at all: an unquoted variable of nothing.
    pub(super) fn vanishes(&self, text: &str) -> bool {
        self.splits && !self.quoted && text.trim_matches([' ', '\t', '\n']).is_empty()
    }

    /// The text, if it is written out.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What it begins with for certain.
    pub(super) fn head(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The variable that it is, and nothing else.
    pub(super) fn variable(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Variable { name, .. }] => Some(name),
            _ => None,
        }
    }

    /// An element of `command` or `args`: the kubelet replaces `$(NAME)` where `NAME` is set and leaves it else.
    pub(super) fn element(argument: usize, text: &str, environment: &Environment<'_>) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, dollar) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = dollar.strip_prefix("$$") {
                literal.push('$');
                rest = after;
                continue;
            }
            match reference(dollar) {
                Some((name, after)) if !matches!(environment.get(name), Lookup::Absent) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Variable {
                        name: name.to_owned(),
                        fallback: None,
                    });
                    rest = after;
                }
                _ => {
                    literal.push('$');
                    rest = dollar.get(1..).unwrap_or_default();
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Self {
            argument,
            span: 0..text.len(),
            pieces,
            splits: false,
            quoted: true,
        }
    }
}

/// `$(NAME)` at the beginning: the name, and what follows.
pub(super) fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix("$(")?.split_once(')')?;
    is_name(name).then_some((name, after))
}

/// Whether this can be the name of a variable.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
