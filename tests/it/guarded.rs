//! The guard where a table of raw bytes does not reach: HTTP/2, and heads behind other heads.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::origin::{Bed, Peer};
use crate::strict;
use crate::support::{Message, runtime};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Status and body of one HTTP/2 request with these `host` headers.
fn by_h2(bed: &Bed, uri: &str, hosts: &[&str]) -> (u16, Bytes) {
    let addr = bed.proxy.addr();
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::post(uri).header("x-a", "1");
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    })
}

/// HTTP/2 names the host in `:authority`; one in `host` must not get past it to another parser.
#[test]
fn the_authority_of_http_2_is_the_host() {
    for (hosts, status) in [
        (&[][..], 200),
        (&["b:2"], 200),
        (&["evil"], 200),
        (&["b:2", "evil"], 400),
        (&["a/b"], 400),
    ] {
        let bed = Bed::answering(OK);
        let (got, body) = by_h2(&bed, "http://b:2/v1/chat/completions", hosts);
        assert_eq!(got, status, "{hosts:?}: {}", body.escape_ascii());
        let received = bed.upstream.received();
        assert_eq!(received.len(), usize::from(status == 200), "{hosts:?}");
        if status == 200 {
            let requests = strict::requests(&received[0].bytes).unwrap();
            assert_eq!(requests[0].get("host").as_deref(), Some("b:2"), "{hosts:?}");
            assert_eq!(requests[0].body, b"{}");
        } else {
            assert!(body.starts_with(b"{\"error\":{"), "{}", body.escape_ascii());
        }
    }
}

/// A head that is no HTTP, behind a good request or after its answer: told in our words all the same.
#[test]
fn a_bad_head_behind_a_good_request() {
    let bed = Bed::answering(OK);
    let (bytes, _) = bed.ask(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nnonsense\r\n\r\n");
    let rest = bytes
        .strip_prefix(OK)
        .unwrap_or_else(|| panic!("{}", bytes.escape_ascii()));
    let refused = Message::parse(rest).unwrap();
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_u64()),
        (400, Some(400))
    );

    let mut client = Peer::connect(bed.proxy.addr());
    for _ in 0..2 {
        client.write("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.read_exact(OK.len()), OK);
    }
    client.write("nonsense\r\n\r\n");
    let (bytes, _) = client.read_to_end();
    let refused = Message::parse(&bytes).unwrap();
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_u64()),
        (400, Some(400))
    );
    for connection in bed.upstream.received() {
        let lines: Vec<_> = strict::requests(&connection.bytes)
            .unwrap()
            .into_iter()
            .map(|r| r.line)
            .collect();
        assert!(
            lines.iter().all(|line| line == "GET /a HTTP/1.1"),
            "{lines:?}"
        );
    }
}

/// `Content-Length` beside `Transfer-Encoding` is refused on a connection that has served before, too.
#[test]
fn both_lengths_on_a_connection_in_use() {
    let bed = Bed::answering(OK);
    let mut client = Peer::connect(bed.proxy.addr());
    for body in [
        "",
        "content-length: 5\r\n\r\n",
        "a: b\ncontent-length: 3\r\n",
    ] {
        client.write(format!(
            "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.read_exact(OK.len()), OK);
        client.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
        assert_eq!(client.read_exact(OK.len()), OK);
    }
    client.write("POST /v1/completions HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n");
    let (bytes, _) = client.read_to_end();
    assert_eq!(
        Message::parse(&bytes).unwrap().status,
        400,
        "{}",
        bytes.escape_ascii()
    );
}
