//! How a container starts: whether its command line is a vLLM server, and which words are the server's.

use serde_json::Value;

use super::environment::Environment;
use super::image;
use super::refusal::Refusal;
use super::shell;
use super::word::{Piece, Word};

/// A vLLM server's command line.
#[derive(Clone, Debug)]
pub(super) struct Launch<'a> {
    /// The strings of `command` and then of `args`.
    pub(super) strings: Vec<Text<'a>>,
    /// The server's words, from the model or the first flag on.
    pub(super) words: Vec<Word>,
    /// Where more flags may go.
    pub(super) end: End,
    /// The variables that its words may use.
    pub(super) environment: Environment<'a>,
}

/// A string of the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    /// `command` or `args`.
    pub(super) list: &'static str,
    /// Its place there.
    pub(super) index: usize,
    /// It.
    pub(super) text: &'a str,
}

/// Where a flag is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As further elements of this list.
    List(&'static str),
    /// In the script that is string `argument`, at byte `at`.
    Script {
        /// Which string.
        argument: usize,
        /// After the last word.
        at: usize,
    },
}

/// What a container is.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A vLLM server.
    Server(Box<Launch<'a>>),
    /// A worker of somebody else's server.
    Worker,
    /// Nothing of vLLM's.
    Other,
    /// It may be vLLM, but its command line cannot be read.
    Unsure(Refusal),
}

const SHELLS: [&str; 5] = ["sh", "bash", "dash", "ash", "zsh"];
/// Programs that run the rest of their command line; their own options begin with a dash.
const WRAPPERS: [&str; 14] = [
    "exec",
    "nohup",
    "time",
    "command",
    "setsid",
    "env",
    "tini",
    "dumb-init",
    "catatonit",
    "numactl",
    "nice",
    "stdbuf",
    "opentelemetry-instrument",
    "ddtrace-run",
];
const KEYWORDS: [&str; 9] = [
    "if", "then", "else", "elif", "do", "while", "until", "!", "{",
];
const SERVERS: [&str; 3] = [
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.api_server",
    "vllm.entrypoints.openai.server",
];

impl<'a> Launch<'a> {
    fn found(
        strings: Vec<Text<'a>>,
        words: Vec<Word>,
        end: End,
        environment: Environment<'a>,
    ) -> Found<'a> {
        Found::Server(Box::new(Self {
            strings,
            words,
            end,
            environment,
        }))
    }
}

/// Looks at a container.
pub(super) fn look(container: &Value) -> Found<'_> {
    let environment = Environment::of(container);
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(strings) = strings(container) else {
        return Found::Unsure(Refusal::NotStrings);
    };
    let elements: Vec<Word> = strings
        .iter()
        .enumerate()
        .map(|(argument, text)| Word::element(argument, text.text, &environment))
        .collect();
    let list = if strings.iter().any(|text| text.list == "args") {
        "args"
    } else {
        "command"
    };
    let given = strings.iter().any(|text| text.list == "command");
    let first = elements.first().and_then(Word::literal).map(program);

    if let Some(script) = script(&elements) {
        return in_script(strings, &elements, script, &environment, image);
    }
    if let Some(start) = server(&elements, &environment) {
        let words = elements.get(start..).unwrap_or_default().to_vec();
        return Launch::found(strings, words, End::List(list), environment);
    }
    let runs_program = given
        || first.is_some_and(|name| name == "vllm" || is_python(name) || SHELLS.contains(&name));
    if !runs_program && image::starts_server(image) {
        return Launch::found(strings, elements, End::List("args"), environment);
    }
    if is_worker(strings.iter().map(|text| text.text)) {
        return Found::Worker;
    }
    let mentioned = strings.iter().any(|text| mentions_server(text.text));
    if !image::mentions_vllm(image) && !mentioned {
        return Found::Other;
    }
    // Whatever the entry point is: it is asked for a port in vLLM's words, so the port is what it listens on.
    if !runs_program && elements.iter().any(|word| is_port_flag(word.head())) {
        return Launch::found(strings, elements, End::List("args"), environment);
    }
    // `vllm bench` and the like.
    let second = elements.get(1).and_then(Word::literal);
    if first == Some("vllm") && second.is_some_and(|verb| verb != "serve") {
        return Found::Other;
    }
    if given {
        // Another program of vLLM's image: `sleep`, a download, a benchmark.
        if mentioned || !first.is_some_and(is_known_other) {
            return Found::Unsure(Refusal::UnknownCommand(
                strings
                    .first()
                    .map(|text| text.text.to_owned())
                    .unwrap_or_default(),
            ));
        }
        return Found::Other;
    }
    Found::Unsure(Refusal::UnknownEntrypoint(image.to_owned()))
}

/// All strings of the command line, or none if something there is no string.
fn strings(container: &Value) -> Option<Vec<Text<'_>>> {
    let mut strings = Vec::new();
    for list in ["command", "args"] {
        match container.get(list) {
            None | Some(Value::Null) => {}
            Some(Value::Array(elements)) => {
                for (index, element) in elements.iter().enumerate() {
                    strings.push(Text {
                        list,
                        index,
                        text: element.as_str()?,
                    });
                }
            }
            Some(_) => return None,
        }
    }
    Some(strings)
}

