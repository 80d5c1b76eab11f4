//! Raw requests that two parsers might read in two ways. For each: what the client gets, whether its connection goes
//! on, and that upstream is sent exactly the requests that were meant, in framing of our own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use loadtest::scripted::{RawServer, Step};

use crate::smuggling_cases::{Case, Want, all};
use crate::strict::{self, Request};
use crate::support::{Message, Metrics, Proxy, find, runtime};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// Sent behind a case that is to leave the connection open.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n";

struct Bench {
    runtime: tokio::runtime::Runtime,
    upstream: RawServer,
    proxy: Proxy,
    /// Upstream connections that earlier cases made.
    seen: usize,
}

impl Bench {
    fn new() -> Self {
        let runtime = runtime();
        let answer = vec![
            Step::ReadHead,
            Step::ReadDeclaredBody,
            Step::Write(OK.into()),
            Step::Repeat,
        ];
        let upstream = runtime
            .block_on(async { RawServer::start(answer) })
            .unwrap();
        // No pool: every forwarded request makes a connection of its own, so one with two is a smuggled one.
        let proxy = Proxy::with(upstream.addr(), |config| {
            config.upstream.pool_max_idle = 0;
            config.server.max_body_bytes = 1 << 20;
        });
        Self {
            runtime,
            upstream,
            proxy,
            seen: 0,
        }
    }

    /// What upstream got since the last call, a connection each.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let seen = std::mem::replace(&mut self.seen, self.upstream.received().len());
        // All connections of this case are given up by the proxy by now, or will be at once.
        let closed = self
            .runtime
            .block_on(self.upstream.wait(Duration::from_secs(5), |all| {
                all.iter()
                    .skip(seen)
                    .all(|connection| connection.peer_closed.is_some())
            }));
        assert!(closed, "an upstream connection stays open");
        self.upstream.received()[seen..]
            .iter()
            .map(|c| c.bytes.clone())
            .collect()
    }

    fn run(&mut self, case: &Case) -> Result<(), String> {
        let rejected = |m: &Metrics| {
            m.count(
                "vllm_request_error_total",
                &["error_type=\"proxy_rejected\""],
            )
        };
        let before = rejected(&self.proxy.metrics());
        let mut client = TcpStream::connect(self.proxy.addr()).unwrap();
        client.set_nodelay(true).unwrap();
        for (index, segment) in case.segments.iter().enumerate() {
            if index > 0 {
                std::thread::sleep(Duration::from_millis(15));
            }
            // A refusal may close before all is written.
            let _ = client.write_all(segment);
        }
        let (answers, closed) = match &case.want {
            Want::Forwarded {
                targets,
                stays: true,
            } => {
                let mut bytes = read_answers(&mut client, targets.len());
                client.write_all(PROBE).unwrap();
                let (rest, tidy) = read_to_close(&mut client);
                bytes.extend(rest);
                (bytes, tidy)
            }
            _ => read_to_close(&mut client),
        };
        let received = self.received();
        let rejected = rejected(&self.proxy.metrics()) - before;
        self.judge(case, &answers, closed, &received, rejected)
    }

    fn judge(
        &self,
        case: &Case,
        answers: &[u8],
        tidy: bool,
        received: &[Vec<u8>],
        rejected: u64,
    ) -> Result<(), String> {
        let text = answers.escape_ascii().to_string();
        match &case.want {
            Want::Silence => {
                ensure(find(answers, b"HTTP/1.1 200").is_none(), || {
                    format!("answered: {text}")
                })?;
                ensure(received.is_empty(), || "reached upstream".to_owned())
            }
            Want::Guard(status) | Want::Hyper(status) => {
                ensure(tidy, || format!("not closed: {text}"))?;
                refusal(answers, *status)?;
                let counted = u64::from(matches!(case.want, Want::Guard(_)));
                ensure(rejected == counted, || format!("counted {rejected} times"))?;
                ensure(received.is_empty(), || {
                    format!("reached upstream: {received:?}")
                })
            }
            Want::BadBody => {
                refusal(answers, 400)?;
                ensure(rejected == 1, || format!("counted {rejected} times"))?;
                for bytes in received {
                    // The head may have gone on before the fault was there to see, but never a whole request.
                    ensure(strict::requests(bytes).is_err() || bytes.is_empty(), || {
                        format!("upstream has a whole request: {}", bytes.escape_ascii())
                    })?;
                }
                Ok(())
            }
            Want::Forwarded { targets, stays } => {
                ensure(tidy, || format!("reset after {text}"))?;
                let want = targets.len() + usize::from(*stays);
                let plain = String::from_utf8_lossy(answers)
                    .replace("HTTP/1.0 ", "HTTP/1.1 ")
                    .replace("connection: close\r\n", "");
                ensure(plain.as_bytes() == OK.repeat(want), || {
                    format!("{want} answers wanted: {text}")
                })?;
                let mut requests = Vec::new();
                for bytes in received {
                    let mut here = strict::requests(bytes)?;
                    ensure(here.len() == 1, || {
                        format!("smuggled: {}", bytes.escape_ascii())
                    })?;
                    requests.append(&mut here);
                }
                if *stays {
                    ensure(
                        requests.pop().is_some_and(|r| r.line.contains("/probe")),
                        || "no probe".to_owned(),
                    )?;
                }
                let lines: Vec<_> = requests.iter().map(|r| r.line.as_str()).collect();
                let wanted: Vec<_> = targets.iter().map(|t| format!("{t} HTTP/1.1")).collect();
                ensure(lines == wanted, || format!("upstream got {lines:?}"))?;
                ensure(rejected == 0, || {
                    format!("counted as rejected {rejected} times")
                })?;
                case.check.map_or(Ok(()), |check| {
                    ensure(check(&requests), || format!("not as wanted: {requests:#?}"))
                })
            }
        }
    }
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    let mut rest = haystack;
    let mut count = 0;
    while let Some(at) = find(rest, needle) {
        count += 1;
        rest = &rest[at + needle.len()..];
    }
    count
}

