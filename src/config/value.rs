//! A raw value: what was written, before anybody asked whether it makes sense.

use std::fmt;

/// What was written, and where within its layer.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) form: Form,
    /// Line and column in the file, from 1; items of a list have their own.
    pub(super) at: Option<(usize, usize)>,
}

/// The form tells TOML, which has types, from the environment and flags, which have words only.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// Untyped, from the environment or a flag: `true` and `8` may be anything.
    Word(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer; `None` is one that fits nothing we know.
    Integer(Option<i128>),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array, or the items of a list variable or repeated flag.
    List(Vec<Value>),
    /// A TOML table.
    Table(Vec<Field>),
    /// A TOML type that no key takes, by its name.
    Other(&'static str),
}

/// A name in a table, and its value.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// Line and column of the name.
    pub(super) at: (usize, usize),
    pub(super) value: Value,
}

/// One thing that is wrong with a value.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    /// Line and column, where it was a file.
    pub(super) at: Option<(usize, usize)>,
    pub(super) message: String,
}

// === impl Value ===

impl Value {
    pub(super) fn word(word: impl Into<String>) -> Self {
        Self {
            form: Form::Word(word.into()),
            at: None,
        }
    }

    pub(super) fn words(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let items = words.into_iter().map(Self::word).collect();
        Self {
            form: Form::List(items),
            at: None,
        }
    }

    /// The text of a word or string.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.form {
            Form::Word(text) | Form::Text(text) => Some(text),
            Form::Integer(_)
            | Form::Boolean(_)
            | Form::List(_)
            | Form::Table(_)
            | Form::Other(_) => None,
        }
    }

    /// The number of an integer, or of a word that is one. A TOML string is none: `"8"` there is a mistake.
    pub(super) fn integer(&self) -> Option<i128> {
        match &self.form {
            Form::Integer(number) => *number,
            Form::Word(word) => word.trim().parse().ok(),
            Form::Text(_) | Form::Boolean(_) | Form::List(_) | Form::Table(_) | Form::Other(_) => {
                None
            }
        }
    }

    pub(super) fn mistake(&self, message: impl Into<String>) -> Vec<Mistake> {
        vec![Mistake {
            at: self.at,
            message: message.into(),
        }]
    }

    /// `expected WHAT, found …`
    pub(super) fn unexpected(&self, expected: impl fmt::Display) -> Vec<Mistake> {
        self.mistake(format!("expected {expected}, found {self}"))
    }
}

/// As an error message says it: `string "four"`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.form {
            Form::Word(word) => write!(f, "{word:?}"),
            Form::Text(text) => write!(f, "string {text:?}"),
            Form::Integer(Some(number)) => write!(f, "integer {number}"),
            Form::Integer(None) => f.write_str("an integer out of range"),
            Form::Boolean(value) => write!(f, "boolean {value}"),
            Form::List(_) => f.write_str("a list"),
            Form::Table(_) => f.write_str("a table"),
            Form::Other(name) => write!(f, "{name}"),
        }
    }
}

// === impl Mistake ===

impl Mistake {
    /// Without what was written, which most messages repeat in one form or another.
    pub(super) fn hidden(self) -> Self {
        Self {
            message: "is not valid (not repeated here, since it is secret)".to_owned(),
            ..self
        }
    }
}
