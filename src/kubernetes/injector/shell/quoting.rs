//! Words and what is quoted or substituted in them.

use super::{Beyond, DEPTH, Reader};
use crate::kubernetes::injector::word::{Piece, Word, is_name};

impl Reader<'_> {
    pub(super) fn word(&mut self) -> Result<Word, Beyond> {
        let start = self.at;
        let mut word = Building::default();
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\\' => {
                    self.skip(1);
                    if !self.eat("\n") {
                        let escaped = self.peek().ok_or(Beyond::Backslash)?;
                        self.skip(escaped.len_utf8());
                        word.literal.push(escaped);
                        word.quoted = true;
                    }
                }
                '\'' => {
                    self.skip(1);
                    let end = self.rest().find('\'').ok_or(Beyond::Quote)?;
                    word.literal
                        .push_str(self.rest().get(..end).unwrap_or_default());
                    word.quoted = true;
                    self.skip(end + 1);
                }
                '"' => {
                    self.skip(1);
                    word.quoted = true;
                    self.quoted(&mut word)?;
                }
                '$' => self.dollar(&mut word, false)?,
                '`' => {
                    self.backquoted()?;
                    word.piece(Piece::Opaque, false);
                }
                _ => {
                    self.skip(c.len_utf8());
                    word.literal.push(c);
                }
            }
        }
        Ok(word.done(self.argument, start..self.at))
    }

    /// The inside of double quotes.
    fn quoted(&mut self, word: &mut Building) -> Result<(), Beyond> {
        loop {
            match self.peek().ok_or(Beyond::Quote)? {
                '"' => {
                    self.skip(1);
                    return Ok(());
                }
                '\\' => {
                    self.skip(1);
                    match self.peek().ok_or(Beyond::Quote)? {
                        '\n' => self.skip(1),
                        c @ ('$' | '`' | '"' | '\\') => {
                            self.skip(1);
                            word.literal.push(c);
                        }
                        _ => word.literal.push('\\'),
                    }
                }
                '$' => self.dollar(word, true)?,
                '`' => {
                    self.backquoted()?;
                    word.piece(Piece::Opaque, true);
                }
                c => {
                    self.skip(c.len_utf8());
                    word.literal.push(c);
                }
            }
        }
    }

    fn backquoted(&mut self) -> Result<(), Beyond> {
        self.skip(1);
        loop {
            match self.peek().ok_or(Beyond::Substitution)? {
                '`' => {
                    self.skip(1);
                    return Ok(());
                }
                '\\' => {
                    self.skip(1);
                    let escaped = self.peek().ok_or(Beyond::Substitution)?;
                    self.skip(escaped.len_utf8());
                }
                c => self.skip(c.len_utf8()),
            }
        }
    }

    fn continues(&self) -> bool {
        self.rest().starts_with("\\\n")
    }

    fn dollar(&mut self, word: &mut Building, quoted: bool) -> Result<(), Beyond> {
        self.skip(1);
        match self.peek() {
            // A line that goes on within a name.
            Some('\\') if self.continues() => word.piece(Piece::Opaque, quoted),
            Some('(') => {
                let inside = self.balanced('(', ')')?;
                // The kubelet's own form, replaced before the shell starts; it alone is a bare name.
                word.piece(
                    if is_name(&inside) {
                        Piece::Variable {
                            name: inside,
                            fallback: None,
                        }
                    } else {
                        Piece::Opaque
                    },
                    quoted,
                );
            }
            Some('{') => {
                let inside = self.balanced('{', '}')?;
                word.piece(parameter(&inside), quoted);
            }
            Some('@') => {
                self.skip(1);
                word.piece(Piece::Positional, quoted);
            }
            Some('*' | '#' | '?' | '$' | '!' | '-' | '0'..='9') => {
                self.skip(1);
                word.piece(Piece::Opaque, quoted);
            }
            Some('\'') if !quoted => return Err(Beyond::AnsiString),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let rest = self.rest();
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len());
                let name = rest.get(..end).unwrap_or_default().to_owned();
                self.skip(end);
                word.piece(
                    if self.continues() {
                        Piece::Opaque
                    } else {
                        Piece::Variable {
                            name,
                            fallback: None,
                        }
                    },
                    quoted,
                );
            }
            _ => word.literal.push('$'),
        }
        Ok(())
    }

    /// Passes over `(…)` or `{…}` with what is nested and quoted in it; gives the inside.
    fn balanced(&mut self, open: char, close: char) -> Result<String, Beyond> {
        if self.depth == DEPTH {
            return Err(Beyond::Deep);
        }
        self.depth += 1;
        let inside = self.inside(open, close);
        self.depth -= 1;
        inside
    }

    fn inside(&mut self, open: char, close: char) -> Result<String, Beyond> {
        let start = self.at + 1;
        let mut depth = 0_usize;
        loop {
            let c = self.peek().ok_or(Beyond::Substitution)?;
            self.skip(c.len_utf8());
            match c {
                '\\' => {
                    let escaped = self.peek().ok_or(Beyond::Substitution)?;
                    self.skip(escaped.len_utf8());
                }
                '\'' => {
                    let end = self.rest().find('\'').ok_or(Beyond::Quote)?;
                    self.skip(end + 1);
                }
                '"' => {
                    let mut passed = Building::default();
                    self.quoted(&mut passed)?;
                }
                _ if c == open => depth += 1,
                _ if c == close => {
                    depth -= 1;
                    if depth == 0 {
                        let inside = self.text.get(start..self.at - 1);
                        return Ok(inside.unwrap_or_default().to_owned());
                    }
                }
                _ => {}
            }
        }
    }
}

/// The inside of `${…}`.
fn parameter(inside: &str) -> Piece {
    if inside == "@" {
        return Piece::Positional;
    }
    if is_name(inside) {
        return Piece::Variable {
            name: inside.to_owned(),
            fallback: None,
        };
    }
    if let Some((name, fallback)) = inside.split_once(":-") {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._/:-".contains(c);
        if is_name(name) && fallback.chars().all(plain) {
            return Piece::Variable {
                name: name.to_owned(),
                fallback: Some(fallback.to_owned()),
            };
        }
    }
    Piece::Opaque
}

/// A word in the making.
#[derive(Default)]
struct Building {
    pieces: Vec<Piece>,
    literal: String,
    quoted: bool,
    splits: bool,
}

impl Building {
    fn piece(&mut self, piece: Piece, quoted: bool) {
        if !self.literal.is_empty() {
            self.pieces
                .push(Piece::Text(std::mem::take(&mut self.literal)));
        }
        self.splits |= !quoted;
        self.pieces.push(piece);
    }

    fn done(mut self, argument: usize, span: std::ops::Range<usize>) -> Word {
        if !self.literal.is_empty() || (self.pieces.is_empty() && self.quoted) {
            self.pieces.push(Piece::Text(self.literal));
        }
        Word {
            argument,
            span,
            pieces: self.pieces,
            splits: self.splits,
            quoted: self.quoted,
        }
    }
}
