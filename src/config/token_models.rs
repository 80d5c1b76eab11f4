//! `[[tokens.model]]`: the one key whose value is a list of tables.

use std::path::PathBuf;

use super::TokenModel;
use super::kind::{Kind, quote};
use super::suggest::nearest;
use super::value::{Field, Form, Mistake, Value};

/// Tables with `name`, `tokenizer` and `template`; in the environment `NAME=TOKENIZER`.
pub(super) struct TokenModels;

const FIELDS: [&str; 3] = ["name", "tokenizer", "template"];

const WANTED: &str = "a table with name and tokenizer";

impl Kind<Vec<TokenModel>> for TokenModels {
    fn read(&self, value: &Value) -> Result<Vec<TokenModel>, Vec<Mistake>> {
        let items = match &value.form {
            Form::List(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let mut models: Vec<TokenModel> = Vec::with_capacity(items.len());
        let mut mistakes = Vec::new();
        for item in items {
            match model(item) {
                Ok(model) => {
                    let taken = |name: &&String| models.iter().any(|m| m.names.contains(name));
                    if let Some(name) = model.names.iter().find(taken) {
                        mistakes.extend(item.mistake(format!("{name:?} is named twice")));
                    }
                    models.push(model);
                }
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        if mistakes.is_empty() {
            Ok(models)
        } else {
            Err(mistakes)
        }
    }

    fn show(&self, field: &Vec<TokenModel>) -> String {
        let models: Vec<_> = field.iter().map(show).collect();
        format!("[{}]", models.join(", "))
    }
}

fn model(value: &Value) -> Result<TokenModel, Vec<Mistake>> {
    match &value.form {
        Form::Table(fields) => of_table(value, fields),
        Form::Word(word) => match word.split_once('=') {
            Some((name, path)) if !name.trim().is_empty() && !path.trim().is_empty() => {
                Ok(TokenModel {
                    names: vec![name.trim().to_owned()],
                    tokenizer: PathBuf::from(path.trim()),
                    template: None,
                })
            }
            _ => Err(value.unexpected("NAME=TOKENIZER")),
        },
        _ => Err(value.unexpected(WANTED)),
    }
}

fn of_table(value: &Value, fields: &[Field]) -> Result<TokenModel, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    for field in fields {
        let name = field.name.as_str();
        if !FIELDS.contains(&name) {
            let hint = nearest(name, FIELDS)
                .map_or_else(String::new, |near| format!(", did you mean {near:?}?"));
            mistakes.push(Mistake {
                at: Some(field.at),
                message: format!("unknown key {name:?}{hint}"),
            });
        }
    }
    let find = |name| fields.iter().find(|field| field.name == name);
    let mut path = |name, needed| {
        let Some(field) = find(name) else {
            if needed {
                mistakes.extend(value.mistake(format!("{name} is missing")));
            }
            return None;
        };
        let text = field.value.text();
        match text {
            Some("") if !needed => None,
            Some(text) if !text.is_empty() => Some(PathBuf::from(text)),
            _ => {
                let wrong = field.value.unexpected("a path");
                mistakes.extend(prefixed(name, wrong));
                None
            }
        }
    };
    let tokenizer = path("tokenizer", true);
    let template = path("template", false);
    let names = match find("name") {
        Some(field) => names(&field.value).unwrap_or_else(|wrong| {
            mistakes.extend(prefixed("name", wrong));
            Vec::new()
        }),
        None => {
            mistakes.extend(value.mistake("name is missing"));
            Vec::new()
        }
    };
    match tokenizer {
        Some(tokenizer) if mistakes.is_empty() => Ok(TokenModel {
            names,
            tokenizer,
            template,
        }),
        _ => Err(mistakes),
    }
}

fn names(value: &Value) -> Result<Vec<String>, Vec<Mistake>> {
    let items = match &value.form {
        Form::List(items) if !items.is_empty() => items.as_slice(),
        _ => std::slice::from_ref(value),
    };
    let name = |item: &Value| {
        let name = item.text().map(str::trim).filter(|name| !name.is_empty());
        name.map(str::to_owned)
            .ok_or_else(|| item.unexpected("a model's name, or a list of them"))
    };
    items.iter().map(name).collect()
}

fn prefixed(name: &str, mistakes: Vec<Mistake>) -> impl Iterator<Item = Mistake> {
    mistakes.into_iter().map(move |mistake| Mistake {
        message: format!("{name}: {}", mistake.message),
        ..mistake
    })
}

fn show(model: &TokenModel) -> String {
    let names: Vec<_> = model.names.iter().map(|name| quote(name)).collect();
    let path = |path: &PathBuf| quote(&path.display().to_string());
    let template = model
        .template
        .as_ref()
        .map_or_else(String::new, |file| format!(", template = {}", path(file)));
    format!(
        "{{ name = [{}], tokenizer = {}{template} }}",
        names.join(", "),
        path(&model.tokenizer)
    )
}

#[cfg(test)]
mod tests {
    use crate::config::Sources;
    use crate::config::show;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<crate::config::Loaded, String> {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|(k, v)| (k.into(), v.into()));
        let loaded = Sources::new(environment).with_file(Some(path)).load();
        loaded.map_err(|errors| {
            let lines = errors.to_string();
            let lines = lines.lines().map(|line| match line.split_once("x.toml:") {
                Some((_, rest)) => rest.to_owned(),
                None => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n")
        })
    }

    #[test]
    fn tables_and_their_printed_form() {
        let text = "[tokens]\nqueue = 5\n[[tokens.model]]\nname = \"a\"\ntokenizer = \"/m/a\"\n\
                    [[tokens.model]]\nname = [\"b\", \"c\"]\ntokenizer = \"t.json\"\ntemplate = \"x.jinja\"\n";
        let loaded = load(text, &[]).unwrap();
        let models = &loaded.config.tokens.models;
        assert_eq!(models.len(), 2);
        assert_eq!(models[0].names, ["a"]);
        assert_eq!(models[0].template, None);
        assert_eq!(models[1].names, ["b", "c"]);
        let again = load(&show(&loaded), &[]).unwrap();
        assert_eq!(again.config, loaded.config);
    }

    #[test]
    fn the_environment_names_tokenizers() {
        let loaded = load("", &[("TOKENGLASS_TOKENS__MODEL", "a=/m/a, b=/m/b")]).unwrap();
        assert_eq!(loaded.config.tokens.models[1].names, ["b"]);
        assert_eq!(
            load("", &[("TOKENGLASS_TOKENS__MODEL", "a")]).unwrap_err(),
            "TOKENGLASS_TOKENS__MODEL: expected NAME=TOKENIZER, found \"a\""
        );
    }

    #[test]
    fn mistakes_have_their_place() {
        let text = "[[tokens.model]]\nname = \"a\"\ntokeniser = \"t\"\n\
                    [[tokens.model]]\nname = []\ntokenizer = 5\n";
        assert_eq!(
            load(text, &[]).unwrap_err(),
            "1:1: tokens.model: tokenizer is missing\n\
             3:1: tokens.model: unknown key \"tokeniser\", did you mean \"tokenizer\"?\n\
             5:8: tokens.model: name: expected a model's name, or a list of them, found a list\n\
             6:13: tokens.model: tokenizer: expected a path, found integer 5"
        );
        let twice = "[tokens]\nmodel = [{ name = \"a\", tokenizer = \"t\" }, { name = \"a\", tokenizer = \"u\" }]\n";
        assert_eq!(
            load(twice, &[]).unwrap_err(),
            "2:43: tokens.model: \"a\" is named twice"
        );
        assert_eq!(
            load("[tokens]\nmodel = [3]\n", &[]).unwrap_err(),
            "2:10: tokens.model: expected a table with name and tokenizer, found integer 3"
        );
    }
}
