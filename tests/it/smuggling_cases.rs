//! The table of [`crate::smuggling`].

use crate::smuggling_hosts::{connections, hosts, upgrades};
use crate::strict::Request;

/// One exchange.
pub struct Case {
    pub name: &'static str,
    /// Each sent in a TCP segment of its own.
    pub segments: Vec<Vec<u8>>,
    pub want: Want,
    /// More to be true of what upstream got.
    pub check: Option<fn(&[Request]) -> bool>,
}

/// What is to come of it.
pub enum Want {
    /// Refused by our rules: answered with this status, counted as rejected, closed.
    Guard(u16),
    /// Refused by hyper's parser, in our words: answered, closed, not counted (it never was a request).
    Hyper(u16),
    /// The head was fine and the body is not: 400, counted, closed, and upstream has no whole request.
    BadBody,
    /// Closed without an answer that HTTP/1.1 knows.
    Silence,
    /// Upstream gets requests that begin with these words, one each; and whether the connection then goes on.
    Forwarded {
        targets: &'static [&'static str],
        stays: bool,
    },
}

pub const CHAT: &str = "POST /v1/chat/completions";
pub const STAYS: Want = Want::Forwarded {
    targets: &[CHAT],
    stays: true,
};
pub const CLOSES: Want = Want::Forwarded {
    targets: &[CHAT],
    stays: false,
};

/// A chat request whose head ends with `rest`, which brings its own empty line and body.
pub fn chat(name: &'static str, rest: &str, want: Want) -> Case {
    raw(name, format!("{CHAT} HTTP/1.1\r\nHost: a\r\n{rest}"), want)
}

