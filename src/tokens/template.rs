//! Chat templates: Jinja, with what Python and transformers add to it.

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::clock::strftime;
use super::python::{self, Style};

/// Of a model's templates the one for requests with tools.
const WITH_TOOLS: &str = "tool_use";
const DEFAULT: &str = "default";

/// The chat template of one model.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    with_tools: bool,
    /// It walks through the parts of a message; else they are joined before it sees them.
    parts: bool,
    parts_with_tools: bool,
}

// === impl Template ===

impl Template {
    /// From a `chat_template`: a string, or a list of named ones.
    pub(super) fn new(templates: &serde_json::Value) -> Result<Self, String> {
        let named = |one: &serde_json::Value| {
            let text = |key| one.get(key).and_then(serde_json::Value::as_str);
            Some((text("name")?.to_owned(), text("template")?.to_owned()))
        };
        let sources = match templates {
            serde_json::Value::String(source) => vec![(DEFAULT.to_owned(), source.clone())],
            serde_json::Value::Array(list) => list.iter().filter_map(named).collect(),
            _ => Vec::new(),
        };
        let mut template = Self {
            environment: environment()?,
            with_tools: false,
            parts: false,
            parts_with_tools: false,
        };
        let mut default = false;
        for (name, source) in sources {
            let parts = walks_through_parts(&source);
            match name.as_str() {
                DEFAULT => (default, template.parts) = (true, parts),
                WITH_TOOLS => (template.with_tools, template.parts_with_tools) = (true, parts),
                _ => continue,
            }
            template
                .environment
                .add_template_owned(name, generation_as_if(&source))
                .map_err(|error| format!("the chat template is not valid: {error}"))?;
        }
        if default {
            Ok(template)
        } else {
            Err("has no chat template".to_owned())
        }
    }

    /// Whether messages are to have their content as a list of parts.
    pub(super) fn wants_parts(&self, tools: bool) -> bool {
        if tools && self.with_tools {
            self.parts_with_tools
        } else {
            self.parts
        }
    }

    /// The prompt.
    pub(super) fn render(
        &self,
        tools: bool,
        context: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, Error> {
        let name = if tools && self.with_tools {
            WITH_TOOLS
        } else {
            DEFAULT
        };
        let template = self.environment.get_template(name)?;
        template.render(Value::from(Serde(context)))
    }
}

fn environment() -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.map_err(|error| error.to_string())?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, _, value| match text(value) {
        Some(text) => Ok(out.write_str(&text)?),
        None => Ok(write!(out, "{value}")?),
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: Value| {
        text(&value).unwrap_or_else(|| value.to_string())
    });
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    // In Python a string is a sequence, so is a dictionary; None is neither that nor iterable.
    environment.add_test("sequence", |value: &Value| is_sequence(value.kind()));
    environment.add_test("iterable", |value: &Value| {
        is_sequence(value.kind())
            || matches!(value.kind(), ValueKind::Iterable | ValueKind::Undefined)
    });
    environment.add_function("strftime_now", |format: String| {
        strftime(&format, SystemTime::now())
    });
    Ok(environment)
}

