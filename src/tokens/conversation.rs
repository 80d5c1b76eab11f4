//! A chat request → what its template sees, the way vLLM prepares it.
//!
//! `None` anywhere is a request that vLLM would refuse or fill from elsewhere (images, audio, a template of its own):
//! its prompt can only be estimated.

use serde_json::{Map, Value, json};

/// A chat request.
#[derive(Debug)]
pub(super) struct Conversation<'a>(&'a Map<String, Value>);

/// What vLLM appends to the last message, so that the prompt can be cut right behind it.
const CONTINUED: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

// === impl Conversation ===

impl<'a> Conversation<'a> {
    /// `None` if it asks for what only vLLM can do.
    pub(super) fn new(body: &'a Map<String, Value>) -> Option<Self> {
        let beyond = [
            "chat_template",
            "truncate_prompt_tokens",
            "prompt_embeds",
            "mm_processor_kwargs",
        ];
        let plain = beyond
            .iter()
            .all(|key| body.get(*key).is_none_or(Value::is_null));
        plain.then_some(Self(body))
    }

    pub(super) fn has_tools(&self) -> bool {
        self.get("tools").is_some()
    }

    /// The flag that has special tokens put in front of what the template wrote: they are its business.
    pub(super) fn adds_special_tokens(&self) -> bool {
        self.flag("add_special_tokens", false)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The template's variables. `special` are the tokenizer's tokens by name; `parts` leaves a message's content in
    /// parts; `developer` says that the template knows that role.
    pub(super) fn context(
        &self,
        special: &Map<String, Value>,
        parts: bool,
        developer: bool,
    ) -> Option<Map<String, Value>> {
        let mut context = special.clone();
        if let Some(own) = self.get("chat_template_kwargs") {
            let own = own.as_object()?;
            if own.contains_key("chat_template") || own.contains_key("tokenize") {
                return None;
            }
            context.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        if let Some(effort) = self.get("reasoning_effort") {
            context.insert("reasoning_effort".to_owned(), effort.clone());
            context
                .entry("enable_thinking")
                .or_insert_with(|| Value::Bool(effort != "none"));
        }
        let mut messages = self.get("messages")?.as_array()?.iter();
        let messages: Option<Vec<_>> = messages.by_ref().map(|one| message(one, parts)).collect();
        let mut messages = messages?;
        if !developer
            && messages
                .iter()
                .any(|message| message["role"] == "developer")
        {
            messages = developers_as_system(messages)?;
        }
        if self.continues() {
            mark_last(messages.last_mut()?)?;
        }
        let tools = match self.get("tools") {
            Some(tools) => tools
                .as_array()?
                .iter()
                .map(tool)
                .collect::<Option<Value>>()?,
            None => Value::Null,
        };
        context.insert("messages".to_owned(), Value::Array(messages));
        context.insert("tools".to_owned(), tools);
        context.insert(
            "documents".to_owned(),
            self.get("documents").cloned().unwrap_or_default(),
        );
        context.insert(
            "add_generation_prompt".to_owned(),
            Value::Bool(self.flag("add_generation_prompt", true)),
        );
        Some(context)
    }

    fn continues(&self) -> bool {
        self.flag("continue_final_message", false)
    }

    /// The prompt as it goes to the tokenizer: cut where the last message is to be continued.
    pub(super) fn cut(&self, mut prompt: String) -> Option<String> {
        if self.continues() {
            let at = prompt.rfind(CONTINUED.trim_end())?;
            let kept_blank = prompt
                .get(at..)
                .is_some_and(|rest| rest.starts_with(CONTINUED));
            prompt.truncate(at);
            if !kept_blank {
                // The template trims what it is given.
                prompt.truncate(prompt.trim_end().len());
            }
        }
        Some(prompt)
    }
}

/// One message. Of its fields only those that vLLM hands on.
fn message(message: &Value, parts: bool) -> Option<Value> {
    let message = message.as_object()?;
    let role = message.get("role")?.as_str()?;
    let mut texts: Vec<Map<String, Value>> = match message.get("content") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![part_of(text)],
        Some(Value::Array(list)) => list
            .iter()
            .map(part_text)
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect(),
        Some(_) => return None,
    };
    if role == "system" {
        drop_billing_headers(&mut texts);
    }
    // Templates take the result of a tool as one string, whatever else they do with parts.
    let content = if parts && role != "tool" {
        Value::Array(texts.into_iter().map(Value::Object).collect())
    } else {
        let texts: Vec<_> = texts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect();
        Value::String(texts.join("\n"))
    };
    let mut out = Map::new();
    out.insert("role".to_owned(), Value::String(role.to_owned()));
    out.insert("content".to_owned(), content);
    let given = |key: &str| message.get(key).filter(|value| !value.is_null());
    if role == "assistant" {
        if let Some(calls) = given("tool_calls") {
            let calls: Option<Vec<_>> = calls.as_array()?.iter().map(tool_call).collect();
            let calls = calls?;
            if !calls.is_empty() {
                out.insert("tool_calls".to_owned(), Value::Array(calls));
            }
        }
        if let Some(reasoning) = given("reasoning") {
            out.insert("reasoning".to_owned(), reasoning.clone());
            out.insert("reasoning_content".to_owned(), reasoning.clone());
        }
    }
    if role == "tool"
        && let Some(id) = given("tool_call_id")
    {
        out.insert("tool_call_id".to_owned(), id.clone());
    }
    if let Some(name @ Value::String(_)) = given("name") {
        out.insert("name".to_owned(), name.clone());
    }
    if role == "developer" {
        let tools = message.get("tools").cloned().unwrap_or_default();
        out.insert("tools".to_owned(), tools);
    }
    Some(Value::Object(out))
}

fn part_of(text: &str) -> Map<String, Value> {
    let mut part = Map::new();
    part.insert("type".to_owned(), Value::String("text".to_owned()));
    part.insert("text".to_owned(), Value::String(text.to_owned()));
    part
}

/// The text of a content part; `Some(None)` if there is none in it, `None` if it is no text at all.
#[expect(
    clippy::option_option,
    reason = "two ways to have no text, of which one ends it"
)]
fn part_text(part: &Value) -> Option<Option<Map<String, Value>>> {
    if let Value::String(text) = part {
        return Some(Some(part_of(text)));
    }
    let part = part.as_object()?;
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
    let key = match kind {
        "text" | "input_text" | "output_text" => "text",
        "refusal" | "thinking" => kind,
        _ => return None,
    };
    match part.get(key) {
        Some(Value::String(text)) => Some(Some(part_of(text))),
        None | Some(Value::Null) if matches!(kind, "text" | "refusal") => Some(None),
        _ => None,
    }
}

