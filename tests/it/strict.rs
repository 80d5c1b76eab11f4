//! A request parser that accepts nothing that two parsers could read in two ways: the judge of what upstream was sent.

/// One request as upstream saw it.
#[derive(Debug)]
pub struct Request {
    pub line: String,
    /// In order, names as sent.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub chunked: bool,
}

impl Request {
    pub fn get(&self, name: &str) -> Option<String> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| String::from_utf8_lossy(v).into_owned())
    }

    pub fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(n, _)| n == name).count()
    }
}

/// All requests in `bytes`, each well-formed and whole, and nothing after them.
pub fn requests(mut bytes: &[u8]) -> Result<Vec<Request>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (request, used) = request(bytes).map_err(|reason| {
            format!(
                "{reason} in request {} of {}",
                all.len(),
                bytes.escape_ascii()
            )
        })?;
        all.push(request);
        bytes = &bytes[used..];
    }
    Ok(all)
}

fn request(bytes: &[u8]) -> Result<(Request, usize), String> {
    let end = crate::support::find(bytes, b"\r\n\r\n").ok_or("no end of head")?;
    let mut lines = Vec::new();
    let mut rest = &bytes[..end];
    while let Some(at) = crate::support::find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    if lines
        .iter()
        .any(|line| line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)))
    {
        return Err("bare CR, bare LF or NUL in the head".to_owned());
    }
    let line = String::from_utf8_lossy(lines[0]).into_owned();
    let words: Vec<_> = line.split(' ').collect();
    if words.len() != 3 || words[2] != "HTTP/1.1" || words[1].is_empty() {
        return Err(format!("request line {line:?}"));
    }
    let mut headers = Vec::new();
    for line in &lines[1..] {
        let colon = line
            .iter()
            .position(|b| *b == b':')
            .ok_or("a line without colon")?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        if name.is_empty() || !name.iter().all(token) {
            return Err(format!("header name {:?}", name.escape_ascii().to_string()));
        }
        headers.push((
            String::from_utf8_lossy(name).to_ascii_lowercase(),
            value.trim_ascii().to_vec(),
        ));
    }
    let mut request = Request {
        line,
        headers,
        body: Vec::new(),
        chunked: false,
    };
    if request.count("host") != 1 {
        return Err("not exactly one host".to_owned());
    }
    let start = end + 4;
    let used = match (
        request.count("content-length"),
        request.count("transfer-encoding"),
    ) {
        (0, 0) => start,
        (1, 0) => {
            let length = request.get("content-length").unwrap_or_default();
            if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("content-length {length:?}"));
            }
            let length: usize = length.parse().map_err(|_| "content-length")?;
            request.body = bytes
                .get(start..start + length)
                .ok_or("body too short")?
                .to_vec();
            start + length
        }
        (0, 1) => {
            if request.get("transfer-encoding").as_deref() != Some("chunked") {
                return Err("transfer-encoding".to_owned());
            }
            request.chunked = true;
            let (body, used) = dechunk(&bytes[start..])?;
            request.body = body;
            start + used
        }
        _ => return Err("framed in more than one way".to_owned()),
    };
    Ok((request, used))
}

fn dechunk(bytes: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = crate::support::find(&bytes[at..], b"\r\n").ok_or("no chunk size")?;
        let size = &bytes[at..at + line];
        if size.is_empty() || size.len() > 8 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("chunk size {:?}", size.escape_ascii().to_string()));
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(size), 16).map_err(|_| "size")?;
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size).ok_or("chunk too short")?);
        at += size;
        if bytes.get(at..at + 2) != Some(b"\r\n") {
            return Err("chunk end".to_owned());
        }
        at += 2;
        if size == 0 {
            return Ok((body, at));
        }
    }
}