/// A chat request with a chunked body.
fn chunks(name: &'static str, body: impl AsRef<[u8]>, want: Want) -> Case {
    let head = format!("{CHAT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw(name, [head.as_bytes(), body.as_ref()].concat(), want)
}

pub fn raw(name: &'static str, bytes: impl Into<Vec<u8>>, want: Want) -> Case {
    Case {
        name,
        segments: vec![bytes.into()],
        want,
        check: None,
    }
}

impl Case {
    pub fn check(self, check: fn(&[Request]) -> bool) -> Self {
        Self {
            check: Some(check),
            ..self
        }
    }

    fn split(self, at: &[u8]) -> Self {
        let bytes = self.segments.concat();
        let at = crate::support::find(&bytes, at).unwrap() + at.len();
        Self {
            segments: vec![bytes[..at].to_vec(), bytes[at..].to_vec()],
            ..self
        }
    }
}

pub fn body_is_ab(requests: &[Request]) -> bool {
    requests[0].body == b"ab"
}

pub fn all() -> Vec<Case> {
    [
        lengths(),
        encodings(),
        bad_chunks(),
        heads(),
        hosts(),
        connections(),
        upgrades(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn lengths() -> Vec<Case> {
    use Want::{Forwarded, Guard, Hyper};
    vec![
        chat("plain", "Content-Length: 2\r\n\r\nab", STAYS).check(body_is_ab),
        chat("no body at all", "\r\n", STAYS).check(|r| r[0].body.is_empty()),
        chat("length 0", "Content-Length: 0\r\n\r\n", STAYS),
        chat("two equal lengths", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", STAYS)
            .check(body_is_ab),
        chat("two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", Hyper(400)),
        chat("a list of equal lengths", "Content-Length: 2, 2\r\n\r\nab", Hyper(400)),
        chat("a list of lengths", "Content-Length: 2, 3\r\n\r\nabc", Hyper(400)),
        chat("length +2", "Content-Length: +2\r\n\r\nab", Hyper(400)),
        chat("length -1", "Content-Length: -1\r\n\r\nab", Hyper(400)),
        chat("length 0x2", "Content-Length: 0x2\r\n\r\nab", Hyper(400)),
        chat("length 2 2", "Content-Length: 2 2\r\n\r\nab", Hyper(400)),
        chat("length 2_0", "Content-Length: 2_0\r\n\r\nab", Hyper(400)),
        chat("empty length", "Content-Length:\r\n\r\n", Hyper(400)),
        chat("length overflows", "Content-Length: 18446744073709551618\r\n\r\nab", Hyper(400)),
        chat("largest length", "Content-Length: 18446744073709551615\r\n\r\nab", Hyper(431)),
        chat("length beyond the limit", "Content-Length: 1048577\r\n\r\nab", Guard(413)),
        chat("length with zeros", "Content-Length: 0002\r\n\r\nab", STAYS).check(body_is_ab),
        chat("space before the colon", "Content-Length : 2\r\n\r\nab", Hyper(400)),
        chat("tab before the colon", "Content-Length\t: 2\r\n\r\nab", Hyper(400)),
        chat("length folded", "Content-Length:\r\n 2\r\n\r\nab", Hyper(400)),
        chat("underscore for a dash", "Content_Length: 50\r\nContent-Length: 2\r\n\r\nab", STAYS)
            .check(|r| r[0].get("content_length").as_deref() == Some("50") && body_is_ab(r)),
        raw(
            "the second request is not hidden by a GET's body",
            "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n ",
            Forwarded { targets: &["GET /a"], stays: true },
        )
        .check(|r| r[0].body.starts_with(b"GET /hidden")),
        raw(
            "CL.0 by GET without a length",
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            Forwarded { targets: &["GET /a", "GET /b"], stays: true },
        ),
    ]
}

fn encodings() -> Vec<Case> {
    use Want::{Forwarded, Guard, Hyper};
    let te = "Transfer-Encoding: chunked\r\n";
    let cl = "Content-Length: 5\r\n";
    let end = "\r\n0\r\n\r\n";
    vec![
        chunks("chunked", "1\r\na\r\n1;x=\"y\"\r\nb\r\n0\r\n\r\n", STAYS).check(body_is_ab),
        chat("CL, TE", &format!("{cl}{te}{end}"), Guard(400)),
        chat("TE, CL", &format!("{te}{cl}{end}"), Guard(400)),
        chat("CL, TE over two segments", &format!("{cl}{te}{end}"), Guard(400)).split(b"Content-Le"),
        chat("TE, CL over two segments", &format!("{te}{cl}{end}"), Guard(400)).split(b"chunked\r\n"),
        chat("CL, x, TE", &format!("cOnTeNt-LeNgTh:5\r\nx: y\r\n{te}{end}"), Guard(400)),
        chat("TE.CL with a request inside", &format!("{te}Content-Length: 4\r\n\r\n1d\r\nGET /hidden HTTP/1.1\r\nX: y\r\n\r\n0\r\n\r\n"), Guard(400)),
        chat("two TE", &format!("{te}{te}{end}"), Guard(400)),
        chat("TE chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Guard(501)),
        chat("TE gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Guard(501)),
        chat("TE identity, chunked", "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", Guard(501)),
        chat("TE trailing comma", "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE leading comma", "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Guard(501)),
        chat("TE chunked, identity", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE identity", "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab", Hyper(400)),
        chat("TE empty", "Transfer-Encoding:\r\nContent-Length: 2\r\n\r\nab", Hyper(400)),
        chat("TE xchunked", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE in quotes", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE with a parameter", "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE with tabs", "Transfer-Encoding:\tchunked\t\r\n\r\n2\r\nab\r\n0\r\n\r\n", STAYS).check(body_is_ab),
        chat("TE with VT", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE in capitals", "TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nab\r\n0\r\n\r\n", STAYS).check(body_is_ab),
        chat("TE space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE folded", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE behind a fold", "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("TE behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Hyper(400)),
        chat("underscore TE", "Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nab", STAYS).check(body_is_ab),
        raw("TE in HTTP/1.0", format!("{CHAT} HTTP/1.0\r\nHost: a\r\n{te}{end}"), Hyper(400)),
        raw("HTTP/1.0", format!("{CHAT} HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"), CLOSES).check(body_is_ab),
        raw("HTTP/1.0 without a length", format!("{CHAT} HTTP/1.0\r\nHost: a\r\n\r\n"), CLOSES),
        raw(
            "CL and TE behind another request",
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
            // Pipelined heads are not watched: hyper takes the chunks and closes, so the rest is nobody's request.
            Forwarded { targets: &["GET /a", "POST /b"], stays: false },
        )
        .check(|r| r[1].body.is_empty()),
        chunks("trailers", "2\r\nab\r\n0\r\nContent-Length: 5\r\nX: y\r\n\r\n", STAYS).check(|r| {
            body_is_ab(r) && r[0].count("content-length") == 0 && r[0].count("x") == 0
        }),
        chunks("a size with a space", "2 \r\nab\r\n0\r\n\r\n", STAYS).check(body_is_ab),
        chunks("a size with zeros", "0000002\r\nab\r\n000\r\n\r\n", STAYS).check(body_is_ab),
        chunks("an extension that looks like a chunk", "2;\r\nab\r\n0;1\r\n\r\n", STAYS).check(body_is_ab),
        chunks("a next request behind the last chunk", "2\r\nab\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            Forwarded { targets: &[CHAT, "GET /b"], stays: true }).check(body_is_ab),
    ]
}

fn bad_chunks() -> Vec<Case> {
    use Want::BadBody;
    let long = format!("2;{}\r\nab\r\n0\r\n\r\n", "x".repeat(20 * 1024));
    let trailers = format!("2\r\nab\r\n0\r\nX: {}\r\n\r\n", "x".repeat(200 * 1024));
    vec![
        chunks("size 0x2", "0x2\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("size +2", "+2\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("size -2", "-2\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("size 2_", "2_\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("size empty", "\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("space before the size", " 2\r\nab\r\n0\r\n\r\n", BadBody),
        chunks(
            "size overflows",
            "10000000000000002\r\nab\r\n0\r\n\r\n",
            BadBody,
        ),
        chunks(
            "size overflows by much",
            format!("{}2\r\nab\r\n0\r\n\r\n", "0".repeat(16) + &"f".repeat(17)),
            BadBody,
        ),
        chunks("size line ends with LF", "2\nab\r\n0\r\n\r\n", BadBody),
        chunks("size line ends with CR", "2\rab\r\n0\r\n\r\n", BadBody),
        chunks("data without CRLF", "2\r\nab0\r\n\r\n", BadBody),
        chunks("data ends with LF", "2\r\nab\n0\r\n\r\n", BadBody),
        chunks("data too long", "2\r\nabc\r\n0\r\n\r\n", BadBody),
        chunks("data too short", "3\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("LF in an extension", "2;a\nb\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("NUL in a size", b"2\0\r\nab\r\n0\r\n\r\n", BadBody),
        chunks("a huge extension", long, BadBody),
        chunks("huge trailers", trailers, BadBody),
        chunks("a bad size, later", "2\r\nab\r\nzz\r\n", BadBody).split(b"2\r\nab\r\n"),
    ]
}

fn heads() -> Vec<Case> {
    use Want::{Forwarded, Guard, Hyper, Silence};
    let many: String = (0..101).map(|i| format!("x-{i}: y\r\n")).collect();
    let hundred: String = (0..98).map(|i| format!("x-{i}: y\r\n")).collect();
    let large = "x".repeat(100 * 1024);
    let get: fn(&'static str, &str, Want) -> Case =
        |name, line, want| raw(name, format!("{line}\r\nHost: a\r\n\r\n"), want);
    const A: Want = Forwarded {
        targets: &["GET /a"],
        stays: true,
    };
    vec![
        chat("folded", "X: y\r\n z\r\nContent-Length: 2\r\n\r\nab", Hyper(400)),
        raw("folded first line", "GET /a HTTP/1.1\r\n Host: a\r\n\r\n", Hyper(400)),
        chat("NUL in a value", "X: a\0b\r\n\r\n", Hyper(400)),
        chat("NUL in a name", "X\0: a\r\n\r\n", Hyper(400)),
        chat("bare CR in a value", "X: a\rb\r\n\r\n", Hyper(400)),
        chat("a line without colon", "X\r\n\r\n", Hyper(400)),
        chat("an empty name", ": x\r\n\r\n", Hyper(400)),
        raw("bare LF line ends", format!("{CHAT} HTTP/1.1\nHost: a\nContent-Length: 2\n\nab"), STAYS).check(body_is_ab),
        raw("CR CR LF", "GET /a HTTP/1.1\r\r\nHost: a\r\n\r\n", Hyper(400)),
        raw("empty lines first", "\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", A),
        get("two spaces", "GET  /a HTTP/1.1", Hyper(400)),
        get("a tab", "GET\t/a HTTP/1.1", Hyper(400)),
        get("a space in the target", "GET /a b HTTP/1.1", Hyper(400)),
        get("a NUL in the target", "GET /a\0 HTTP/1.1", Hyper(400)),
        get("HTTP/1.2", "GET /a HTTP/1.2", Hyper(400)),
        get("HTTP/2.0", "GET /a HTTP/2.0", Hyper(400)),
        get("HTTP/01.1", "GET /a HTTP/01.1", Hyper(400)),
        get("http/1.1", "GET /a http/1.1", Hyper(400)),
        raw("HTTP/0.9", "GET /a\r\n\r\n", Hyper(400)),
        raw("no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 hello\r\n\r\n", Hyper(400)),
        raw("an h2 preface and garbage", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", Silence),
        chat("101 headers", &format!("{many}\r\n"), Hyper(431)),
        chat("just enough headers", &format!("{hundred}Content-Length: 2\r\n\r\nab"), STAYS).check(|r| r[0].headers.len() >= 100),
        chat("an oversized head", &format!("X: {large}\r\n\r\n"), Hyper(431)),
        get("an oversized target", &format!("GET /{large} HTTP/1.1"), Hyper(431)),
        chat("obs-text", "Content-Length: 2\r\nX: caf\u{e9}\r\n\r\nab", STAYS)
            .check(|r| r[0].get("x").as_deref() == Some("caf\u{e9}")),
        get("dots stay", "GET /a/../b/%2e%2e/c?x=/../y HTTP/1.1",
            Forwarded { targets: &["GET /a/../b/%2e%2e/c?x=/../y"], stays: true }),
        get("escaped line ends stay", "GET /a%0d%0aX:%20y HTTP/1.1",
            Forwarded { targets: &["GET /a%0d%0aX:%20y"], stays: true }),
        get("a fragment is cut off", "GET /a?b#c HTTP/1.1", Forwarded { targets: &["GET /a?b"], stays: true }),
        get("two slashes", "GET //evil/a HTTP/1.1", Forwarded { targets: &["GET //evil/a"], stays: true }),
        get("a method of its own", "PURGE-ALL /a HTTP/1.1", Forwarded { targets: &["PURGE-ALL /a"], stays: true }),
        get("asterisk", "OPTIONS * HTTP/1.1", Forwarded { targets: &["OPTIONS *"], stays: true }),
        get("CONNECT", "CONNECT a:443 HTTP/1.1", Guard(501)),
        get("an authority as target", "GET a HTTP/1.1", Guard(400)),
        get("an authority with port", "POST a:80 HTTP/1.1", Guard(400)),
        raw(
            "pipelined",
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET /c HTTP/1.1\r\nHost: a\r\n\r\n",
            Forwarded { targets: &["GET /a", "POST /b", "GET /c"], stays: true },
        )
        .check(|r| r[1].body == b"ab"),
    ]
}
