//! A model's own tokenizer and chat template: counts that are vLLM's, as far as what it counted can be seen.
//!
//! The prompt can: it is in the request. Of the output, what a parser took out of the text (the markup around reasoning
//! and tool calls) is not on the wire, so that answers with either are counted some tokens short.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::classify::Endpoint;
use crate::config::{TokenModel, reason};

use super::conversation::Conversation;
use super::template::Template;

/// More than any tokenizer.json there is, and the end of `/dev/zero`.
const LONGEST: u64 = 256 << 20;

/// One model.
#[derive(Debug)]
pub(super) struct Exact {
    tokenizer: Tokenizer,
    template: Option<Template>,
    /// `bos_token` and the like, which templates print.
    special: Map<String, Value>,
    knows_developers: bool,
}

/// The files of one model.
struct Files {
    tokenizer: PathBuf,
    config: PathBuf,
    template: Option<PathBuf>,
}

// === impl Exact ===

impl Exact {
    /// Loads a model's files. An error is one line.
    pub(super) fn load(model: &TokenModel) -> Result<Self, String> {
        let files = Files::of(model);
        let bytes = read(&files.tokenizer)?;
        let tokenizer = contained(|| Tokenizer::from_bytes(&bytes))
            .ok_or_else(|| unusable(&files.tokenizer, &"it breaks the loader"))?;
        let mut tokenizer = tokenizer.map_err(|error| unusable(&files.tokenizer, &error))?;
        // What is cut or filled up is vLLM's to say; counts are of the text as it is.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| unusable(&files.tokenizer, &error))?;
        let config = match read(&files.config) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes)
                .map_err(|error| unusable(&files.config, &error))?,
            Err(why) if model.template.as_ref() == Some(&files.config) => return Err(why),
            Err(_) => Value::Null,
        };
        let source = match &files.template {
            Some(path) => {
                let text = String::from_utf8(read(path)?)
                    .map_err(|_not_text| unusable(path, &"it is not UTF-8"))?;
                Some(Value::String(text))
            }
            None => config
                .get("chat_template")
                .filter(|template| !template.is_null())
                .cloned(),
        };
        let path = files.template.as_ref().unwrap_or(&files.config);
        let template = match &source {
            Some(source) => Some(Template::new(source).map_err(|error| unusable(path, &error))?),
            None if model.template.is_some() => {
                return Err(unusable(path, &"it has no chat template"));
            }
            None => None,
        };
        let knows_developers = source.is_some_and(|source| {
            let source = source.to_string();
            source.contains("'developer'") || source.contains("\\\"developer\\\"")
        });
        Ok(Self {
            tokenizer,
            template,
            special: special_tokens(&config),
            knows_developers,
        })
    }

    /// Tokens of generated text. Special tokens in it would be its own words, but vLLM leaves none in.
    pub(super) fn text(&self, text: &str) -> Option<u64> {
        self.encode(text, false)
    }

    /// Tokens of a request's prompt, where they can be told exactly.
    pub(super) fn prompt(&self, endpoint: Endpoint, body: &[u8]) -> Option<u64> {
        let body: Map<String, Value> = serde_json::from_slice(body).ok()?;
        match endpoint {
            Endpoint::ChatCompletions => self.chat(&body),
            Endpoint::Completions => self.plain(body.get("prompt")?, &body),
            Endpoint::Embeddings if body.contains_key("messages") => self.chat(&body),
            Endpoint::Embeddings => self.plain(body.get("input")?, &body),
            _ => None,
        }
    }

    fn chat(&self, body: &Map<String, Value>) -> Option<u64> {
        let template = self.template.as_ref()?;
        let conversation = Conversation::new(body)?;
        let tools = conversation.has_tools();
        let parts = template.wants_parts(tools);
        let context = conversation.context(&self.special, parts, self.knows_developers)?;
        let prompt = contained(|| template.render(tools, &context))?.ok()?;
        let prompt = conversation.cut(prompt)?;
        self.encode(&prompt, conversation.adds_special_tokens())
    }

    /// A string, token ids, or a list of either.
    fn plain(&self, prompt: &Value, body: &Map<String, Value>) -> Option<u64> {
        if body
            .get("truncate_prompt_tokens")
            .is_some_and(|limit| !limit.is_null())
        {
            return None;
        }
        let special = body.get("add_special_tokens").and_then(Value::as_bool);
        let special = special.unwrap_or(true);
        match prompt {
            Value::String(text) => self.encode(text, special),
            Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_u64) => {
                Some(list.len() as u64)
            }
            Value::Array(list) if !list.is_empty() => list
                .iter()
                .map(|one| match one {
                    Value::String(text) => self.encode(text, special),
                    Value::Array(ids) if ids.iter().all(Value::is_u64) => Some(ids.len() as u64),
                    _ => None,
                })
                .sum(),
            _ => None,
        }
    }

    fn encode(&self, text: &str, special: bool) -> Option<u64> {
        let encoding = contained(|| self.tokenizer.encode_fast(text, special))?.ok()?;
        Some(encoding.len() as u64)
    }
}

/// A bug in someone else's crate must not end the thread that all counts come from.
fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

// === impl Files ===

impl Files {
    fn of(model: &TokenModel) -> Self {
        let tokenizer = if model.tokenizer.is_dir() {
            model.tokenizer.join("tokenizer.json")
        } else {
            model.tokenizer.clone()
        };
        let beside = tokenizer.parent().unwrap_or(Path::new(""));
        let is_config = |path: &Path| path.extension().is_some_and(|end| end == "json");
        let (config, template) = match &model.template {
            Some(path) if is_config(path) => (path.clone(), None),
            Some(path) => (beside.join("tokenizer_config.json"), Some(path.clone())),
            None => {
                // transformers writes the template into a file of its own since 4.52, and prefers it.
                let jinja = beside.join("chat_template.jinja");
                let jinja = jinja.is_file().then_some(jinja);
                (beside.join("tokenizer_config.json"), jinja)
            }
        };
        Self {
            tokenizer,
            config,
            template,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        if fs::metadata(path)?.len() > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        fs::read(path)
    };
    read().map_err(|error| format!("cannot read {}: {}", path.display(), reason(&error)))
}

/// One line, however many the reason has.
fn unusable(path: &Path, why: &dyn std::fmt::Display) -> String {
    let why = why.to_string().replace('\n', " ");
    format!("{} cannot be used: {why}", path.display())
}

/// `bos_token` and the like, as strings or as objects with `content`.
fn special_tokens(config: &Value) -> Map<String, Value> {
    const NAMES: [&str; 7] = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ];
    let token = |name: &str| {
        let token = config.get(name)?;
        let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
        Some((name.to_owned(), Value::String(text.to_owned())))
    };
    NAMES.into_iter().filter_map(token).collect()
}