/// One answer of ours, in the shape that clients read, on a connection that ends with it.
fn refusal(bytes: &[u8], status: u16) -> Result<(), String> {
    let text = bytes.escape_ascii().to_string();
    let Some(answer) = Message::parse(bytes) else {
        return Err(format!("no answer: {text}"));
    };
    ensure(answer.status == status, || text.clone())?;
    ensure(count(bytes, b"HTTP/1.1 ") == 1, || {
        format!("more than one answer: {text}")
    })?;
    ensure(answer.complete, || format!("not whole: {text}"))?;
    ensure(answer.get("connection").as_deref() == Some("close"), || {
        text.clone()
    })?;
    ensure(
        answer.get("content-type").as_deref() == Some("application/json"),
        || text.clone(),
    )?;
    let json: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("{error}: {text}"))?;
    let error = &json["error"];
    ensure(
        error["message"].is_string()
            && error["type"].is_string()
            && error.get("param").is_some_and(serde_json::Value::is_null)
            && error["code"] == status,
        || text,
    )
}

/// All until the peer closes; a reset or an open connection is not tidy.
fn read_to_close(client: &mut TcpStream) -> (Vec<u8>, bool) {
    client
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut bytes = Vec::new();
    let tidy = client.read_to_end(&mut bytes).is_ok();
    (bytes, tidy)
}

/// So many [`OK`]s, or what came before the peer fell silent.
fn read_answers(client: &mut TcpStream, want: usize) -> Vec<u8> {
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while bytes.len() < want * OK.len() {
        match client.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    bytes
}

#[test]
fn every_case() {
    let mut bench = Bench::new();
    let cases = all();
    assert!(cases.len() > 90, "only {}", cases.len());
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let fault = bench.run(case).err()?;
            Some(format!(
                "{}: {}",
                case.name,
                fault.chars().take(600).collect::<String>()
            ))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// The same at every split into two TCP segments: what is refused whole must be refused in pieces.
#[test]
fn content_length_beside_chunked_at_every_split() {
    let mut bench = Bench::new();
    let raw = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";
    let head = find(raw, b"\r\n\r\n").unwrap();
    for at in (1..head + 3).step_by(3) {
        let case = Case {
            name: "split",
            segments: vec![raw[..at].to_vec(), raw[at..].to_vec()],
            want: Want::Guard(400),
            check: None,
        };
        bench
            .run(&case)
            .unwrap_or_else(|fault| panic!("at {at}: {fault}"));
    }
}

/// The judge itself: it must not pass what it is there to catch.
#[test]
fn the_judge_is_strict() {
    let good = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nabGET / HTTP/1.1\r\nhost: b\r\n\r\n";
    let lines: Vec<_> = strict::requests(good)
        .unwrap()
        .into_iter()
        .map(|r: Request| r.line)
        .collect();
    assert_eq!(lines, ["POST /x HTTP/1.1", "GET / HTTP/1.1"]);
    for bad in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"GET / HTTP/1.1\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: a\r\n\r\n",
    ] {
        assert!(strict::requests(bad).is_err(), "{}", bad.escape_ascii());
    }
}
