//! Kinds of `[health]`, `[engine]` and `[gpu]`.

use super::{Kind, choice, items, quote};
use crate::config::value::{Mistake, Value};
use crate::config::{GpuMode, GpuNaming, HostnameLabel};

/// `auto`, `nvml` or `off`.
pub(in crate::config) struct Mode;
/// `dcgm` or `dcgm-4.7`.
pub(in crate::config) struct Naming;
/// `Hostname` or `hostname`.
pub(in crate::config) struct Hostname;
/// Some text, or the empty string for none.
pub(in crate::config) struct Text;
/// Texts without blanks, any number of them.
pub(in crate::config) struct Words;

const MODES: &[(&str, GpuMode)] = &[
    ("auto", GpuMode::Auto),
    ("nvml", GpuMode::Nvml),
    ("off", GpuMode::Off),
];
const NAMINGS: &[(&str, GpuNaming)] = &[("dcgm", GpuNaming::Dcgm), ("dcgm-4.7", GpuNaming::Dcgm47)];
const HOSTNAMES: &[(&str, HostnameLabel)] = &[
    ("Hostname", HostnameLabel::Upper),
    ("hostname", HostnameLabel::Lower),
];

macro_rules! choices {
    ($kind:ident: $type:ty = $words:ident) => {
        impl Kind<$type> for $kind {
            fn read(&self, value: &Value) -> Result<$type, Vec<Mistake>> {
                choice(value, $words)
            }

            fn show(&self, field: &$type) -> String {
                let word = $words.iter().find(|(_, choice)| choice == field);
                quote(word.map_or("", |(word, _)| word))
            }
        }
    };
}

choices!(Mode: GpuMode = MODES);
choices!(Naming: GpuNaming = NAMINGS);
choices!(Hostname: HostnameLabel = HOSTNAMES);

impl Kind<Option<String>> for Text {
    fn read(&self, value: &Value) -> Result<Option<String>, Vec<Mistake>> {
        value
            .text()
            .map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
            .ok_or_else(|| value.unexpected("a text, or \"\" for none"))
    }

    fn show(&self, field: &Option<String>) -> String {
        quote(field.as_deref().unwrap_or_default())
    }
}

impl Kind<Vec<String>> for Words {
    fn read(&self, value: &Value) -> Result<Vec<String>, Vec<Mistake>> {
        let mut words = Vec::new();
        let mut mistakes = Vec::new();
        for item in items(value) {
            match item.text().map(str::trim) {
                Some(word) if !word.is_empty() && !word.contains(char::is_whitespace) => {
                    words.push(word.to_owned());
                }
                _ => mistakes.extend(item.unexpected("a word, or a list of them")),
            }
        }
        if mistakes.is_empty() {
            Ok(words)
        } else {
            Err(mistakes)
        }
    }

    fn show(&self, field: &Vec<String>) -> String {
        let words: Vec<_> = field.iter().map(|word| quote(word)).collect();
        format!("[{}]", words.join(", "))
    }
}
