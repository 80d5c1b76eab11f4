//! Every recorded answer of a real vLLM, played back as upstream: whole, byte by byte, at random splits. The client
//! must see the same body, the same end, and the same headers but for hop-by-hop.

use std::path::PathBuf;
use std::time::Duration;

use loadtest::scripted::{RawServer, Step};
use proptest::prelude::*;

use crate::support::{Message, Proxy, exchange, runtime};

/// Name, request and response of each recording that has both.
fn recordings() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut all: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "resp"))
        .filter_map(|path| {
            let mut request = std::fs::read(path.with_extension("req")).ok()?;
            let head = crate::support::find(&request, b"\r\n\r\n").unwrap();
            if crate::support::find(&request[..head], b"Connection: close").is_none() {
                // So that the end of the answer shows.
                request.splice(head..head, *b"\r\nConnection: close");
            }
            let response = std::fs::read(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (!response.is_empty()).then_some((name, request, response))
        })
        .collect();
    all.sort();
    assert!(all.len() > 80, "only {} recordings", all.len());
    all
}

/// Hop-by-hop headers are the connection's; all others must be the same, in number and bytes.
fn end_to_end(message: &Message) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<_> = message
        .headers
        .iter()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "connection" | "transfer-encoding" | "keep-alive"
            )
        })
        .cloned()
        .collect();
    headers.sort();
    headers
}

#[track_caller]
fn replay(name: &str, request: &[u8], response: &[u8], sizes: Vec<usize>) {
    let runtime = runtime();
    let head_request = request.starts_with(b"HEAD");
    let upstream = runtime
        .block_on(async {
            RawServer::start(vec![
                Step::ReadHead,
                Step::ReadDeclaredBody,
                Step::WriteSplit {
                    bytes: response.to_vec().into(),
                    sizes,
                },
                Step::Close,
            ])
        })
        .unwrap();
    let proxy = Proxy::start(upstream.addr());
    let (seen, tidy) = exchange(proxy.addr(), request, Duration::from_secs(20));
    assert!(tidy, "{name}: reset");
    let sent = Message::parse(response).unwrap();
    let got = Message::parse(&seen)
        .unwrap_or_else(|| panic!("{name}: no answer: {}", seen.escape_ascii()));
    assert_eq!(got.status, sent.status, "{name}");
    assert_eq!(got.reason, sent.reason, "{name}");
    assert_eq!(end_to_end(&got), end_to_end(&sent), "{name}");
    assert_eq!(
        got.all("transfer-encoding").len(),
        sent.all("transfer-encoding").len(),
        "{name}: framing"
    );
    assert!(got.body == sent.body, "{name}: the body");
    if !head_request {
        assert_eq!(got.complete, sent.complete, "{name}: the end");
    }
    let received = runtime.block_on(async {
        upstream
            .wait(Duration::from_secs(5), |all| {
                all.first()
                    .is_some_and(|c| c.bytes.len() >= request.len() / 2)
            })
            .await;
        upstream.received()
    });
    let upstream_saw = &received[0].bytes;
    let body =
        |bytes: &[u8]| bytes[crate::support::find(bytes, b"\r\n\r\n").unwrap() + 4..].to_vec();
    assert!(
        body(upstream_saw) == body(request),
        "{name}: the request body"
    );
}

#[test]
fn whole() {
    for (name, request, response) in recordings() {
        let all = response.len();
        replay(&name, &request, &response, vec![all]);
    }
}

#[test]
fn byte_by_byte() {
    for (name, request, response) in recordings() {
        replay(&name, &request, &response, vec![1; response.len()]);
    }
}

/// A recording that was cut on its way is a cut for the client as well.
#[test]
fn cut_short_anywhere() {
    let (name, request, response) = recordings()
        .into_iter()
        .find(|(name, ..)| name == "chat-stream-usage")
        .unwrap();
    let head = crate::support::find(&response, b"\r\n\r\n").unwrap() + 4;
    for end in (head..response.len())
        .step_by(97)
        .chain([response.len() - 1])
    {
        replay(
            &format!("{name} cut at {end}"),
            &request,
            &response[..end],
            vec![end],
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_splits(which in any::<prop::sample::Index>(), sizes in prop::collection::vec(1usize..700, 1..40)) {
        let all = recordings();
        let (name, request, response) = which.get(&all);
        replay(name, request, response, sizes);
    }
}
