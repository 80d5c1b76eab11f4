//! How long a response's body is (RFC 9112 §6.3), and whether its connection can serve another request.

use http::{Method, StatusCode, Version};
use smallvec::SmallVec;

use crate::hop_by_hop::ConnectionTokens;

/// What ends the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// The last chunk.
    Chunked,
    /// The end of the connection.
    Close,
    /// A 101: from here on the connection is a tunnel.
    Tunnel,
}

/// The raw headers that decide.
#[derive(Debug, Default)]
pub(super) struct FramingHeaders<'a> {
    pub(super) transfer_encoding: SmallVec<[&'a [u8]; 2]>,
    pub(super) content_length: SmallVec<[&'a [u8]; 2]>,
}

impl Framing {
    /// Chooses as RFC 9112 §6.3 says, refusing what cannot be trusted.
    pub(super) fn of_response(
        request: &Method,
        status: StatusCode,
        version: Version,
        headers: &FramingHeaders<'_>,
    ) -> Result<Self, &'static str> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Self::Tunnel);
        }
        if *request == Method::HEAD || matches!(status.as_u16(), 100..=199 | 204 | 304) {
            return Ok(Self::Empty);
        }
        if !headers.transfer_encoding.is_empty() {
            if version == Version::HTTP_10 {
                return Err("transfer-encoding in HTTP/1.0");
            }
            // Anything beside "chunked" would have to be decoded before the body could be passed on.
            let mut codings = headers
                .transfer_encoding
                .iter()
                .flat_map(|line| line.split(|b| *b == b','))
                .map(<[u8]>::trim_ascii)
                .filter(|coding| !coding.is_empty());
            return match (codings.next(), codings.next()) {
                (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Ok(Self::Chunked),
                _ => Err("transfer-encoding other than chunked"),
            };
        }
        let mut length = None;
        for value in headers
            .content_length
            .iter()
            .flat_map(|line| line.split(|b| *b == b','))
        {
            let value = decimal(value.trim_ascii()).ok_or("bad content-length")?;
            if length.is_some_and(|seen| seen != value) {
                return Err("content-lengths differ");
            }
            length = Some(value);
        }
        Ok(match length {
            Some(0) => Self::Empty,
            Some(length) => Self::Length(length),
            None => Self::Close,
        })
    }
}

/// Whether the connection stays open after this response.
pub(super) fn keeps_alive(version: Version, tokens: &ConnectionTokens<'_>) -> bool {
    if tokens.contains("close") {
        return false;
    }
    version == Version::HTTP_11 || tokens.contains("keep-alive")
}

/// Digits only: `+2` and `0x2` are not lengths.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(
        method: &str,
        status: u16,
        te: &[&'static str],
        cl: &[&'static str],
    ) -> Result<Framing, &'static str> {
        Framing::of_response(
            &method.parse().unwrap(),
            StatusCode::from_u16(status).unwrap(),
            Version::HTTP_11,
            &FramingHeaders {
                transfer_encoding: te.iter().map(|v| v.as_bytes()).collect(),
                content_length: cl.iter().map(|v| v.as_bytes()).collect(),
            },
        )
    }

    #[test]
    fn rfc_9112_6_3() {
        assert_eq!(framing("POST", 200, &[], &["12"]), Ok(Framing::Length(12)));
        assert_eq!(framing("POST", 200, &[], &["0"]), Ok(Framing::Empty));
        assert_eq!(
            framing("POST", 200, &[], &["12", "12"]),
            Ok(Framing::Length(12))
        );
        assert_eq!(
            framing("POST", 200, &[], &["12, 12"]),
            Ok(Framing::Length(12))
        );
        assert_eq!(
            framing("POST", 200, &["Chunked"], &["12"]),
            Ok(Framing::Chunked)
        );
        assert_eq!(framing("POST", 200, &[], &[]), Ok(Framing::Close));
        assert_eq!(framing("HEAD", 200, &["chunked"], &[]), Ok(Framing::Empty));
        assert_eq!(framing("GET", 204, &[], &["5"]), Ok(Framing::Empty));
        assert_eq!(framing("GET", 304, &[], &["5"]), Ok(Framing::Empty));
        assert_eq!(framing("GET", 101, &[], &[]), Ok(Framing::Tunnel));
        for (te, cl) in [
            (&["gzip, chunked"][..], &[][..]),
            (&["chunked", "chunked"], &[]),
            (&["identity"], &[]),
            (&[], &["1", "2"]),
            (&[], &["+1"]),
            (&[], &[""]),
            (&[], &["0x1"]),
            (&[], &["99999999999999999999"]),
        ] {
            assert!(framing("GET", 200, te, cl).is_err(), "{te:?} {cl:?}");
        }
    }
}
