//! Response heads as uvicorn writes them.

use std::fmt::Write as _;
use std::time::SystemTime;

use crate::http1::http_date;

/// A head being put together; the order of the lines is uvicorn's.
#[derive(Debug)]
pub(crate) struct Head {
    status: u16,
    content_type: &'static str,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    rust: bool,
    allow: Option<&'static str>,
}

// === impl Head ===

impl Head {
    pub(crate) const fn new(status: u16, content_type: &'static str) -> Self {
        Self {
            status,
            content_type,
            length: None,
            chunked: false,
            close: false,
            rust: false,
            allow: None,
        }
    }

    pub(crate) const fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    pub(crate) const fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub(crate) const fn close(mut self, close: bool) -> Self {
        self.close = close;
        self
    }

    /// The Rust frontend does not call itself uvicorn.
    pub(crate) const fn rust(mut self, rust: bool) -> Self {
        self.rust = rust;
        self
    }

    pub(crate) const fn allow(mut self, method: &'static str) -> Self {
        self.allow = Some(method);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ndate: {}\r\n",
            self.status,
            reason(self.status),
            http_date(SystemTime::now()),
        );
        if !self.rust {
            head.push_str("server: uvicorn\r\n");
        }
        if let Some(method) = self.allow {
            let _ = write!(head, "allow: {method}\r\n");
        }
        if let Some(length) = self.length {
            let _ = write!(head, "content-length: {length}\r\n");
        }
        if !self.content_type.is_empty() {
            let _ = write!(head, "content-type: {}\r\n", self.content_type);
        }
        head.push_str("vary: Origin\r\n");
        if self.close {
            head.push_str("connection: close\r\n");
        }
        if self.chunked {
            head.push_str("transfer-encoding: chunked\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
