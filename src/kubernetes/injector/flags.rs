//! The flags of a vLLM server, as far as they bear on where it listens.

use super::edit::Cut;
use super::environment::Environment;
use super::launch::{End, Launch};
use super::refusal::Refusal;
use super::word::{Piece, Word};

/// What vLLM takes without `--port`.
const PORT: u16 = 8000;

/// Where a server listens, and how to move it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) port: u16,
    pub(super) host: Host,
    /// The word that holds the port, and what stands before the number in it; none if vLLM takes its default.
    pub(super) flag: Option<(Word, String)>,
    pub(super) end: End,
    /// What guards the API: the variable it comes from, if it is one.
    pub(super) key: Option<ApiKey>,
}

/// The address it binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// Every IPv4 address.
    Any,
    /// Every address.
    AnyV6,
    /// This pod only.
    Loopback,
    /// This pod only, by IPv6.
    LoopbackV6,
}

/// `--api-key` or `VLLM_API_KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiKey {
    /// From this variable of the container.
    Variable(String),
    /// Written out, or not to be known.
    Elsewhere,
}

/// Flags that take no value. Others are taken to: a word of unknown content after one of these may be flags itself.
const SWITCHES: [&str; 12] = [
    "trust-remote-code",
    "enforce-eager",
    "headless",
    "async-scheduling",
    "return-tokens-as-token-ids",
    "calculate-kv-scales",
    "skip-tokenizer-init",
    "fully-sharded-loras",
    "data-parallel-hybrid-lb",
    "data-parallel-external-lb",
    "log-requests",
    "grpc",
];

/// Reads a server's words.
pub(super) fn listening(launch: &Launch<'_>) -> Result<Listening, Refusal> {
    let mut reader = Reader {
        environment: &launch.environment,
        port: None,
        host: None,
        key: None,
        pending: Pending::Model,
    };
    for word in &launch.words {
        reader.word(word)?;
    }
    if let Pending::Value { name, seen: false } = &reader.pending
        && (name == "port" || name == "host")
    {
        return Err(Refusal::Port(format!("--{name} has no value")));
    }
    let host = match reader.host.as_deref() {
        None | Some("" | "0.0.0.0") => Host::Any,
        Some("::" | "[::]") => Host::AnyV6,
        Some("127.0.0.1" | "localhost") => Host::Loopback,
        Some("::1") => Host::LoopbackV6,
        Some(other) => return Err(Refusal::Host(other.to_owned())),
    };
    let key = reader.key.or_else(|| {
        let name = "VLLM_API_KEY";
        launch
            .environment
            .entry(name)
            .map(|_| ApiKey::Variable(name.to_owned()))
    });
    let (port, flag) = match reader.port {
        None => (PORT, None),
        Some((port, word, before)) => (port, Some((word, before))),
    };
    Ok(Listening {
        port,
        host,
        flag,
        end: launch.end,
        key,
    })
}

/// What the next word is to be.
enum Pending {
    /// The model, or a flag.
    Model,
    /// A flag.
    Flag,
    /// The value of this flag, or its further values.
    Value { name: String, seen: bool },
}

struct Reader<'e> {
    environment: &'e Environment<'e>,
    port: Option<(u16, Word, String)>,
    host: Option<String>,
    key: Option<ApiKey>,
    pending: Pending,
}

