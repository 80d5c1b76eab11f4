//! What a key may be: reading a raw value, and showing a validated one as a TOML literal that reads back the same.

mod gateway;
mod pollers;
mod tenants;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::suggest::nearest;
use super::units::{parse_duration, parse_size, show_duration, show_size};
use super::value::{Form, Mistake, Value};
use super::{LogFormat, UpstreamUrl, UsageMode};

pub(super) use gateway::{Discoveries, Header, Limit};
pub(super) use pollers::{Hostname, Mode, Naming, Text, Words};
pub(super) use tenants::{Hidden, Labels};

pub(super) trait Kind<T> {
    fn read(&self, value: &Value) -> Result<T, Vec<Mistake>>;
    fn show(&self, field: &T) -> String;
}

/// `0.0.0.0:8080`. Names are refused: which of its addresses would we listen on?
pub(super) struct Address;
/// `true` or `false`.
pub(super) struct Switch;
/// A whole number, least and most.
pub(super) struct Count(pub(super) u64, pub(super) u64);
/// A size in bytes, least and most.
pub(super) struct Bytes(pub(super) u64, pub(super) u64);
/// A duration that may be zero.
pub(super) struct Delay;
/// A duration above zero.
pub(super) struct Positive;
/// A duration, or 0 for none at all.
pub(super) struct Timeout;
/// A path, or the empty string for none.
pub(super) struct File;
/// One URL or a list of them; `check` says when there may be none.
pub(super) struct Urls;
/// A tracing filter.
pub(super) struct Filter;
/// `auto`, `text` or `json`.
pub(super) struct Format;
/// `observe` or `inject`.
pub(super) struct Usage;

impl Kind<SocketAddr> for Address {
    fn read(&self, value: &Value) -> Result<SocketAddr, Vec<Mistake>> {
        value
            .text()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| value.unexpected("an IP address and port such as \"0.0.0.0:8080\""))
    }

    fn show(&self, field: &SocketAddr) -> String {
        quote(&field.to_string())
    }
}

impl Kind<bool> for Switch {
    fn read(&self, value: &Value) -> Result<bool, Vec<Mistake>> {
        match &value.form {
            Form::Boolean(value) => Ok(*value),
            // Kubernetes and compose users write 1 and yes as well, and what those mean is a matter of taste: refused.
            Form::Word(word) if word == "true" => Ok(true),
            Form::Word(word) if word == "false" => Ok(false),
            _ => Err(value.unexpected("true or false")),
        }
    }

    fn show(&self, field: &bool) -> String {
        field.to_string()
    }
}

impl<T: Copy + TryFrom<u64> + TryInto<u64>> Kind<T> for Count {
    fn read(&self, value: &Value) -> Result<T, Vec<Mistake>> {
        let &Self(least, most) = self;
        value
            .integer()
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| (least..=most).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| value.unexpected(format_args!("a whole number from {least} to {most}")))
    }

    fn show(&self, field: &T) -> String {
        number(*field).to_string()
    }
}

impl<T: Copy + TryFrom<u64> + TryInto<u64>> Kind<T> for Bytes {
    fn read(&self, value: &Value) -> Result<T, Vec<Mistake>> {
        let &Self(least, most) = self;
        let bytes = match &value.form {
            Form::Integer(number) => number.and_then(|number| u64::try_from(number).ok()),
            _ => value.text().and_then(parse_size),
        };
        let Some(bytes) = bytes else {
            return Err(value.unexpected("a size such as \"64KiB\", \"4MiB\" or a number of bytes"));
        };
        Some(bytes)
            .filter(|bytes| (least..=most).contains(bytes))
            .and_then(|bytes| T::try_from(bytes).ok())
            .ok_or_else(|| {
                let (least, most) = (show_size(least), show_size(most));
                value.unexpected(format_args!("a size from {least} to {most}"))
            })
    }

    fn show(&self, field: &T) -> String {
        let bytes = number(*field);
        if bytes < 1024 {
            bytes.to_string()
        } else {
            quote(&show_size(bytes))
        }
    }
}

impl Kind<Duration> for Delay {
    fn read(&self, value: &Value) -> Result<Duration, Vec<Mistake>> {
        match &value.form {
            Form::Integer(Some(0)) => Ok(Duration::ZERO),
            Form::Integer(_) => Err(value
                .unexpected("a duration such as \"3s\" or \"10m\" (a number alone has no unit)")),
            _ => match value.text().map(parse_duration) {
                Some(Ok(duration)) => Ok(duration),
                Some(Err(why)) => {
                    let mut mistakes = value.unexpected("a duration such as \"3s\" or \"10m\"");
                    mistakes
                        .iter_mut()
                        .for_each(|m| m.message.push_str(&format!(": {why}")));
                    Err(mistakes)
                }
                None => Err(value.unexpected("a duration such as \"3s\" or \"10m\"")),
            },
        }
    }

    fn show(&self, field: &Duration) -> String {
        quote(&show_duration(*field))
    }
}

impl Kind<Duration> for Positive {
    fn read(&self, value: &Value) -> Result<Duration, Vec<Mistake>> {
        let duration = Delay.read(value)?;
        if duration.is_zero() {
            return Err(value.unexpected("a duration above 0"));
        }
        Ok(duration)
    }

