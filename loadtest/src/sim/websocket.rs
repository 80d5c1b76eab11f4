//! The WebSocket handshake of `/v1/realtime`, and an echo behind it.
//!
//! The echo is a stream of bytes, not of messages: each byte goes back as it comes. Only the mask is taken off, since
//! a client may not accept masked frames; unmasked bytes thus come back exactly as they were sent.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};

use crate::http1::{Conn, PeerGone, RequestHead};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key of a handshake, if `head` is one.
pub(crate) fn key(head: &RequestHead) -> Option<&str> {
    let upgrade = head.header("upgrade")?;
    let key = head.header("sec-websocket-key")?;
    upgrade.eq_ignore_ascii_case("websocket").then_some(key)
}

/// Answers 101 and echoes until the peer leaves or closes.
pub(crate) async fn echo(conn: &mut Conn, key: &str) -> Result<(), PeerGone> {
    let accept = accept(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nserver: uvicorn\r\n\r\n"
    );
    conn.write_all(head.as_bytes()).await?;
    let mut echo = Echo::default();
    loop {
        let input = std::mem::take(&mut conn.buf);
        let mut output = Vec::with_capacity(input.len());
        for byte in input {
            echo.byte(byte, &mut output);
        }
        if !output.is_empty() {
            conn.write_all(&output).await?;
        }
        if echo.closed() {
            return Ok(());
        }
        conn.fill().await?;
    }
}

/// Where in a frame the echo is.
#[derive(Debug, Default)]
struct Echo {
    header: Vec<u8>,
    mask: Option<[u8; 4]>,
    left: u64,
    at: usize,
    closing: bool,
}

// === impl Echo ===

impl Echo {
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.left > 0 {
            let mask = self.mask.map_or(0, |mask| mask[self.at % 4]);
            out.push(byte ^ mask);
            self.at += 1;
            self.left -= 1;
            return;
        }
        let in_mask = self.header.len() >= 2 && self.header.len() >= self.head_len();
        self.header.push(byte);
        if !in_mask {
            // The mask bit is taken off, everything else goes back at once.
            out.push(if self.header.len() == 2 {
                byte & 0x7f
            } else {
                byte
            });
        }
        if self.header.len() < 2 {
            return;
        }
        let masked = self.header[1] & 0x80 != 0;
        let (head, mask) = (self.head_len(), if masked { 4 } else { 0 });
        if self.header.len() < head + mask {
            return;
        }
        let length = match head {
            2 => u64::from(self.header[1] & 0x7f),
            _ => self.header[2..head]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        self.mask = self.header[head..].try_into().ok();
        self.closing = self.header[0] & 0x0f == 8;
        self.left = length;
        self.at = 0;
        self.header.clear();
    }

    fn head_len(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn closed(&self) -> bool {
        self.closing && self.left == 0 && self.header.is_empty()
    }
}

fn accept(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_is_that_of_the_rfc() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn masked_frames_come_back_unmasked_and_bytes_as_bytes() {
        let mut out = Vec::new();
        let mut echo = Echo::default();
        for byte in [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ] {
            echo.byte(byte, &mut out);
        }
        assert_eq!(out, b"\x81\x05Hello");
        out.clear();
        for byte in *b"\x82\x03abc" {
            echo.byte(byte, &mut out);
        }
        assert_eq!(out, b"\x82\x03abc");
    }
}