/// vLLM takes the line with Claude Code's ever-changing header out of system messages.
fn drop_billing_headers(parts: &mut Vec<Map<String, Value>>) {
    parts.retain_mut(|part| {
        let text = part.get("text").and_then(Value::as_str).unwrap_or_default();
        if !text.starts_with("x-anthropic-billing-header") {
            return true;
        }
        let rest = text
            .split_once('\n')
            .map_or("", |(_, rest)| rest)
            .to_owned();
        let keep = !rest.is_empty();
        part.insert("text".to_owned(), Value::String(rest));
        keep
    });
}

/// A tool call of the past: its arguments come as a string, and templates want the object.
fn tool_call(call: &Value) -> Option<Value> {
    let mut call = call.clone();
    let function = call.get_mut("function")?.as_object_mut()?;
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => serde_json::from_str::<Value>(text).ok(),
        Some(object) => Some(object.clone()),
        None => None,
    };
    let arguments = arguments.filter(Value::is_object);
    function.insert(
        "arguments".to_owned(),
        arguments.unwrap_or_else(|| json!({})),
    );
    Some(call)
}

/// A tool as vLLM's own types print it: fixed fields in a fixed order, and `null` for some that are absent.
fn tool(tool: &Value) -> Option<Value> {
    let given = tool.get("function")?.as_object()?;
    let mut function = Map::new();
    for key in ["name", "description", "parameters"] {
        function.insert(key.to_owned(), given.get(key).cloned().unwrap_or_default());
    }
    let deferred = tool.get("defer_loading").filter(|value| !value.is_null());
    for (key, value) in [
        ("strict", given.get("strict")),
        ("defer_loading", given.get("defer_loading").or(deferred)),
    ] {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            function.insert(key.to_owned(), value.clone());
        }
    }
    let mut out = Map::new();
    out.insert("type".to_owned(), Value::String("function".to_owned()));
    out.insert("function".to_owned(), Value::Object(function));
    if let Some(deferred) = deferred {
        out.insert("defer_loading".to_owned(), deferred.clone());
    }
    Some(Value::Object(out))
}

/// For templates that know no developer: its messages become the system's, and all of those one, in front.
fn developers_as_system(messages: Vec<Value>) -> Option<Vec<Value>> {
    let mut messages = messages;
    for message in &mut messages {
        if message["role"] == "developer" {
            let message = message.as_object_mut()?;
            message.insert("role".to_owned(), Value::String("system".to_owned()));
            message.shift_remove("tools");
        }
    }
    let is_system = |message: &Value| message["role"] == "system";
    if !messages.iter().skip(1).any(is_system) {
        return Some(messages);
    }
    let (system, others): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_system);
    let contents: Vec<_> = system
        .iter()
        .map(|message| match &message["content"] {
            Value::Array(parts) => {
                let texts: Vec<_> = parts.iter().filter_map(|p| p["text"].as_str()).collect();
                texts.join("\n")
            }
            content => content.as_str().unwrap_or_default().to_owned(),
        })
        .filter(|content| !content.is_empty())
        .collect();
    let merged = json!({"role": "system", "content": contents.join("\n\n")});
    Some(std::iter::once(merged).chain(others).collect())
}

fn mark_last(message: &mut Value) -> Option<()> {
    let text = match message.get_mut("content")? {
        Value::String(text) => text,
        Value::Array(parts) => match parts.last_mut()?.get_mut("text")? {
            Value::String(text) => text,
            _ => return None,
        },
        _ => return None,
    };
    text.push_str(CONTINUED);
    Some(())
}