    fn show(&self, field: &Duration) -> String {
        Delay.show(field)
    }
}

impl Kind<Option<Duration>> for Timeout {
    fn read(&self, value: &Value) -> Result<Option<Duration>, Vec<Mistake>> {
        Ok(Some(Delay.read(value)?).filter(|duration| !duration.is_zero()))
    }

    fn show(&self, field: &Option<Duration>) -> String {
        field.map_or_else(|| "0".to_owned(), |duration| Delay.show(&duration))
    }
}

impl Kind<Option<PathBuf>> for File {
    fn read(&self, value: &Value) -> Result<Option<PathBuf>, Vec<Mistake>> {
        match value.text() {
            Some("") => Ok(None),
            Some(text) => Ok(Some(PathBuf::from(text))),
            None => Err(value.unexpected("a path, or \"\" for none")),
        }
    }

    fn show(&self, field: &Option<PathBuf>) -> String {
        quote(
            &field
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
        )
    }
}

impl Kind<Vec<UpstreamUrl>> for Urls {
    fn read(&self, value: &Value) -> Result<Vec<UpstreamUrl>, Vec<Mistake>> {
        let items = items(value);
        let mut urls = Vec::with_capacity(items.len());
        let mut mistakes = Vec::new();
        for item in items {
            let Some(text) = item.text() else {
                mistakes.extend(item.unexpected("a URL such as \"http://127.0.0.1:8000\""));
                continue;
            };
            match text.trim().parse::<UpstreamUrl>() {
                Ok(url) if urls.contains(&url) => {
                    mistakes.extend(item.mistake(format!("{url} is listed twice")));
                }
                Ok(url) => urls.push(url),
                Err(error) => mistakes.extend(item.mistake(error.to_string())),
            }
        }
        if mistakes.is_empty() {
            Ok(urls)
        } else {
            Err(mistakes)
        }
    }

    fn show(&self, field: &Vec<UpstreamUrl>) -> String {
        let urls: Vec<_> = field.iter().map(|url| quote(&url.to_string())).collect();
        format!("[{}]", urls.join(", "))
    }
}

impl Kind<String> for Filter {
    fn read(&self, value: &Value) -> Result<String, Vec<Mistake>> {
        let Some(text) = value.text() else {
            return Err(value.unexpected("a log filter such as \"info\""));
        };
        let text = text.trim();
        crate::telemetry::check_filter(text).map_err(|why| value.mistake(why))?;
        Ok(text.to_owned())
    }

    fn show(&self, field: &String) -> String {
        quote(field)
    }
}

impl Kind<LogFormat> for Format {
    fn read(&self, value: &Value) -> Result<LogFormat, Vec<Mistake>> {
        choice(
            value,
            &[
                ("auto", LogFormat::Auto),
                ("text", LogFormat::Text),
                ("json", LogFormat::Json),
            ],
        )
    }

    fn show(&self, field: &LogFormat) -> String {
        match field {
            LogFormat::Auto => quote("auto"),
            LogFormat::Text => quote("text"),
            LogFormat::Json => quote("json"),
        }
    }
}

impl Kind<UsageMode> for Usage {
    fn read(&self, value: &Value) -> Result<UsageMode, Vec<Mistake>> {
        choice(
            value,
            &[
                ("observe", UsageMode::Observe),
                ("inject", UsageMode::Inject),
            ],
        )
    }

    fn show(&self, field: &UsageMode) -> String {
        match field {
            UsageMode::Observe => quote("observe"),
            UsageMode::Inject => quote("inject"),
        }
    }
}

/// One of a few words.
fn choice<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, Vec<Mistake>> {
    let text = value.text();
    if let Some((_, choice)) = words.iter().find(|(word, _)| Some(*word) == text) {
        return Ok(*choice);
    }
    let quoted: Vec<_> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    let (last, first) = quoted
        .split_last()
        .map_or(("", &[][..]), |(last, first)| (last.as_str(), first));
    let mut mistakes = value.unexpected(format_args!("{} or {last}", first.join(", ")));
    if let Some(near) = text.and_then(|text| nearest(text, words.iter().map(|(word, _)| *word))) {
        let hint = format!(", did you mean \"{near}\"?");
        mistakes
            .iter_mut()
            .for_each(|mistake| mistake.message.push_str(&hint));
    }
    Err(mistakes)
}

/// The items of a list; a single value is a list of one.
fn items(value: &Value) -> &[Value] {
    match &value.form {
        Form::List(items) => items,
        Form::Word(_)
        | Form::Text(_)
        | Form::Integer(_)
        | Form::Boolean(_)
        | Form::Table(_)
        | Form::Other(_) => std::slice::from_ref(value),
    }
}

/// Every field that is counted fits, since it was read from a `u64`.
fn number<T: TryInto<u64>>(field: T) -> u64 {
    field.try_into().unwrap_or(u64::MAX)
}

/// A TOML basic string. The `toml` crate's writer would choose literal or multi-line forms; one line a key is the promise.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
