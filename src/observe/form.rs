//! The multipart form that audio requests are: its few short fields, around a file of any size.
//!
//! The beginning and the end are kept, since clients put the file first as well as last. What lies in both is read
//! without the head's `boundary`, which is the body's own first line.

use memchr::memmem;

use super::request::RequestFacts;

/// What is kept of the beginning.
const HEAD: usize = 32 * 1024;

/// What is kept of the end. Up to twice as much is held while it passes.
const TAIL: usize = 16 * 1024;

/// RFC 2046 allows a boundary of 70 characters.
const BOUNDARY: usize = 256;

/// What passed of a form.
#[derive(Debug, Default)]
pub(super) struct Form {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Something between the two is gone.
    cut: bool,
}

// === impl Form ===

impl Form {
    /// A data frame passes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = HEAD - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        for piece in rest.chunks(TAIL) {
            // Trimmed only once there is as much again, so that small frames do not move it each time.
            if self.tail.len() + piece.len() > 2 * TAIL {
                self.cut = true;
                self.tail.drain(..self.tail.len() - TAIL);
            }
            self.tail.extend_from_slice(piece);
        }
    }

    /// The body, if it is whole.
    pub(super) fn whole(&mut self) -> Option<&[u8]> {
        if self.cut {
            return None;
        }
        self.head.append(&mut self.tail);
        Some(&self.head)
    }

    /// The form has passed: what its fields said.
    pub(super) fn finish(mut self) -> RequestFacts {
        let mut facts = RequestFacts::default();
        self.whole();
        let body = self.head.trim_ascii_start();
        let Some(line) = memmem::find(body, b"\r\n") else {
            return facts;
        };
        let delimiter = body.get(..line).unwrap_or_default();
        if !delimiter.starts_with(b"--") || delimiter.len() > BOUNDARY {
            return facts;
        }
        let mut take = |name: &str, value: &[u8]| field(&mut facts, name, value);
        fields(body, delimiter, &mut take);
        let next = [b"\r\n", delimiter, b"\r\n"].concat();
        if let Some(at) = memmem::find(&self.tail, &next) {
            let from = self.tail.get(at + 2..).unwrap_or_default();
            fields(from, delimiter, &mut take);
        }
        facts
    }
}

/// The parts of a body that begins at a delimiter, up to the first that is cut.
fn fields(body: &[u8], delimiter: &[u8], take: &mut impl FnMut(&str, &[u8])) -> Option<()> {
    let close = [b"\r\n", delimiter].concat();
    let close = memmem::Finder::new(&close);
    let mut rest = body;
    loop {
        rest = rest.strip_prefix(delimiter)?.strip_prefix(b"\r\n")?;
        let (head, value) = rest.split_at_checked(memmem::find(rest, b"\r\n\r\n")?)?;
        let value = value.get(4..)?;
        let end = close.find(value)?;
        if let Some(name) = name(head) {
            take(name, value.get(..end)?);
        }
        rest = value.get(end + 2..)?;
    }
}

/// The field that a part is; none for a file.
fn name(head: &[u8]) -> Option<&str> {
    let lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let disposition = lines
        .filter_map(|line| line.split_once(':'))
        .find(|line| line.0.trim().eq_ignore_ascii_case("content-disposition"))?
        .1;
    let mut name = None;
    for parameter in disposition.split(';').skip(1) {
        let (key, value) = parameter.split_once('=')?;
        let key = key.trim();
        if key.eq_ignore_ascii_case("name") {
            name = Some(value.trim().trim_matches('"'));
        } else if key.to_ascii_lowercase().starts_with("filename") {
            return None;
        }
    }
    name
}

fn field(facts: &mut RequestFacts, name: &str, value: &[u8]) {
    let Ok(value) = std::str::from_utf8(value) else {
        return;
    };
    let value = value.trim();
    match name {
        "model" => facts.model = (!value.is_empty()).then(|| value.into()),
        "stream" => facts.stream = truth(value),
        "stream_include_usage" => facts.include_usage = truth(value),
        "stream_continuous_usage_stats" => facts.continuous_usage = truth(value),
        "max_completion_tokens" => facts.max_tokens = value.parse().ok(),
        _ => {}
    }
}

/// What vLLM's form takes for true (pydantic's words).
fn truth(word: &str) -> bool {
    ["true", "1", "on", "yes", "t", "y"]
        .iter()
        .any(|yes| word.eq_ignore_ascii_case(yes))
}