fn is_sequence(kind: ValueKind) -> bool {
    matches!(kind, ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

/// As Python prints it, where that is not what minijinja prints.
fn text(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            serde_json::to_value(value)
                .ok()
                .map(|value| python::repr(&value))
        }
        ValueKind::Number if !value.is_integer() => serde_json::to_value(value)
            .ok()
            .map(|value| python::repr(&value)),
        _ => None,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a filter takes its arguments so"
)]
fn tojson(value: Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let wrong = |error: serde_json::Error| {
        Error::new(ErrorKind::BadSerialization, "cannot be JSON").with_source(error)
    };
    // transformers has ensure_ascii as the first of them; nobody passes that by position.
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let separators = match separators.as_deref() {
        Some([item, colon]) => Some((item.as_str(), colon.as_str())),
        _ => None,
    };
    let style = Style {
        indent: indent
            .and_then(|indent| usize::try_from(indent).ok())
            .map(|indent| indent.min(16)),
        separators,
        ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let value = serde_json::to_value(&value).map_err(wrong)?;
    Ok(python::json(&value, style))
}

/// `{% generation %}` marks what to train on and prints its body: `{% if true %}`.
fn generation_as_if(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let word = tag
            .trim_start_matches("{%")
            .trim_end_matches("%}")
            .trim_matches(['-', '+'])
            .trim();
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether there is a loop over a message's content: vLLM gives such a template the parts as they are.
fn walks_through_parts(source: &str) -> bool {
    source.split("{%").skip(1).any(|tag| {
        let tag = tag.split("%}").next().unwrap_or(tag);
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        let Some((_, over)) = tag
            .strip_prefix("for ")
            .and_then(|rest| rest.split_once(" in "))
        else {
            return false;
        };
        let name_end = over
            .trim_start()
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(over.trim_start().len());
        let (name, rest) = over.trim_start().split_at(name_end);
        let of_message = [".content", "['content']", "[\"content\"]"]
            .iter()
            .find_map(|access| rest.strip_prefix(access));
        // Not `.content.items()` or `.content_x`.
        let ends = |rest: &str| {
            !rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '('))
        };
        match of_message {
            Some(rest) => ends(rest),
            None => name == "content" && ends(rest),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str, context: &serde_json::Value) -> Result<String, String> {
        let template = Template::new(&json!(source))?;
        template
            .render(false, context.as_object().unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_templates_use() {
        let context = json!({
            "messages": [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "a</think>\n\nb"}],
            "tools": [{"z": 1, "a": {"é": [1.0, true, null]}}],
        });
        for (source, want) in [
            (
                "{{ none is iterable }}{{ 'a' is sequence }}{{ tools[0] is sequence }}{{ tools is iterable }}",
                "FalseTrueTrueTrue",
            ),
            (
                "{{ tools | tojson }}",
                r#"[{"z": 1, "a": {"é": [1.0, true, null]}}]"#,
            ),
            ("{{ tools[0]['z'] | tojson(indent=4) }}", "1"),
            (
                "{{ tools[0] | tojson(separators=(',', ':')) }}",
                r#"{"z":1,"a":{"é":[1.0,true,null]}}"#,
            ),
            ("{{ tools }}", "[{'z': 1, 'a': {'é': [1.0, True, None]}}]"),
            ("{{ none }}{{ true }}{{ missing }}", "NoneTrue"),
            (
                "{{ messages[0].content.strip() }}|{{ messages[0].content | trim }}",
                "hi|hi",
            ),
            (
                "{{ messages[-1].content.split('</think>')[-1].lstrip('\\n') }}",
                "b",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}",
                "3",
            ),
            (
                "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m['role'] }}{% endfor %}",
                "assistant",
            ),
            (
                "{% for k, v in tools[0].items() %}{{ k }},{% endfor %}",
                "z,a,",
            ),
            (
                "{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}",
                "au",
            ),
            ("a {%- generation %} b {% endgeneration -%} c", "a b c"),
            ("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
            (
                "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(1) ~ f('a') }}",
                "<1><a>",
            ),
            (
                "{{ 'x' if messages[0].content is string and tools is not none and nope is not defined }}",
                "x",
            ),
            (
                "{% if 'think' in messages[1].content and not messages[0].role.startswith('s') %}y{% endif %}",
                "y",
            ),
            (
                "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
                "1",
            ),
        ] {
            assert_eq!(render(source, &context).as_deref(), Ok(want), "{source}");
        }
        let raised = render("{{ raise_exception('no such role') }}", &context).unwrap_err();
        assert!(raised.contains("no such role"), "{raised}");
        let broken = render("{% if %}", &context).unwrap_err();
        assert!(
            broken.starts_with("the chat template is not valid: "),
            "{broken}"
        );
    }

    #[test]
    fn of_named_templates_the_one_for_tools() {
        let template = Template::new(&json!([
            {"name": "default", "template": "d"},
            {"name": "tool_use", "template": "{% for p in m.content %}t{% endfor %}"},
            {"name": "rag", "template": "{% broken"},
        ]))
        .unwrap();
        assert_eq!(
            template.render(false, &serde_json::Map::new()).unwrap(),
            "d"
        );
        assert!(template.wants_parts(true) && !template.wants_parts(false));
        assert!(Template::new(&json!([])).is_err());
        assert!(Template::new(&json!(null)).is_err());
    }

    #[test]
    fn templates_that_walk_through_parts() {
        for (source, want) in [
            ("{% for m in messages %}{{ m.content }}{% endfor %}", false),
            ("{%- for part in message['content'] -%}{%- endfor %}", true),
            (
                "{% for c in m.content | selectattr('type', 'equalto', 'image') %}",
                true,
            ),
            ("{%- for item in content %}", true),
            ("{% for x in contents %}", false),
            ("{% for k in m.content.items() %}", false),
            ("for x in content", false),
        ] {
            assert_eq!(walks_through_parts(source), want, "{source}");
        }
    }
}
