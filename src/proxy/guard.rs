//! Refuses what two parsers might read in two ways, since that is what request smuggling lives on.
//!
//! hyper has refused the worst before this is reached (bad lengths, white space before a colon, chunked that is not
//! last, HTTP/1.0 with `Transfer-Encoding`); here is what it lets through and a proxy must not. Every refusal closes
//! the connection.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode, Version, request};

use super::reply::Reply;

/// Looks at one request. `length_line` says whether the raw head had a `Content-Length` line.
///
/// An absolute-form target wins over `Host` (RFC 9112 §3.2.2), as HTTP/2's `:authority` does, so `Host` is rewritten
/// from it.
///
/// # Errors
/// The answer to give instead of forwarding.
pub fn check(head: &mut request::Parts, length_line: bool, max_body: u64) -> Result<(), Reply> {
    if head.method == Method::CONNECT {
        return Err(refuse(
            StatusCode::NOT_IMPLEMENTED,
            "CONNECT is not supported",
        ));
    }
    check_encoding(&head.headers, length_line)?;
    check_host(head)?;
    if max_body > 0 && content_length(&head.headers).is_some_and(|length| length > max_body) {
        return Err(refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {max_body} bytes"),
        ));
    }
    // h2c by upgrade would put frames on a connection that vLLM cannot read; such clients go on in HTTP/1.1. HTTP/1.0
    // has no upgrade (RFC 9110 §7.8): a 101 to it could not be passed on.
    let h2c = |protocol: &HeaderValue| names_h2c(protocol.as_bytes());
    if head.version != Version::HTTP_11 || head.headers.get(UPGRADE).is_some_and(h2c) {
        head.headers.remove(UPGRADE);
    }
    Ok(())
}

/// What the head says that the body's length is.
#[must_use]
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn check_encoding(headers: &HeaderMap, length_line: bool) -> Result<(), Reply> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = encodings.next() else {
        return Ok(());
    };
    if encodings.next().is_some() {
        return Err(bad("more than one transfer-encoding"));
    }
    if !first
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked")
    {
        return Err(refuse(
            StatusCode::NOT_IMPLEMENTED,
            "a transfer-encoding other than chunked is not supported",
        ));
    }
    if length_line {
        return Err(bad("both content-length and transfer-encoding"));
    }
    Ok(())
}

fn check_host(head: &mut request::Parts) -> Result<(), Reply> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one host"));
    }
    if let Some(host) = first
        && !is_host(host.as_bytes())
    {
        return Err(bad("malformed host"));
    }
    let Some(authority) = head.uri.authority() else {
        if first.is_none() && head.version == Version::HTTP_11 {
            return Err(bad("no host"));
        }
        return Ok(());
    };
    if head.uri.scheme().is_none() {
        // "GET a": hyper takes it for CONNECT's kind of target, and it would go on as "GET /".
        return Err(bad("malformed request target"));
    }
    if authority.as_str().contains('@') {
        return Err(bad("user information in the request target"));
    }
    let host =
        HeaderValue::from_str(authority.as_str()).map_err(|_| bad("malformed request target"))?;
    head.headers.insert(HOST, host);
    Ok(())
}

/// Loosely: nothing in it that could end the name in another parser.
fn is_host(host: &[u8]) -> bool {
    // (A search of a list of them takes longer for one short name than the rest of the guard.)
    host.iter().all(|b| {
        b.is_ascii_graphic()
            && !matches!(
                b,
                b'/' | b'\\' | b'?' | b'#' | b'@' | b',' | b'"' | b'<' | b'>'
            )
    })
}

fn names_h2c(protocols: &[u8]) -> bool {
    protocols
        .split(|b| *b == b',')
        .any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

fn bad(message: &str) -> Reply {
    refuse(StatusCode::BAD_REQUEST, format!("refused: {message}"))
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Reply {
    Reply {
        close: true,
        ..Reply::new(status, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_lines(uri: &str, lines: &[(&str, &str)], length_line: bool) -> Result<HeaderMap, u16> {
        let mut request = http::Request::post(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        check(&mut head, length_line, 100)
            .map(|()| head.headers)
            .map_err(|reply| {
                assert!(reply.close);
                reply.status.as_u16()
            })
    }

    #[test]
    fn what_is_refused() {
        let chunked = ("transfer-encoding", "chunked");
        let host = ("host", "a:1");
        assert_eq!(check_lines("/", &[host, chunked], true), Err(400));
        assert_eq!(check_lines("/", &[host, chunked, chunked], false), Err(400));
        assert_eq!(
            check_lines("/", &[host, ("transfer-encoding", "gzip, chunked")], false),
            Err(501)
        );
        assert_eq!(check_lines("/", &[], false), Err(400));
        assert_eq!(check_lines("/", &[host, host], false), Err(400));
        assert_eq!(check_lines("/", &[("host", "a/b")], false), Err(400));
        assert_eq!(check_lines("/", &[("host", "a, b")], false), Err(400));
        assert_eq!(
            check_lines("/", &[host, ("content-length", "101")], true),
            Err(413)
        );
        assert_eq!(check_lines("http://u@b/", &[host], false), Err(400));
        assert_eq!(check_lines("a", &[host], false), Err(400));
    }

    #[test]
    fn what_passes() {
        assert!(
            check_lines(
                "/",
                &[("host", "[::1]:8000"), ("transfer-encoding", "Chunked")],
                false
            )
            .is_ok()
        );
        assert!(check_lines("/", &[("host", ""), ("content-length", "100")], true).is_ok());
        let headers = check_lines(
            "http://b:2/x",
            &[("host", "a:1"), ("upgrade", "h2c")],
            false,
        )
        .unwrap();
        assert_eq!(headers[HOST], "b:2");
        assert!(!headers.contains_key(UPGRADE));
    }
}
