//! Recorded exchanges, as bodies and events.

use bytes::Bytes;
use http::response;

use crate::CAPTURES;

/// One recorded exchange.
pub(crate) struct Capture {
    /// Of the answer; what concerns only the recorded connection is left out.
    pub(crate) head: response::Parts,
    /// What the client asked.
    pub(crate) asked: Bytes,
    /// What came, without its framing.
    pub(crate) body: Bytes,
}

impl Capture {
    /// The exchange of that name.
    pub(crate) fn read(name: &str) -> Self {
        let file = |end| std::fs::read(format!("{CAPTURES}/{name}.{end}")).unwrap();
        let (_, asked) = split(&file("req"));
        let (lines, body) = split(&file("resp"));
        let lines = String::from_utf8(lines).unwrap();
        let mut lines = lines.split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)).unwrap();
        let mut head = http::Response::builder().status(status);
        let mut chunked = false;
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name {
                "connection" => {}
                "transfer-encoding" => chunked = true,
                _ => head = head.header(name, value),
            }
        }
        let body = if chunked { dechunked(&body) } else { body };
        Self {
            head: head.body(()).unwrap().into_parts().0,
            asked: asked.into(),
            body: body.into(),
        }
    }

    /// The events, each with the blank line that ends it.
    pub(crate) fn events(&self) -> Vec<Bytes> {
        let text = std::str::from_utf8(&self.body).unwrap();
        let events = text.split_inclusive("\n\n");
        events.map(|event| Bytes::from(event.to_owned())).collect()
    }
}

fn split(message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, rest) = message.split_at(end.unwrap());
    (head.to_vec(), rest[4..].to_vec())
}

fn dechunked(mut wire: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = wire.iter().position(|byte| *byte == b'\r').unwrap();
        let size = std::str::from_utf8(&wire[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&wire[end + 2..end + 2 + size]);
        wire = &wire[end + 2 + size + 2..];
    }
}
