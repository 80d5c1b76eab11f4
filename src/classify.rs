//! Method and path → which of vLLM's endpoints this is.
//!
//! The table is vLLM 0.33's (`vllm/entrypoints`); whatever is not in it is still forwarded.

use http::Method;

use crate::outcome::labels;

/// The `endpoint` label: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
    /// `/v1/embeddings`, `/v2/embed`
    Embeddings,
    /// `/v1/audio/*`
    Audio,
    /// `/rerank`, `/v1/rerank`, `/v2/rerank`
    Rerank,
    /// `/score`, `/v1/score`, `/generative_scoring`
    Score,
    /// `/pooling`
    Pooling,
    /// `/classify`
    Classify,
    /// `/inference/v1/generate`
    Generate,
    /// `/tokenize`, `/detokenize`, the render routes
    Tokenize,
    /// `/v1/realtime`
    Realtime,
    /// Everything else that is asked of a model, and paths we do not know.
    Other,
}

labels!(Endpoint {
    ChatCompletions => "chat_completions",
    Completions => "completions",
    Responses => "responses",
    Messages => "messages",
    Embeddings => "embeddings",
    Audio => "audio",
    Rerank => "rerank",
    Score => "score",
    Pooling => "pooling",
    Classify => "classify",
    Generate => "generate",
    Tokenize => "tokenize",
    Realtime => "realtime",
    Other => "other",
});

/// What a request is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A request on a model endpoint: measured.
    Model(Endpoint),
    /// vLLM's own plumbing (`/health`, `/metrics`, `/v1/models`, …): forwarded, not counted, since a kubelet's probe
    /// every few seconds is no request that anybody made.
    Plumbing,
}

/// Classifies by the path as it stands in the request line, without query.
#[must_use]
pub fn classify(method: &Method, path: &str) -> Route {
    use Endpoint as E;
    let path = match path.strip_suffix('/') {
        Some("") | None => path,
        Some(trimmed) => trimmed,
    };
    let endpoint = match path {
        "/v1/chat/completions" | "/v1/chat/completions/batch" => E::ChatCompletions,
        "/v1/completions" => E::Completions,
        "/v1/responses" => E::Responses,
        "/v1/messages" => E::Messages,
        "/v1/embeddings" | "/v2/embed" => E::Embeddings,
        "/rerank" | "/v1/rerank" | "/v2/rerank" => E::Rerank,
        "/score" | "/v1/score" | "/generative_scoring" => E::Score,
        "/pooling" => E::Pooling,
        "/classify" => E::Classify,
        "/inference/v1/generate" => E::Generate,
        "/tokenize" | "/detokenize" | "/v1/messages/count_tokens" => E::Tokenize,
        "/v1/realtime" => E::Realtime,
        // Templates and tokenizers at work, whoever asks.
        _ if path.ends_with("/render") || path.ends_with("/derender") => E::Tokenize,
        _ if path.starts_with("/v1/audio/") => E::Audio,
        _ if path.starts_with("/v1/responses/") => E::Responses,
        _ if is_plumbing(method, path) => return Route::Plumbing,
        _ => E::Other,
    };
    Route::Model(endpoint)
}

fn is_plumbing(method: &Method, path: &str) -> bool {
    // POST /ping is a health check too (SageMaker); all the others are asked with GET, HEAD or OPTIONS.
    if path == "/ping" {
        return true;
    }
    if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    matches!(
        path,
        "/" | "/health"
            | "/load"
            | "/version"
            | "/metrics"
            | "/v1/models"
            | "/server_info"
            | "/tokenizer_info"
            | "/kv_event_sources"
            | "/docs"
            | "/redoc"
            | "/openapi.json"
            | "/is_sleeping"
            | "/is_paused"
            | "/favicon.ico"
    ) || path.starts_with("/v1/models/")
        || path.starts_with("/metrics/")
        || path.starts_with("/docs/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_vllm_has_its_label() {
        for (method, path, want) in [
            ("POST", "/v1/chat/completions", "chat_completions"),
            ("POST", "/v1/chat/completions/", "chat_completions"),
            ("POST", "/v1/completions", "completions"),
            ("GET", "/v1/responses/resp_1", "responses"),
            ("POST", "/v1/messages", "messages"),
            ("POST", "/v1/messages/count_tokens", "tokenize"),
            ("POST", "/v2/embed", "embeddings"),
            ("POST", "/v1/audio/translations", "audio"),
            ("POST", "/v2/rerank", "rerank"),
            ("POST", "/v1/score", "score"),
            ("POST", "/pooling", "pooling"),
            ("POST", "/classify", "classify"),
            ("POST", "/inference/v1/generate", "generate"),
            ("POST", "/v1/chat/completions/batch", "chat_completions"),
            ("POST", "/v1/chat/completions/render", "tokenize"),
            ("POST", "/v1/completions/derender", "tokenize"),
            ("POST", "/v1/responses/resp_1/cancel", "responses"),
            ("POST", "/generative_scoring", "score"),
            ("POST", "/cohere/v2/chat", "other"),
            ("POST", "/v1/decisions", "other"),
            ("GET", "/v1/realtime", "realtime"),
            ("POST", "/invocations", "other"),
            ("POST", "/health", "other"),
            ("GET", "/nobody/knows", "other"),
        ] {
            let method: Method = method.parse().unwrap();
            match classify(&method, path) {
                Route::Model(endpoint) => assert_eq!(endpoint.as_label(), want, "{path}"),
                Route::Plumbing => panic!("{path} is a request"),
            }
        }
        for path in [
            "/",
            "/health",
            "/metrics",
            "/v1/models",
            "/v1/models/tiny",
            "/version",
            "/ping",
        ] {
            assert_eq!(classify(&Method::GET, path), Route::Plumbing, "{path}");
        }
        assert_eq!(classify(&Method::POST, "/ping"), Route::Plumbing);
    }
}
