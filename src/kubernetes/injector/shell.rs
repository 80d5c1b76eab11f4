//! Scripts of `sh -c`: cut into simple commands and their words, each with its place.
//!
//! Not a shell. It knows quoting, continuation lines, comments, operators, redirections and substitutions well enough to
//! say where a word begins and ends; what it does not know (here-documents, `$'…'`) is an error, and the pod is refused.

mod quoting;

use std::collections::BTreeSet;

use super::word::{Word, is_name};

/// A script's commands, in order, flattened: what is in loops, conditions and subshells stands among the others.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) commands: Vec<Vec<Word>>,
    /// Variables that it sets.
    pub(super) assigned: BTreeSet<String>,
}

/// What is beyond this reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Beyond {
    #[error("a quote is not closed")]
    Quote,
    #[error("a substitution is not closed")]
    Substitution,
    #[error("it has a here-document")]
    HereDocument,
    #[error("it has a $'…' string")]
    AnsiString,
    #[error("it ends in a backslash")]
    Backslash,
    #[error("it is nested too deep")]
    Deep,
}

/// Substitutions within substitutions; a reader that calls itself must not be led down without end.
const DEPTH: usize = 32;

/// Reads the script that is the string number `argument` of the command line.
pub(super) fn read(argument: usize, text: &str) -> Result<Script, Beyond> {
    let mut reader = Reader {
        argument,
        text,
        at: 0,
        depth: 0,
        script: Script::default(),
        command: Vec::new(),
    };
    reader.run()?;
    let mut script = reader.script;
    for command in &script.commands {
        script.assigned.extend(assignments(command));
    }
    Ok(script)
}

/// The name that `NAME=value` sets.
pub(super) fn assignment(word: &Word) -> Option<&str> {
    let (name, _) = word.head().split_once('=')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    is_name(name).then_some(name)
}

/// Names that a command may set.
fn assignments(command: &[Word]) -> Vec<String> {
    const SETTERS: [&str; 8] = [
        "export", "declare", "typeset", "local", "readonly", "read", "for", "unset",
    ];
    let mut names: Vec<String> = Vec::new();
    // Assignments before a command are its own, but `A=1; x $A` and `A=1 x $A` differ by a sign; both count.
    let mut setter = false;
    for (place, word) in command.iter().enumerate() {
        if let Some(name) = assignment(word) {
            if setter || names.len() == place {
                names.push(name.to_owned());
            }
        } else if let Some(text) = word.literal() {
            if setter && is_name(text) {
                names.push(text.to_owned());
            }
            setter |= SETTERS.contains(&text);
        }
    }
    names
}

struct Reader<'t> {
    argument: usize,
    text: &'t str,
    at: usize,
    depth: usize,
    script: Script,
    command: Vec<Word>,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self, by: usize) {
        self.at += by;
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.skip(token.len());
        }
        found
    }

    fn end_command(&mut self) {
        if !self.command.is_empty() {
            self.script.commands.push(std::mem::take(&mut self.command));
        }
    }

    fn run(&mut self) -> Result<(), Beyond> {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.skip(1),
                '\\' if self.eat("\\\n") => {}
                '#' => {
                    let line = self.rest().find('\n').unwrap_or(self.rest().len());
                    self.skip(line);
                }
                '&' if self.rest().starts_with("&>") => self.redirection()?,
                '\n' | ';' | '&' | '|' | '(' | ')' => {
                    self.skip(1);
                    self.end_command();
                }
                '<' | '>' => self.redirection()?,
                '0'..='9' if self.descriptor() => self.redirection()?,
                _ => {
                    let word = self.word()?;
                    self.command.push(word);
                }
            }
        }
        self.end_command();
        Ok(())
    }

    /// Whether a redirection with a number is next: `2>&1`.
    fn descriptor(&self) -> bool {
        self.rest()
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .starts_with(['<', '>'])
    }

    /// Passes over a redirection and where it goes; neither is a word of the command.
    fn redirection(&mut self) -> Result<(), Beyond> {
        while matches!(self.peek(), Some('0'..='9')) {
            self.skip(1);
        }
        if self.rest().starts_with("<<") {
            return Err(Beyond::HereDocument);
        }
        // `<(…)` and `>(…)` are words, which is why they are not eaten here.
        if !(self.eat("&>>")
            || self.eat("&>")
            || self.eat(">>")
            || self.eat(">&")
            || self.eat("<&")
            || self.eat(">|")
            || self.eat("<>"))
        {
            self.skip(1);
        }
        if self.eat("(") {
            // The rest of a process substitution comes as commands of its own.
            return Ok(());
        }
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.skip(1);
        }
        match self.peek() {
            None | Some('\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>') => Ok(()),
            Some(_) => self.word().map(drop),
        }
    }
}
