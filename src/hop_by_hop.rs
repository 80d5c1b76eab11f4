//! Which headers belong to one connection and are not forwarded (RFC 9110 §7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST,
    HeaderName, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
};
use smallvec::SmallVec;

/// What a message's `Connection` lines name, all of them, in order.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTokens<'a>(SmallVec<[&'a [u8]; 4]>);

impl<'a> ConnectionTokens<'a> {
    /// From every `Connection` line of the message; looking at the first only is linkerd's old fault.
    pub(crate) fn new(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut tokens = SmallVec::new();
        for line in lines {
            tokens.extend(
                line.split(|b| *b == b',')
                    .map(<[u8]>::trim_ascii)
                    .filter(|t| !t.is_empty()),
            );
        }
        Self(tokens)
    }

    /// Whether `token` is among them, in any case.
    #[must_use]
    pub(crate) fn contains(&self, token: &str) -> bool {
        self.0
            .iter()
            .any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the header is for this connection only.
    ///
    /// A peer may name any header in `Connection`; those that carry the message's meaning are kept all the same, or a
    /// client could have its own credentials or framing removed on the way.
    #[must_use]
    pub(crate) fn is_hop_by_hop(&self, name: &HeaderName) -> bool {
        if *name == CONNECTION || *name == TRANSFER_ENCODING || *name == TE || *name == UPGRADE {
            return true;
        }
        match name.as_str() {
            "keep-alive" | "proxy-connection" | "http2-settings" => return true,
            _ => {}
        }
        if self.0.is_empty() {
            return false;
        }
        let kept = [
            HOST,
            AUTHORIZATION,
            CONTENT_LENGTH,
            CONTENT_TYPE,
            CONTENT_ENCODING,
            COOKIE,
            SET_COOKIE,
        ];
        self.contains(name.as_str()) && !kept.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_counts_and_meaning_is_kept() {
        let lines: [&[u8]; 2] = [b"close, X-One", b" x-two ,,Host,Content-Length"];
        let tokens = ConnectionTokens::new(lines.into_iter());
        for (name, hop) in [
            ("x-one", true),
            ("x-two", true),
            ("x-three", false),
            ("connection", true),
            ("keep-alive", true),
            ("te", true),
            ("transfer-encoding", true),
            ("upgrade", true),
            ("proxy-connection", true),
            ("host", false),
            ("content-length", false),
            ("authorization", false),
            ("trailer", false),
        ] {
            let name: HeaderName = name.parse().unwrap();
            assert_eq!(tokens.is_hop_by_hop(&name), hop, "{name}");
        }
        assert!(tokens.contains("CLOSE"));
    }
}
