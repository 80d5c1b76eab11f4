//! Which kind of failure an error is: by status, by body, by frame.
//!
//! vLLM says "context too long" and "engine dead" in prose alone, so prose is what must be read. The phrases are those
//! of vLLM 0.6 to 0.33; none is so short that a client could smuggle it in by accident.

use memchr::memmem;

use crate::outcome::ErrorType;

use super::quick;
use super::wire::{ErrorBody, ErrorInfo};

const CONTEXT: [&str; 6] = [
    "maximum context length",
    "longer than the maximum model length",
    "cannot be greater than max_model_len",
    "exceeds the model's maximum",
    "exceeds the max_model_len",
    "more than max_model_len",
];

const DEAD: [&str; 4] = [
    "EngineCore encountered an issue",
    "The server had an error while processing your request",
    "EngineDeadError",
    "Background loop has errored",
];

/// The error behind a status of 400 and above. `body` may be cut, be no JSON, or be missing.
pub(crate) fn of_answer(status: u16, body: &[u8]) -> ErrorType {
    match quick::from_slice::<ErrorBody<'_>>(body) {
        Ok(parsed) => of_status(status, &parsed.assumed()),
        // A body that is cut (pydantic echoes the request into it) or is plain text still has its words.
        Err(_) => {
            let holds = |phrases: &[&str]| {
                let mut phrases = phrases.iter();
                phrases.any(|phrase| memmem::find(body, phrase.as_bytes()).is_some())
            };
            let info = ErrorInfo::default();
            match status {
                500.. if holds(&DEAD) => ErrorType::EngineDead,
                400 | 413 | 422 if holds(&CONTEXT) => ErrorType::ContextLengthExceeded,
                _ => of_status(status, &info),
            }
        }
    }
}

/// The error that a 200 with a JSON body turns out to be.
pub(crate) fn of_body(info: &ErrorInfo<'_>) -> ErrorType {
    match info.code.0.or_else(|| status_of(&info.kind)) {
        Some(status @ 400..) => of_status(status, info),
        _ if engine_dead(info) => ErrorType::EngineDead,
        _ if context_exceeded(info) => ErrorType::ContextLengthExceeded,
        _ => ErrorType::ServerError,
    }
}

/// The error of an error frame inside a stream.
pub(crate) fn of_frame(info: &ErrorInfo<'_>) -> ErrorType {
    if engine_dead(info) {
        ErrorType::EngineDead
    } else if info.code.0 == Some(503) || status_of(&info.kind) == Some(503) {
        ErrorType::Overloaded
    } else if context_exceeded(info) {
        ErrorType::ContextLengthExceeded
    } else {
        ErrorType::StreamError
    }
}

fn of_status(status: u16, info: &ErrorInfo<'_>) -> ErrorType {
    match status {
        400 | 413 | 422 if context_exceeded(info) => ErrorType::ContextLengthExceeded,
        400 => ErrorType::BadRequest,
        401 => ErrorType::Unauthorized,
        403 => ErrorType::Forbidden,
        404 if about_model(info) => ErrorType::ModelNotFound,
        404 => ErrorType::NotFound,
        413 => ErrorType::PayloadTooLarge,
        422 => ErrorType::Unprocessable,
        429 => ErrorType::RateLimited,
        ..=499 => ErrorType::ClientError,
        _ if engine_dead(info) => ErrorType::EngineDead,
        500 => ErrorType::InternalError,
        501 => ErrorType::NotImplemented,
        503 => ErrorType::Overloaded,
        _ => ErrorType::ServerError,
    }
}

/// Whether the body of a 500 says that the engine is dead.
pub(crate) fn is_engine_dead(body: &[u8]) -> bool {
    DEAD.iter()
        .any(|phrase| memmem::find(body, phrase.as_bytes()).is_some())
}

fn context_exceeded(info: &ErrorInfo<'_>) -> bool {
    matches!(&*info.param, "input_tokens" | "input_text")
        || CONTEXT.iter().any(|phrase| info.message.contains(phrase))
}

fn engine_dead(info: &ErrorInfo<'_>) -> bool {
    DEAD.iter().any(|phrase| info.message.contains(phrase))
}

/// `NotFoundError` alone will not do: vLLM says it of adapters and response ids too.
fn about_model(info: &ErrorInfo<'_>) -> bool {
    &*info.param == "model"
        || (info.message.starts_with("The model ") && info.message.contains("does not exist"))
}

/// The status that an error type of vLLM, OpenAI or Anthropic stands for.
fn status_of(kind: &str) -> Option<u16> {
    Some(match kind {
        "BadRequestError" | "Bad Request" | "invalid_request_error" => 400,
        "Unauthorized" | "AuthenticationError" | "authentication_error" => 401,
        "PermissionDeniedError" | "permission_error" => 403,
        "NotFoundError" | "Not Found" | "not_found_error" => 404,
        "request_too_large" => 413,
        "UnprocessableEntityError" => 422,
        "RateLimitError" | "rate_limit_error" | "rate_limit_exceeded" => 429,
        "InternalServerError" | "internal_error" | "api_error" | "server_error" => 500,
        "NotImplementedError" => 501,
        "Service Unavailable" | "ServiceUnavailableError" | "overloaded_error" => 503,
        _ => return None,
    })
}
