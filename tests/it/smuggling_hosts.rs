//! The table's part on hosts, connections and upgrades.

use crate::smuggling_cases::{CHAT, CLOSES, Case, STAYS, Want, body_is_ab, chat, raw};
use crate::strict::Request;

pub fn hosts() -> Vec<Case> {
    use Want::{Forwarded, Guard, Hyper};
    let line = |name, head: &str, want| raw(name, format!("{head}\r\n\r\n"), want);
    const B: Want = Forwarded {
        targets: &["GET /x"],
        stays: true,
    };
    let host_is_b = |r: &[Request]| r[0].get("host").as_deref() == Some("b:2");
    vec![
        line("no host", &format!("{CHAT} HTTP/1.1"), Guard(400)),
        line(
            "two hosts",
            &format!("{CHAT} HTTP/1.1\r\nHost: a\r\nHost: b"),
            Guard(400),
        ),
        line(
            "two equal hosts",
            &format!("{CHAT} HTTP/1.1\r\nHost: a\r\nHost: a"),
            Guard(400),
        ),
        line(
            "a list of hosts",
            &format!("{CHAT} HTTP/1.1\r\nHost: a, b"),
            Guard(400),
        ),
        line(
            "a path in the host",
            &format!("{CHAT} HTTP/1.1\r\nHost: a/b"),
            Guard(400),
        ),
        line(
            "user in the host",
            &format!("{CHAT} HTTP/1.1\r\nHost: u@a"),
            Guard(400),
        ),
        line(
            "a space in the host",
            &format!("{CHAT} HTTP/1.1\r\nHost: a b"),
            Guard(400),
        ),
        line(
            "host behind white space",
            &format!("{CHAT} HTTP/1.1\r\nHost : a"),
            Hyper(400),
        ),
        line("an empty host", &format!("{CHAT} HTTP/1.1\r\nHost:"), STAYS)
            .check(|r| r[0].get("host").as_deref() == Some("")),
        line(
            "no host in HTTP/1.0",
            "GET /x HTTP/1.0",
            Forwarded {
                targets: &["GET /x"],
                stays: false,
            },
        ),
        line(
            "absolute form beats host",
            "GET http://b:2/x HTTP/1.1\r\nHost: a",
            B,
        )
        .check(host_is_b),
        line(
            "absolute form, https",
            "GET https://b:2/x HTTP/1.1\r\nHost: a",
            B,
        )
        .check(host_is_b),
        line("absolute form without host", "GET http://b:2/x HTTP/1.1", B).check(host_is_b),
        line(
            "absolute form with user",
            "POST http://u:p@b/v1/chat/completions HTTP/1.1\r\nHost: a",
            Guard(400),
        ),
        line(
            "absolute form without path",
            "GET http://b:2 HTTP/1.1\r\nHost: a",
            Forwarded {
                targets: &["GET /"],
                stays: true,
            },
        )
        .check(host_is_b),
        line(
            "absolute form, two hosts",
            "POST http://b/v1/chat/completions HTTP/1.1\r\nHost: a\r\nHost: b",
            Guard(400),
        ),
    ]
}

pub fn connections() -> Vec<Case> {
    use Want::Forwarded;
    vec![
        chat("connection: content-length", "Connection: content-length\r\nContent-Length: 2\r\n\r\nab", STAYS).check(body_is_ab),
        chat("connection: host, authorization", "Connection: Host, Authorization\r\nAuthorization: k\r\nContent-Length: 2\r\n\r\nab", STAYS)
            .check(|r| r[0].get("authorization").as_deref() == Some("k") && r[0].count("connection") == 0),
        chat("connection: transfer-encoding", "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", STAYS).check(body_is_ab),
        chat("connection on two lines", "Connection: x-a\r\nConnection: , X-B ,\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nContent-Length: 2\r\n\r\nab", STAYS)
            .check(|r| ["x-a", "x-b", "connection", "keep-alive", "proxy-connection"].iter().all(|n| r[0].count(n) == 0) && r[0].count("x-c") == 1),
        chat("connection: close", "Connection: close\r\nContent-Length: 2\r\n\r\nabGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n", CLOSES).check(body_is_ab),
        raw("TE goes on as trailers", "GET /a HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n",
            Forwarded { targets: &["GET /a"], stays: true })
            .check(|r| r[0].get("te").as_deref() == Some("trailers") && r[0].get("connection").as_deref() == Some("te")),
    ]
}

pub fn upgrades() -> Vec<Case> {
    use Want::Forwarded;
    vec![
        raw("bytes behind an upgrade that is not granted",
            "GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            Forwarded { targets: &["GET /v1/realtime", "GET /b"], stays: true })
            .check(|r| r[0].get("upgrade").as_deref() == Some("websocket") && r[1].count("upgrade") == 0),
        raw("an upgrade that connection does not name", "GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            Forwarded { targets: &["GET /a"], stays: true })
            .check(|r| r[0].count("upgrade") == 0),
        chat("h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\nab", STAYS)
            .check(|r| body_is_ab(r) && r[0].count("upgrade") == 0 && r[0].count("http2-settings") == 0 && r[0].count("connection") == 0),
        chat("h2c on a second line", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: H2C\r\nContent-Length: 2\r\n\r\nab", STAYS)
            .check(|r| body_is_ab(r) && r[0].headers.iter().all(|(_, v)| !v.eq_ignore_ascii_case(b"h2c"))),
        raw("an upgrade in HTTP/1.0", "GET /a HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
            Forwarded { targets: &["GET /a"], stays: false })
            .check(|r| r[0].count("upgrade") == 0),
    ]
}