impl Reader<'_> {
    fn word(&mut self, word: &Word) -> Result<(), Refusal> {
        let Some(text) = word.text(self.environment) else {
            return self.unknown(word);
        };
        if word.vanishes(&text) {
            return Ok(());
        }
        if word.splits && text.trim().contains(char::is_whitespace) {
            return self.split(word, &text);
        }
        if let Pending::Value { name, seen: false } = &self.pending {
            // argparse takes no word for a value that looks like a flag; a negative number it does.
            if !text.starts_with("--") {
                let name = name.clone();
                self.pending = Pending::Value {
                    name: name.clone(),
                    seen: true,
                };
                return self.value(&name, &text, word, String::new());
            }
        }
        if word.splits && text.starts_with('-') {
            return self.split(word, &text);
        }
        if text == "--" {
            return Err(Refusal::Arguments("`--` among vLLM's arguments".to_owned()));
        }
        if text.starts_with("--") {
            return self.flag(word, &text);
        }
        if text.starts_with('-')
            && text.len() > 1
            && !text.starts_with(|c: char| c == '-' && c.is_ascii_digit())
        {
            if text == "-dpm" {
                return Err(Refusal::SeveralPorts);
            }
            self.pending = Pending::Value {
                name: String::new(),
                seen: false,
            };
            return Ok(());
        }
        if matches!(self.pending, Pending::Model) {
            self.pending = Pending::Flag;
        }
        Ok(())
    }

    /// A variable whose text the shell splits: its words may be flags, but nothing there can be edited.
    fn split(&mut self, word: &Word, text: &str) -> Result<(), Refusal> {
        let shown = word.variable().unwrap_or("a variable").to_owned();
        for part in text.split_whitespace() {
            let name = normalised(part);
            if name == "port" || name == "host" {
                return Err(Refusal::Port(format!("--{name} comes from ${shown}")));
            }
            if part.starts_with("--") {
                forbidden(&name)?;
            }
        }
        self.pending = Pending::Flag;
        Ok(())
    }

    fn flag(&mut self, word: &Word, text: &str) -> Result<(), Refusal> {
        let name = normalised(text);
        forbidden(&name)?;
        if name.contains(char::is_whitespace) {
            return Err(Refusal::Arguments(format!(
                "`{text}` is one argument, not two"
            )));
        }
        match text.split_once('=') {
            Some((spelled, value)) => {
                self.pending = Pending::Flag;
                self.value(&name, value, word, format!("{spelled}="))
            }
            None => {
                let switch = SWITCHES.contains(&name.as_str())
                    || ["enable-", "disable-", "no-"]
                        .iter()
                        .any(|prefix| name.starts_with(prefix));
                self.pending = if switch {
                    Pending::Flag
                } else {
                    Pending::Value { name, seen: false }
                };
                Ok(())
            }
        }
    }

    fn value(
        &mut self,
        name: &str,
        value: &str,
        word: &Word,
        before: String,
    ) -> Result<(), Refusal> {
        match name {
            "port" => {
                let port = value.parse().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| Refusal::Port(format!("--port is `{value}`")))?;
                if self.port.replace((port, word.clone(), before)).is_some() {
                    return Err(Refusal::Port("--port is given twice".to_owned()));
                }
            }
            "host" if self.host.is_some() => {
                return Err(Refusal::Port("--host is given twice".to_owned()));
            }
            "host" => self.host = Some(value.to_owned()),
            "api-key" => self.key = Some(from_variable(word)),
            _ => {}
        }
        Ok(())
    }

    /// A word whose text is known only in the pod.
    fn unknown(&mut self, word: &Word) -> Result<(), Refusal> {
        let head = word.head();
        if head.starts_with('-') {
            let Some((spelled, _)) = head.split_once('=') else {
                return Err(Refusal::Arguments(format!(
                    "`{head}…` is made from variables"
                )));
            };
            let name = normalised(spelled);
            forbidden(&name)?;
            self.pending = Pending::Flag;
            return self.unknown_value(&name, word);
        }
        if let Pending::Value { name, seen: false } = &self.pending {
            let name = name.clone();
            self.pending = Pending::Value {
                name: name.clone(),
                seen: true,
            };
            return self.unknown_value(&name, word);
        }
        if !head.is_empty() {
            return Ok(()); // A path or the like.
        }
        if matches!(self.pending, Pending::Model) {
            self.pending = Pending::Flag;
            return Ok(());
        }
        let shown = word
            .variable()
            .map_or_else(|| "a substitution".to_owned(), |name| format!("${name}"));
        Err(Refusal::Arguments(format!("{shown} may hold any flags")))
    }

    fn unknown_value(&mut self, name: &str, word: &Word) -> Result<(), Refusal> {
        match name {
            "port" | "host" => {
                let from = word.pieces.iter().find_map(|piece| match piece {
                    Piece::Variable { name, .. } => Some(format!("${name}")),
                    Piece::Text(_) | Piece::Positional | Piece::Opaque => None,
                });
                let from = from.unwrap_or_else(|| "a substitution".to_owned());
                Err(Refusal::Port(format!(
                    "--{name} comes from {from}, which is or may be set elsewhere"
                )))
            }
            "api-key" => {
                self.key = Some(from_variable(word));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn from_variable(word: &Word) -> ApiKey {
    word.variable()
        .map_or(ApiKey::Elsewhere, |name| ApiKey::Variable(name.to_owned()))
}

/// vLLM takes `--max_model_len` for `--max-model-len`.
fn normalised(flag: &str) -> String {
    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
    name.trim_start_matches('-').replace('_', "-")
}

/// Flags with which there is no plain HTTP on one TCP port that the specification names.
fn forbidden(name: &str) -> Result<(), Refusal> {
    match name {
        "uds" => Err(Refusal::UnixSocket),
        "config" => Err(Refusal::ConfigFile),
        "headless" => Err(Refusal::Headless),
        "grpc" => Err(Refusal::Grpc),
        "data-parallel-multi-port-external-lb" => Err(Refusal::SeveralPorts),
        // argparse takes beginnings of flags for the flags.
        "por" | "hos" | "ud" | "headles" => Err(Refusal::Arguments(format!(
            "`--{name}` is a flag cut short"
        ))),
        _ if name.starts_with("ssl") || name == "enable-ssl-refresh" => Err(Refusal::Tls),
        _ => Ok(()),
    }
}

impl Listening {
    /// The change that makes it listen on `port`.
    pub(super) fn moved(&self, port: u16) -> Move {
        match (&self.flag, self.end) {
            (Some((word, before)), _) => Move::Cut {
                argument: word.argument,
                cut: Cut {
                    at: word.span.clone(),
                    with: format!("{before}{port}"),
                },
            },
            (None, End::Script { argument, at }) => Move::Cut {
                argument,
                cut: Cut {
                    at: at..at,
                    with: format!(" --port {port}"),
                },
            },
            (None, End::List(list)) => Move::Append {
                list,
                elements: ["--port".to_owned(), port.to_string()],
            },
        }
    }
}

/// How the port is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// In a string of the command line.
    Cut {
        /// Which string.
        argument: usize,
        /// What of it.
        cut: Cut,
    },
    /// By more elements.
    Append {
        /// `command` or `args`.
        list: &'static str,
        /// They.
        elements: [String; 2],
    },
}
