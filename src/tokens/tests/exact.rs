//! A tokenizer of words, and a template: what is counted, and what is left to the estimate.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::super::exact::Exact;
use super::*;

/// One token a word or mark; `<s>` in front where special tokens are asked for.
fn model(directory: &Path, template: &str) -> config::TokenModel {
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "added_tokens": [
            {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "model": {"type": "WordLevel", "vocab": {"?": 0, "<s>": 1}, "unk_token": "?"}
    });
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let own =
        json!({"chat_template": template, "bos_token": {"content": "<s>"}, "eos_token": null});
    fs::write(directory.join("tokenizer_config.json"), own.to_string()).unwrap();
    config::TokenModel {
        names: vec!["tiny".to_owned(), "other".to_owned()],
        tokenizer: directory.to_owned(),
        template: None,
    }
}

const TEMPLATE: &str = "{{ bos_token }}{% for t in tools or [] %} {{ t.function.name }}{% endfor %}\
    {% for m in messages %} {{ m.role }} {{ m.content }}{% endfor %}{% if add_generation_prompt %} go{% endif %}";

#[test]
fn prompts() {
    let directory = TempDir::new().unwrap();
    let exact = Exact::load(&model(directory.path(), TEMPLATE)).unwrap();
    let chat = Endpoint::ChatCompletions;
    for (endpoint, body, want) in [
        (Endpoint::Completions, json!({"prompt": "a b"}), Some(3)),
        (
            Endpoint::Completions,
            json!({"prompt": "a b", "add_special_tokens": false}),
            Some(2),
        ),
        (
            Endpoint::Completions,
            json!({"prompt": ["a", "b c"]}),
            Some(5),
        ),
        (Endpoint::Completions, json!({"prompt": [7, 8, 9]}), Some(3)),
        (
            Endpoint::Completions,
            json!({"prompt": [[7, 8], [9]]}),
            Some(3),
        ),
        (
            Endpoint::Completions,
            json!({"prompt": "a", "truncate_prompt_tokens": 1}),
            None,
        ),
        (Endpoint::Completions, json!({"prompt": [7, "a"]}), None),
        (Endpoint::Completions, json!({"prompt": []}), None),
        (Endpoint::Embeddings, json!({"input": "a b"}), Some(3)),
        (Endpoint::Responses, json!({"input": "a b"}), None),
        (
            chat,
            json!({"messages": [{"role": "user", "content": "a b"}]}),
            Some(1 + 3 + 1),
        ),
        (
            chat,
            json!({"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": false, "add_special_tokens": true}),
            Some(1 + 1 + 2),
        ),
        (
            chat,
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
                "tools": [{"type": "function", "function": {"name": "f"}}]}),
            Some(1 + 1 + 3 + 1),
        ),
        (
            chat,
            json!({"messages": [{"role": "developer", "content": "a"}, {"role": "user"}]}),
            Some(1 + 2 + 1 + 1),
        ),
        (
            chat,
            json!({"messages": [{"role": "assistant", "content": "a b "}], "add_generation_prompt": false,
                "continue_final_message": true}),
            Some(1 + 3),
        ),
        (
            chat,
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            None,
        ),
        (chat, json!({"messages": [], "chat_template": "x"}), None),
        (chat, json!({"messages": 3}), None),
        (chat, json!([]), None),
    ] {
        let got = exact.prompt(endpoint, body.to_string().as_bytes());
        assert_eq!(got, want, "{body}");
    }
    assert_eq!(exact.text("<s> a\nb"), Some(3));
}

#[test]
fn files_that_cannot_be_used_are_one_line() {
    let directory = TempDir::new().unwrap();
    let good = model(directory.path(), "{% for");
    let why = check(&good).unwrap_err();
    assert!(
        why.contains("tokenizer_config.json cannot be used: the chat template is not valid"),
        "{why}"
    );
    // A template of its own comes first.
    let jinja = directory.path().join("chat_template.jinja");
    fs::write(&jinja, TEMPLATE).unwrap();
    check(&good).unwrap();
    let wrong = |change: &dyn Fn(&mut config::TokenModel)| {
        let mut model = good.clone();
        change(&mut model);
        let why = check(&model).unwrap_err();
        assert!(!why.contains('\n'), "{why}");
        why
    };
    let why = wrong(&|model| model.tokenizer = "/nowhere/tokenizer.json".into());
    assert_eq!(
        why,
        "cannot read /nowhere/tokenizer.json: no such file or directory"
    );
    let why = wrong(&|model| model.template = Some("/nowhere.jinja".into()));
    assert_eq!(why, "cannot read /nowhere.jinja: no such file or directory");
    let why = wrong(&|model| model.tokenizer = jinja.clone());
    assert!(
        why.contains("chat_template.jinja cannot be used: "),
        "{why}"
    );
    let why = wrong(&|model| model.template = Some(directory.path().join("tokenizer.json")));
    assert!(why.ends_with("it has no chat template"), "{why}");
    let huge = directory.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let why = wrong(&|model| model.tokenizer = huge.clone());
    assert!(why.contains("cannot read"), "{why}");
}

#[test]
fn counts_of_a_known_model_are_the_tokenizers() {
    let directory = TempDir::new().unwrap();
    let (sender, records) = channel();
    let sink = Box::new(move |done: Estimated| sender.send(done.record).unwrap());
    let counter = Counter::new(&[model(directory.path(), TEMPLATE)], sink);
    let body = br#"{"model":"other","messages":[{"role":"user","content":"unbelievable incomprehensibilities"}]}"#;
    let prompt = counter.prompt(Endpoint::ChatCompletions, body).unwrap();
    assert_eq!(prompt, PromptCount::Exact(5));
    let cell = PromptCell::default();
    cell.0.set(prompt).unwrap();
    let mut record = record("incomprehensibilities");
    record.text.as_mut().unwrap().push(1, "unbelievable");
    record.finish_reasons = smallvec![FinishReason::Stop, FinishReason::Length];
    let prompt = Some(Arc::new(cell));
    counter.finish(Job {
        record,
        prompt,
        ticket: None,
    });
    let done = records.recv().unwrap();
    assert_eq!(done.output_tokens, Some((3, TokenSource::Tokenizer)));
    assert_eq!(done.input_tokens, Some((5, TokenSource::Tokenizer)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_conversation_is_survived(role in "user|system|tool|assistant|developer|", content in ".*", extra in any::<i64>()) {
        let directory = TempDir::new().unwrap();
        let exact = Exact::load(&model(directory.path(), TEMPLATE)).unwrap();
        for content in [json!(content), json!([content]), json!({"text": content}), json!(extra), json!(null)] {
            let body = json!({
                "messages": [{"role": role, "content": content, "tool_calls": content, "name": content}],
                "tools": content, "prompt": content, "chat_template_kwargs": content, "continue_final_message": extra > 0,
            });
            let body = body.to_string();
            let _ = exact.prompt(Endpoint::ChatCompletions, body.as_bytes());
            let _ = exact.prompt(Endpoint::Completions, body.as_bytes());
        }
    }
}