fn program(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn is_python(program: &str) -> bool {
    program
        .strip_prefix("python")
        .is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Programs that are no server, whatever the image.
fn is_known_other(program: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "sleep",
        "tail",
        "cp",
        "ls",
        "cat",
        "echo",
        "true",
        "nvidia-smi",
        "huggingface-cli",
        "hf",
        "aws",
        "gsutil",
    ];
    OTHERS.contains(&program)
}

fn mentions_server(text: &str) -> bool {
    text.contains("vllm serve") || SERVERS.iter().any(|module| text.contains(module))
}

fn is_port_flag(text: &str) -> bool {
    text == "--port" || text.starts_with("--port=")
}

/// `ray start` without `--head`, or vLLM's own script for it.
fn is_worker<'t>(texts: impl Iterator<Item = &'t str>) -> bool {
    let line = texts.collect::<Vec<_>>().join(" ");
    let ray = line.contains("ray start") && !line.contains("--head");
    (ray || line.contains("multi-node-serving.sh worker") || line.contains("ray_init.sh worker"))
        && !mentions_server(&line)
}

/// The place of the script in `sh -c SCRIPT`.
fn script(elements: &[Word]) -> Option<usize> {
    let mut words = elements.iter().enumerate().peekable();
    while let Some((_, word)) = words.next_if(|(_, word)| {
        word.literal()
            .is_some_and(|text| WRAPPERS.contains(&program(text)) || text == "--" || text == "-g")
    }) {
        let _wrapper = word;
    }
    let (_, shell) = words.next()?;
    if !SHELLS.contains(&program(shell.literal()?)) {
        return None;
    }
    while let Some((_, word)) = words.next() {
        let option = word.literal()?;
        if option == "-o" || option == "+o" || option == "-O" {
            words.next()?;
        } else if let Some(letters) = option.strip_prefix('-') {
            if !letters.starts_with('-') && letters.contains('c') {
                return words.next().map(|(place, _)| place);
            }
        } else {
            return None;
        }
    }
    None
}

fn in_script<'a>(
    strings: Vec<Text<'a>>,
    elements: &[Word],
    place: usize,
    environment: &Environment<'a>,
    image: &str,
) -> Found<'a> {
    let Some(text) = strings.get(place).map(|text| text.text) else {
        return Found::Other;
    };
    let mentioned = mentions_server(text) || (text.contains("vllm") && image::mentions_vllm(image));
    let script = match shell::read(place, text) {
        Ok(script) => script,
        Err(beyond) if mentioned => return Found::Unsure(Refusal::Script(beyond.to_string())),
        Err(_) => return Found::Other,
    };
    // The published images set nothing that a command line would use; of others nobody knows here.
    let environment = environment.within(script.assigned, image::starts_server(image));
    let mut servers = script.commands.iter().filter_map(|words| {
        let start = server(words, &environment)?;
        Some((words, words.get(start..)?))
    });
    match (servers.next(), servers.next()) {
        (Some((command, words)), None) => {
            let Some(at) = command.last().map(|word| word.span.end) else {
                return Found::Other;
            };
            let rest = elements.get(place + 2..).unwrap_or_default();
            let words = words.iter().flat_map(|word| match word.pieces.as_slice() {
                [Piece::Positional] => rest.to_vec(),
                _ => vec![word.clone()],
            });
            let end = End::Script {
                argument: place,
                at,
            };
            Launch::found(strings, words.collect(), end, environment)
        }
        (Some(_), Some(_)) => Found::Unsure(Refusal::SeveralInScript),
        (None, _) if is_worker(strings.iter().map(|text| text.text)) => Found::Worker,
        (None, _) if mentioned => Found::Unsure(Refusal::Script(
            "vLLM is not started by a plain command of it".to_owned(),
        )),
        (None, _) => Found::Other,
    }
}

/// Where the server's own words begin, if this command is one.
fn server(words: &[Word], environment: &Environment<'_>) -> Option<usize> {
    let text = |at: usize| words.get(at).and_then(|word| word.text(environment));
    let mut at = 0;
    loop {
        let word = text(at)?;
        let name = program(&word);
        if KEYWORDS.contains(&name) || words.get(at).and_then(shell::assignment).is_some() {
            at += 1;
        } else if WRAPPERS.contains(&name) {
            at += 1;
            while text(at).is_some_and(|option| option.starts_with('-')) {
                at += 1;
            }
        } else if name == "uv" && text(at + 1).as_deref() == Some("run") {
            at += 2;
        } else {
            break;
        }
    }
    let first = text(at)?;
    let name = program(&first);
    if name == "vllm" {
        return (text(at + 1)? == "serve").then_some(at + 2);
    }
    if !is_python(name) {
        return None;
    }
    loop {
        at += 1;
        let option = text(at)?;
        if option == "-m" {
            let module = text(at + 1)?;
            if SERVERS.contains(&module.as_str()) {
                return Some(at + 2);
            }
            let command = matches!(module.as_str(), "vllm" | "vllm.entrypoints.cli.main");
            return (command && text(at + 2)? == "serve").then_some(at + 3);
        }
        if option == "-X" || option == "-W" {
            at += 1;
        } else if program(&option) == "vllm" {
            // `python3 /usr/local/bin/vllm serve`
            return (text(at + 1)? == "serve").then_some(at + 2);
        } else if !option.starts_with('-') {
            return None;
        }
    }
}
