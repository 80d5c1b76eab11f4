//! Bodies that are not streams: answers, errors, models.

use serde_json::json;

use super::fault::ErrorShape;
use super::frames::{FINGERPRINT, arguments, words};
use super::job::{Job, escape};

/// The answer to a request without `stream`.
pub(crate) fn answer(job: &Job) -> Vec<u8> {
    let object = if job.chat {
        "chat.completion"
    } else {
        "text_completion"
    };
    let (id, created, model) = (&job.id, job.created, &job.model);
    let choices: Vec<String> = (0..job.n)
        .map(|index| {
            if job.chat {
                chat_choice(job, index)
            } else {
                text_choice(job, index)
            }
        })
        .collect();
    let choices = choices.join(",");
    let usage = usage(job);
    let prompt = if job.chat {
        r#""prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"#
    } else {
        ""
    };
    format!(
        r#"{{"id":"{id}","object":"{object}","created":{created},"model":"{model}","choices":[{choices}],"service_tier":null,"system_fingerprint":"{FINGERPRINT}","usage":{usage},{prompt}"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#
    )
    .into_bytes()
}

/// An error body of some shape.
pub(crate) fn error(
    shape: ErrorShape,
    status: u16,
    kind: &str,
    message: &str,
    param: Option<&str>,
) -> Vec<u8> {
    let (kind, message) = (escape(kind), escape(message));
    let param = param.map_or("null".to_owned(), |p| format!("\"{}\"", escape(p)));
    match shape {
        ErrorShape::Nested => format!(
            r#"{{"error":{{"message":"{message}","type":"{kind}","param":{param},"code":{status}}}}}"#
        ),
        ErrorShape::Flat => format!(
            r#"{{"object":"error","message":"{message}","type":"{kind}","param":{param},"code":{status}}}"#
        ),
        ErrorShape::String => format!(r#"{{"error":"{message}"}}"#),
        ErrorShape::Anthropic => {
            format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}"#)
        }
        ErrorShape::Detail => format!(r#"{{"detail":"{message}"}}"#),
    }
    .into_bytes()
}

/// The error event inside a stream. vLLM writes this one with another serialiser, hence the spaces.
pub(crate) fn error_event(kind: &str, message: &str, code: u16) -> String {
    let (kind, message) = (escape(kind), escape(message));
    format!(
        r#"{{"error": {{"message": "{message}", "type": "{kind}", "param": null, "code": {code}}}}}"#
    )
}

/// The `type` that vLLM gives for a status.
pub(crate) const fn error_type(status: u16) -> &'static str {
    match status {
        400 => "BadRequestError",
        401 => "Unauthorized",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        422 => "UnprocessableEntityError",
        429 => "RateLimitError",
        501 => "NotImplementedError",
        503 => "Service Unavailable",
        _ => "InternalServerError",
    }
}

/// The message that vLLM gives for a status.
pub(crate) const fn error_message(status: u16) -> &'static str {
    match status {
        400 => {
            "This model's maximum context length is 2048 tokens. However, your request has 4096 input tokens. Please reduce the length of the input messages."
        }
        401 => "Unauthorized",
        503 => {
            "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
        }
        500 => "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        _ => "The request cannot be served.",
    }
}

/// `GET /v1/models`.
pub(crate) fn models(models: &[String], created: u64) -> Vec<u8> {
    let card = |model: &String| {
        json!({"id": model, "object": "model", "created": created, "owned_by": "vllm",
            "root": format!("/srv/llms/{model}"), "parent": null, "max_model_len": 2048,
            "permission": [{"id": "modelperm-903bb066b2b199a6", "object": "model_permission", "created": created,
                "allow_create_engine": false, "allow_sampling": true, "allow_logprobs": true,
                "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false,
                "organization": "*", "group": null, "is_blocking": false}]})
    };
    let data: Vec<_> = models.iter().map(card).collect();
    json!({"object": "list", "data": data})
        .to_string()
        .into_bytes()
}

fn chat_choice(job: &Job, index: u32) -> String {
    let text = |from, to| {
        let mut out = Vec::new();
        words(&mut out, from, to);
        String::from_utf8_lossy(&out).into_owned()
    };
    let or_null = |text: String| {
        if text.is_empty() {
            "null".to_owned()
        } else {
            format!("\"{text}\"")
        }
    };
    let reasoning = or_null(text(0, job.reasoning));
    let (content, tools) = if job.tool && job.tokens > job.reasoning {
        let fragments = job.tokens - job.reasoning - 1;
        let mut args = Vec::new();
        arguments(&mut args, 0, fragments, fragments);
        let args = String::from_utf8_lossy(&args).into_owned();
        let tools = format!(
            r#""tool_calls":[{{"id":"chatcmpl-tool-a54b8fdc1fda71c2","type":"function","function":{{"name":"get_weather","arguments":"{args}"}}}}],"#
        );
        ("\"\"".to_owned(), tools)
    } else {
        (or_null(text(job.reasoning, job.tokens)), String::new())
    };
    let finish = &job.finish;
    format!(
        r#"{{"index":{index},"message":{{"role":"assistant","content":{content},"refusal":null,"annotations":null,"audio":null,"function_call":null,{tools}"reasoning":{reasoning}}},"logprobs":null,"finish_reason":"{finish}","stop_reason":null,"token_ids":null,"routed_experts":null}}"#
    )
}

fn text_choice(job: &Job, index: u32) -> String {
    let mut out = job.echo.clone().unwrap_or_default().into_bytes();
    words(&mut out, 0, job.tokens);
    let (text, finish) = (String::from_utf8_lossy(&out), &job.finish);
    format!(
        r#"{{"index":{index},"text":"{text}","logprobs":null,"finish_reason":"{finish}","stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}}"#
    )
}

fn usage(job: &Job) -> String {
    if !job.usage_body {
        return "null".to_owned();
    }
    let (prompt, completion) = (job.prompt_tokens, job.all_tokens());
    let total = prompt.saturating_add(completion);
    let details = match job.reasoning * job.n {
        0 => "null".to_owned(),
        reasoning => format!(r#"{{"reasoning_tokens":{reasoning}}}"#),
    };
    format!(
        r#"{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion},"prompt_tokens_details":null,"completion_tokens_details":{details}}}"#
    )
}
