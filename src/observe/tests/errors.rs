//! Errors in the shapes and words of every dialect and version, as answers and as frames inside a 200.

use super::outcomes::{Answer, BODY, STREAM, TOKEN};
use super::*;

#[test]
fn errors_by_status_and_body() {
    const NESTED_CONTEXT: &str = r#"{"error":{"message":"This model's maximum context length is 2048 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in the completion).","type":"BadRequestError","code":400}}"#;
    const FLAT_CONTEXT: &str = r#"{"object":"error","message":"This model's maximum context length is 2048 tokens. However, you requested 5000 tokens","type":"BadRequestError","param":null,"code":400}"#;
    const LONGER: &str = r#"{"object":"error","message":"The decoder prompt (length 4000) is longer than the maximum model length of 2048.","type":"BadRequestError","code":400}"#;
    const PARAM: &str = r#"{"error":{"message":"too much","param":"input_text","code":400}}"#;
    const FLAT_MODEL: &str = r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","param":null,"code":404}"#;
    const ANTHROPIC: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
    const DEAD: &str = r#"{"error":{"message":"The server had an error while processing your request.","type":"InternalServerError","code":500}}"#;
    // vLLM ≤ 0.10, all of whose errors are flat.
    const TOO_LONG: &str = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 4200 tokens (4100 in the messages, 100 in the completion). Please reduce the length of the messages or completion.","type":"BadRequestError","param":null,"code":400}"#;
    const PROMPT_ONLY: &str = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. Please reduce the length of the input messages.","type":"BadRequestError","param":null,"code":400}"#;
    const MAX_TOKENS: &str = r#"{"object":"error","message":"'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 4096 tokens and your request has 17 input tokens (9000 > 4096 - 17).","type":"BadRequestError","param":null,"code":400}"#;
    const FLAT_DEAD: &str = r#"{"object":"error","message":"EngineCore encountered an issue. See stack trace (above) for the root cause.","type":"InternalServerError","param":null,"code":500}"#;
    const ENGINE_PROMPT: &str = r#"{"error":{"message":"The engine prompt length 4097 exceeds the max_model_len 4096. Please reduce prompt.","type":"invalid_request_error","code":400}}"#;
    const DECISION: &str = r#"{"error":{"message":"the prompt has 9 tokens and a canvas read adds 3, more than max_model_len=8","type":"BadRequestError","code":400}}"#;
    const COHERE: &str =
        r#"{"message":"This model's maximum context length is 4096 tokens.","id":"x"}"#;
    const ANTHROPIC_LONG: &str = r#"{"type":"error","error":{"type":"invalid_request_error","message":"This model's maximum context length is 4096 tokens."}}"#;
    const ANTHROPIC_KEY: &str =
        r#"{"type":"error","error":{"type":"authentication_error","message":"m"}}"#;
    const ANTHROPIC_MODEL: &str = r#"{"type":"error","error":{"type":"not_found_error","message":"The model `x` does not exist."}}"#;
    const ANTHROPIC_LIMIT: &str =
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#;
    const CONTEXT_413: &str = r#"{"error":{"message":"m","param":"input_tokens"}}"#;
    const QUEUE_FULL: &str = r#"{"error":{"message":"Too many queued requests","type":"Service Unavailable","param":null,"code":503}}"#;
    const CUT: &str = r#"{"error":{"message":"This model's maximum context length is 2048 tok"#;
    for (status, body, want) in [
        (400, NESTED_CONTEXT, "context_length_exceeded"),
        (400, FLAT_CONTEXT, "context_length_exceeded"),
        (400, LONGER, "context_length_exceeded"),
        (400, PARAM, "context_length_exceeded"),
        (400, CUT, "context_length_exceeded"),
        (400, "", "bad_request"),
        (400, "[]", "bad_request"),
        (400, TOO_LONG, "context_length_exceeded"),
        (400, PROMPT_ONLY, "context_length_exceeded"),
        (400, MAX_TOKENS, "context_length_exceeded"),
        (400, ENGINE_PROMPT, "context_length_exceeded"),
        (400, DECISION, "context_length_exceeded"),
        (400, COHERE, "context_length_exceeded"),
        (400, ANTHROPIC_LONG, "context_length_exceeded"),
        (401, r#"{"error":"Unauthorized"}"#, "unauthorized"),
        (401, ANTHROPIC_KEY, "unauthorized"),
        (
            403,
            r#"{"error":{"message":"off","type":"PermissionDeniedError","code":403}}"#,
            "forbidden",
        ),
        (404, ANTHROPIC_MODEL, "model_not_found"),
        (
            404,
            r#"{"object":"error","message":"The model `x` does not exist.","type":"invalid_request_error","param":"model","code":null}"#,
            "model_not_found",
        ),
        (413, CONTEXT_413, "context_length_exceeded"),
        (
            422,
            r#"{"error":{"message":"m","type":"UnprocessableEntityError"}}"#,
            "unprocessable",
        ),
        (429, ANTHROPIC_LIMIT, "rate_limited"),
        (500, FLAT_DEAD, "engine_dead"),
        (500, "Background loop has errored already.", "engine_dead"),
        (503, DEAD, "engine_dead"),
        (503, QUEUE_FULL, "overloaded"),
        (504, "", "server_error"),
        (403, "nginx", "forbidden"),
        (404, FLAT_MODEL, "model_not_found"),
        (404, r#"{"detail":"Not Found"}"#, "not_found"),
        (
            404,
            r#"{"error":{"type":"NotFoundError","message":"No such adapter"}}"#,
            "not_found",
        ),
        (405, r#"{"detail":"Method Not Allowed"}"#, "client_error"),
        (413, "", "payload_too_large"),
        (422, r#"{"detail":[{"loc":["body"]}]}"#, "unprocessable"),
        (429, "slow down", "rate_limited"),
        (499, "", "client_error"),
        (500, r#"{"error":{"message":"x"}}"#, "internal_error"),
        (500, DEAD, "engine_dead"),
        (500, "Internal Server Error", "internal_error"),
        (501, "", "not_implemented"),
        (502, "", "server_error"),
        (
            503,
            r#"{"error":"The model is currently scaling."}"#,
            "overloaded",
        ),
        (529, ANTHROPIC, "server_error"),
        (599, "", "server_error"),
    ] {
        let answer = Answer { status, ..BODY };
        assert_eq!(answer.outcome(body, End::Complete), want, "{status} {body}");
        // The head has said all: how the body ends changes nothing.
        let cut = answer.ends(body, End::ClientGone);
        assert_eq!(label(cut.outcome), want, "{status} {body}");
        let stream = Answer { status, ..STREAM };
        assert_eq!(
            stream.outcome(body, End::UpstreamCut),
            want,
            "{status} {body}"
        );
        assert!(stream.ends(body, End::Complete).stream);
    }
}

#[test]
fn error_frames_of_every_dialect() {
    let messages = Answer {
        endpoint: Endpoint::Messages,
        ..STREAM
    };
    let responses = Answer {
        endpoint: Endpoint::Responses,
        ..STREAM
    };
    let generate = Answer {
        endpoint: Endpoint::Generate,
        ..STREAM
    };
    for (answer, frame, want) in [
        (
            &STREAM,
            r#"{"error":{"message":"busy","type":"ServiceUnavailableError"}}"#,
            "overloaded",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"busy","code":"503"}}"#,
            "overloaded",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"EngineCore encountered an issue."}}"#,
            "engine_dead",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"maximum context length is 5"}}"#,
            "context_length_exceeded",
        ),
        (&STREAM, r#"{"error":"boom"}"#, "stream_error"),
        (
            &STREAM,
            r#"{"object":"error","message":"boom","code":500}"#,
            "stream_error",
        ),
        (
            &STREAM,
            r#"{"object":"error","message":"boom","code":503}"#,
            "overloaded",
        ),
        (
            &messages,
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            "overloaded",
        ),
        (
            &messages,
            r#"{"type":"error","error":{"type":"api_error"}}"#,
            "stream_error",
        ),
        (
            &responses,
            r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}"#,
            "stream_error",
        ),
        (
            &responses,
            r#"{"type":"error","code":503,"message":"m"}"#,
            "overloaded",
        ),
        (
            &responses,
            r#"{"type":"response.incomplete","response":{}}"#,
            "success",
        ),
        // vLLM breaks the stream off where it has no event for what went wrong.
        (
            &responses,
            r#"{"type":"response.in_progress"}"#,
            "stream_truncated",
        ),
        (
            &messages,
            r#"{"type":"error","error":{"type":"internal_error","message":"EngineCore encountered an issue."}}"#,
            "engine_dead",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"m","type":"Service Unavailable","param":null,"code":503}}"#,
            "overloaded",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"m","type":"BadRequestError","code":400}}"#,
            "stream_error",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"m","type":"NotFoundError","code":404}}"#,
            "stream_error",
        ),
        (
            &generate,
            r#"{"error":{"message":"The server had an error while processing your request.","code":500}}"#,
            "engine_dead",
        ),
        (
            &generate,
            r#"{"request_id":"x","choices":[]}"#,
            "stream_truncated",
        ),
    ] {
        let stream = format!("{TOKEN}data: {frame}\n\n");
        assert_eq!(answer.outcome(&stream, End::Complete), want, "{frame}");
    }
    // The name of the event will do.
    assert_eq!(
        responses.outcome("event: error\ndata: {}\n\n", End::Complete),
        "stream_error"
    );
    assert_eq!(
        messages.outcome("event: message_stop\ndata: {}\n\n", End::Complete),
        "success"
    );
}
