//! Parsed heads. Names are lower-cased, because everything that reads them here compares.

/// How the body of a message is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) http10: bool,
    headers: Vec<(String, String)>,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

const MAX_HEADERS: usize = 128;

// === impl RequestHead ===

impl RequestHead {
    /// The head at the start of `bytes` and its length, `None` while it is incomplete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut storage);
        let httparse::Status::Complete(len) = request.parse(bytes)? else {
            return Ok(None);
        };
        let target = request.path.unwrap_or("/");
        let head = Self {
            method: request.method.unwrap_or_default().to_owned(),
            path: target.split('?').next().unwrap_or(target).to_owned(),
            http10: request.version == Some(0),
            headers: collect(request.headers),
        };
        Ok(Some((head, len)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn body_kind(&self) -> BodyKind {
        declared(&self.headers).unwrap_or(BodyKind::None)
    }

    pub(crate) fn wants_close(&self) -> bool {
        closes(&self.headers, self.http10)
    }
}

// === impl ResponseHead ===

impl ResponseHead {
    /// The head at the start of `bytes` and its length, `None` while it is incomplete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut storage);
        let httparse::Status::Complete(len) = response.parse(bytes)? else {
            return Ok(None);
        };
        let head = Self {
            status: response.code.unwrap_or_default(),
            headers: collect(response.headers),
        };
        Ok(Some((head, len)))
    }

    pub(crate) fn body_kind(&self) -> BodyKind {
        if self.status < 200 || self.status == 204 || self.status == 304 {
            return BodyKind::None;
        }
        declared(&self.headers).unwrap_or(BodyKind::UntilClose)
    }

    pub(crate) fn will_close(&self) -> bool {
        closes(&self.headers, false) || self.body_kind() == BodyKind::UntilClose
    }
}

fn collect(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|h| {
            (
                h.name.to_ascii_lowercase(),
                String::from_utf8_lossy(h.value).into_owned(),
            )
        })
        .collect()
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, v)| v.as_str())
}

fn declared(headers: &[(String, String)]) -> Option<BodyKind> {
    let has_token = |value: &str, token: &str| {
        value
            .split(',')
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if find(headers, "transfer-encoding").is_some_and(|v| has_token(v, "chunked")) {
        return Some(BodyKind::Chunked);
    }
    let length = find(headers, "content-length")?.trim().parse().ok()?;
    Some(BodyKind::Length(length))
}

fn closes(headers: &[(String, String)], http10: bool) -> bool {
    let value = find(headers, "connection").unwrap_or_default();
    let has = |token| {
        value
            .split(',')
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    has("close") || (http10 && !has("keep-alive"))
}
