//! What the proxy answers itself, in the shape that the client's library expects.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::classify::Endpoint;

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 400, 413, 501, 502, 503 or 504.
    pub status: StatusCode,
    /// For the client's log: what happened and whose fault it is, without anything from the request's content.
    pub message: String,
    /// The connection is not to be trusted with another request.
    pub close: bool,
    /// Seconds after which it may be better.
    pub retry_after: Option<u32>,
}

impl Reply {
    /// A plain one; the connection stays open.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            close: false,
            retry_after: None,
        }
    }

    /// With `Retry-After`.
    #[must_use]
    pub fn after(self, seconds: u32) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// OpenAI's error shape, or Anthropic's on its endpoint.
    #[must_use]
    pub fn body(&self, endpoint: Option<Endpoint>) -> Bytes {
        let (openai, anthropic) = kinds(self.status);
        let json = if endpoint == Some(Endpoint::Messages) {
            serde_json::json!({"type": "error", "error": {"type": anthropic, "message": self.message}})
        } else {
            serde_json::json!({"error": {
                "message": self.message,
                "type": openai,
                "param": null,
                "code": self.status.as_u16(),
            }})
        };
        Bytes::from(json.to_string())
    }

    /// The whole response.
    #[must_use]
    pub fn response(&self, endpoint: Option<Endpoint>) -> Response<Bytes> {
        let mut response = Response::new(self.body(endpoint));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}

/// The `type` field: vLLM's word for OpenAI clients, Anthropic's for theirs.
fn kinds(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        413 => ("RequestEntityTooLarge", "request_too_large"),
        501 => ("NotImplementedError", "invalid_request_error"),
        502 => ("BadGatewayError", "api_error"),
        503 => ("ServiceUnavailableError", "overloaded_error"),
        504 => ("GatewayTimeoutError", "api_error"),
        400..=499 => ("BadRequestError", "invalid_request_error"),
        _ => ("InternalServerError", "api_error"),
    }
}

/// hyper's own answer to a head that it cannot parse, with a body: `None` if `bytes` is no such answer.
#[must_use]
pub fn instead_of_hypers(bytes: &[u8]) -> Option<Vec<u8>> {
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    if bytes.len() > 256
        || !bytes
            .windows(17)
            .any(|w| w.eq_ignore_ascii_case(b"content-length: 0"))
    {
        return None;
    }
    let message = match status {
        StatusCode::URI_TOO_LONG => "the request target is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the request head has too many or too large headers"
        }
        _ => "the request head is not valid HTTP/1.1",
    };
    let body = Reply::new(status, message).body(None);
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    Some([head.as_bytes(), &body].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_parse() {
        let reply = Reply::new(StatusCode::BAD_GATEWAY, "say \"no\"");
        let openai: serde_json::Value =
            serde_json::from_slice(&reply.body(Some(Endpoint::Completions))).unwrap();
        assert_eq!(openai["error"]["code"], 502);
        assert_eq!(openai["error"]["message"], "say \"no\"");
        assert!(openai["error"]["param"].is_null());
        let anthropic: serde_json::Value =
            serde_json::from_slice(&reply.body(Some(Endpoint::Messages))).unwrap();
        assert_eq!(anthropic["type"], "error");
        assert_eq!(anthropic["error"]["type"], "api_error");
    }

    #[test]
    fn only_hypers_empty_answer_is_replaced() {
        let hypers = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let ours = String::from_utf8(instead_of_hypers(hypers).unwrap()).unwrap();
        assert!(
            ours.starts_with("HTTP/1.1 431 ") && ours.contains("\"code\":431"),
            "{ours}"
        );
        assert_eq!(
            instead_of_hypers(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n"),
            None
        );
        assert_eq!(instead_of_hypers(b"HTTP"), None);
    }
}
