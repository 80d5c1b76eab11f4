//! Heads on the wire: the request's written, the response's read.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE,
};
use http::{Method, Request, StatusCode, Version, response};
use smallvec::SmallVec;

use super::Error;
use super::framing::{Framing, FramingHeaders, keeps_alive};
use crate::hop_by_hop::ConnectionTokens;

/// Bytes of a response head.
pub(super) const MAX_HEAD: usize = 256 * 1024;
/// Header lines of a response head.
const MAX_HEADERS: usize = 256;

/// A 1xx head.
#[derive(Debug)]
pub struct Informational {
    /// 100, 102, 103, …
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
}

/// A final response head, ready to be forwarded.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) parts: response::Parts,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

/// How the request's body is framed on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestFraming {
    /// None, or as long as the forwarded `content-length` says.
    AsIs,
    /// Chunked by us.
    Chunked,
}

/// Writes the request head: hop-by-hop headers left out, all others as they came.
pub(super) fn write_request<B>(
    request: &Request<B>,
    framing: RequestFraming,
) -> Result<Vec<u8>, Error> {
    let headers = request.headers();
    let tokens = ConnectionTokens::new(
        headers
            .get_all(CONNECTION)
            .iter()
            .map(HeaderValue::as_bytes),
    );
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    if target.is_empty() {
        return Err(Error::BadRequest("empty request target"));
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !headers.contains_key(HOST) {
        // HTTP/2 has `:authority` instead.
        let host = request
            .uri()
            .authority()
            .map_or("", |authority| authority.as_str());
        line(&mut out, HOST.as_str().as_bytes(), host.as_bytes());
    }
    // HTTP/2 clients may split it; HTTP/1.1 has one line (RFC 9113 §8.2.3).
    let split_cookie =
        request.version() == Version::HTTP_2 && headers.get_all(COOKIE).iter().nth(1).is_some();
    if split_cookie {
        let crumbs: Vec<_> = headers
            .get_all(COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        line(
            &mut out,
            COOKIE.as_str().as_bytes(),
            &crumbs.join(&b"; "[..]),
        );
    }
    for (name, value) in headers {
        if tokens.is_hop_by_hop(name)
            || (framing == RequestFraming::Chunked && *name == CONTENT_LENGTH)
            || (split_cookie && *name == COOKIE)
        {
            continue;
        }
        line(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    if framing == RequestFraming::Chunked {
        line(&mut out, b"transfer-encoding", b"chunked");
    }
    let upgrade = headers.get(UPGRADE).filter(|_| tokens.contains("upgrade"));
    let trailers = headers.get_all(TE).iter().any(|te| {
        te.as_bytes()
            .split(|b| *b == b',')
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    if trailers {
        line(&mut out, b"te", b"trailers");
    }
    match (upgrade, trailers) {
        (Some(protocol), _) => {
            line(&mut out, b"upgrade", protocol.as_bytes());
            line(
                &mut out,
                b"connection",
                if trailers { b"upgrade, te" } else { b"upgrade" },
            );
        }
        (None, true) => line(&mut out, b"connection", b"te"),
        (None, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What a buffer holds.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Not a whole head yet.
    Partial,
    /// A 1xx head of so many bytes.
    Informational(Informational, usize),
    /// The final head of so many bytes.
    Final(Box<ResponseHead>, usize),
}

/// Reads one response head from the front of `buffer`.
pub(super) fn parse_response(buffer: &[u8], method: &Method) -> Result<Parsed, Error> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, buffer, &mut lines)
        .map_err(|error| Error::BadHead(describe(error)))?;
    let httparse::Status::Complete(length) = status else {
        if buffer.len() >= MAX_HEAD {
            return Err(Error::BadHead("too long"));
        }
        return Ok(Parsed::Partial);
    };
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| Error::BadHead("bad status code"))?;
    let version = if parsed.version == Some(0) {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };

    let mut framing = FramingHeaders::default();
    let mut connection: SmallVec<[&[u8]; 2]> = SmallVec::new();
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("connection") {
            connection.push(header.value);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing.transfer_encoding.push(header.value);
        } else if header.name.eq_ignore_ascii_case("content-length") {
            framing.content_length.push(header.value);
        }
    }
    let tokens = ConnectionTokens::new(connection.iter().copied());
    let upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    let chunked = !framing.transfer_encoding.is_empty();
    // One copy of the head; every value is a slice of it.
    let copy = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
    let base = buffer.as_ptr() as usize;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| Error::BadHead("bad header name"))?;
        let kept_for_upgrade = upgrade && (name == UPGRADE || name == CONNECTION);
        if tokens.is_hop_by_hop(&name) && !kept_for_upgrade {
            continue;
        }
        if name == CONTENT_LENGTH && (chunked || headers.contains_key(CONTENT_LENGTH)) {
            // Chunked wins (RFC 9112 §6.3), and of equal lengths one is enough.
            continue;
        }
        let mut raw = header.value;
        if name == CONTENT_LENGTH {
            // A list of equal lengths must not go on as a list (RFC 9112 §6.3); others are refused below.
            raw = raw.split(|b| *b == b',').next().unwrap_or(raw).trim_ascii();
        }
        let start = raw.as_ptr() as usize - base;
        let value = if raw.is_empty() {
            HeaderValue::from_static("")
        } else {
            HeaderValue::from_maybe_shared(copy.slice(start..start + raw.len()))
                .map_err(|_| Error::BadHead("bad header value"))?
        };
        headers.append(name, value);
    }
    if status.is_informational() && !upgrade {
        return Ok(Parsed::Informational(
            Informational { status, headers },
            length,
        ));
    }
    // Framed in two ways: what follows may be read in two ways as well.
    let doubtful = chunked && !framing.content_length.is_empty();
    let framing =
        Framing::of_response(method, status, version, &framing).map_err(Error::BadHead)?;
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.headers = headers;
    if let Some(reason) = parsed.reason
        && status.canonical_reason() != Some(reason)
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(reason.as_bytes())
    {
        parts.extensions.insert(reason);
    }
    let keep_alive = keeps_alive(version, &tokens) && framing != Framing::Close && !doubtful;
    Ok(Parsed::Final(
        Box::new(ResponseHead {
            parts,
            framing,
            keep_alive,
        }),
        length,
    ))
}

/// Reads a trailer section, its last empty line included.
pub(super) fn parse_trailers(section: &[u8]) -> Result<HeaderMap, &'static str> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(section, &mut lines)
    else {
        return Err("bad trailers");
    };
    let mut trailers = HeaderMap::new();
    for header in lines {
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| "bad trailer name")?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| "bad trailer value")?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

fn describe(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "bad header name",
        httparse::Error::HeaderValue => "bad header value",
        httparse::Error::NewLine => "bad line end",
        httparse::Error::Status => "bad status line",
        httparse::Error::Token => "bad token",
        httparse::Error::TooManyHeaders => "too many headers",
        httparse::Error::Version => "not HTTP/1.0 or HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &str) -> Result<Parsed, Error> {
        parse_response(wire.as_bytes(), &Method::POST)
    }

    #[test]
    fn a_head_of_vllm() {
        let wire = "HTTP/1.1 200 OK\r\ndate: now\r\nx-empty: \r\nvary: a\r\nvary: b\r\nConnection: close, x-hop\r\nx-hop: 1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n";
        for end in 0..wire.len() - 3 {
            assert!(matches!(parse(&wire[..end]), Ok(Parsed::Partial)), "{end}");
        }
        let Ok(Parsed::Final(head, length)) = parse(wire) else {
            panic!("no head");
        };
        assert_eq!(length, wire.len() - 3);
        assert_eq!(head.framing, Framing::Chunked);
        assert!(!head.keep_alive);
        let names: Vec<_> = head
            .parts
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect();
        assert_eq!(
            names,
            [
                ("date", &b"now"[..]),
                ("x-empty", b""),
                ("vary", b"a"),
                ("vary", b"b")
            ]
        );
    }

    #[test]
    fn reason_phrase_and_raw_bytes_survive() {
        let wire = b"HTTP/1.1 200 Alles gut\r\nx-name: \xff\xfe\r\ncontent-length: 0\r\n\r\n";
        let Ok(Parsed::Final(head, _)) = parse_response(wire, &Method::GET) else {
            panic!("no head");
        };
        assert_eq!(head.parts.headers["x-name"].as_bytes(), b"\xff\xfe");
        let reason = head
            .parts
            .extensions
            .get::<hyper::ext::ReasonPhrase>()
            .unwrap();
        assert_eq!(reason.as_bytes(), b"Alles gut");
        assert!(head.keep_alive);
    }

    #[test]
    fn garbage_is_refused_at_once() {
        for wire in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n",
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        ] {
            assert!(parse(wire).is_err(), "{wire}");
        }
        assert!(
            matches!(parse("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"), Ok(Parsed::Informational(hints, _)) if hints.status == 103)
        );
    }

    #[test]
    fn the_request_head_drops_what_is_hop_by_hop() {
        let request = Request::post("http://vllm/v1/completions?a=%20b")
            .header("host", "client.example")
            .header("x-a", "1")
            .header("connection", "keep-alive, x-b")
            .header("x-b", "2")
            .header("x-a", "3")
            .header("te", "trailers, gzip")
            .header("content-length", "5")
            .body(())
            .unwrap();
        let head =
            String::from_utf8(write_request(&request, RequestFraming::AsIs).unwrap()).unwrap();
        assert_eq!(
            head,
            "POST /v1/completions?a=%20b HTTP/1.1\r\nhost: client.example\r\nx-a: 1\r\nx-a: 3\r\ncontent-length: 5\r\nte: trailers\r\nconnection: te\r\n\r\n"
        );
        let chunked =
            String::from_utf8(write_request(&request, RequestFraming::Chunked).unwrap()).unwrap();
        assert!(
            chunked.contains("transfer-encoding: chunked") && !chunked.contains("content-length")
        );
    }
}
