//! What an answer consists of, rendered once: the origin plays it and the client holds what arrives against it.
//!
//! Both have it from the same arguments, so an altered or missing byte shows exactly, at the price of a `memcmp`.

use std::fmt::Write as _;

use crate::sim::frames::WORDS;

/// The digits of a send time in nanoseconds, that a paced frame carries in its id.
pub(crate) const STAMP: usize = 19;

/// What stands before them. The stamp is the same number of bytes into every frame.
pub(crate) const BEFORE_STAMP: &[u8] = br#"data: {"id":"chatcmpl-"#;

/// The model of every request that is measured.
pub(crate) const MODEL: &str = "tiny";

const HEAD: &str = "HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n";

/// An answer.
#[derive(Debug)]
pub(crate) struct Script {
    /// The body, without chunks.
    pub(crate) body: Vec<u8>,
    /// Where each of its frames ends. A body that is no stream has none.
    pub(crate) ends: Vec<usize>,
    /// The answer as it goes over the wire: head, then one chunk a frame as uvicorn has it.
    pub(crate) wire: Vec<u8>,
    /// Where in `wire` each frame's chunk ends, behind that of the head.
    pub(crate) wire_ends: Vec<usize>,
}

// === impl Script ===

impl Script {
    /// What `model` answers: a stream of so many frames, or as many tokens at once.
    pub(crate) fn of(model: &str, stream: bool, frames: u32) -> Self {
        if stream {
            Self::stream_of(model, frames)
        } else {
            Self::json_of(model, frames)
        }
    }

    #[cfg(test)]
    pub(crate) fn stream(frames: u32) -> Self {
        Self::stream_of(MODEL, frames)
    }

    #[cfg(test)]
    pub(crate) fn json(tokens: u32) -> Self {
        Self::json_of(MODEL, tokens)
    }

    /// A chat stream of `frames` frames: the role, tokens, `[DONE]`.
    fn stream_of(model: &str, frames: u32) -> Self {
        let mut script = Self {
            body: Vec::new(),
            ends: Vec::new(),
            wire: format!(
                "{HEAD}content-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            .into_bytes(),
            wire_ends: Vec::new(),
        };
        script.wire_ends.push(script.wire.len());
        let tokens = frames.saturating_sub(2);
        script.frame(&chunk(
            model,
            r#"{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}"#,
        ));
        for token in 0..tokens {
            let word = WORDS[token as usize % WORDS.len()];
            let rest = if token + 1 == tokens {
                r#""logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}],"system_fingerprint":"vllm-0.32.0"}"#
            } else {
                r#""logprobs":null,"finish_reason":null,"token_ids":null}]}"#
            };
            script.frame(&chunk(model, &format!(r#"{{"content":"{word}"}},{rest}"#)));
        }
        script.frame("data: [DONE]\n\n");
        // The last chunk goes with the last frame: one write less, as uvicorn has it too at full speed.
        script.wire.extend_from_slice(b"0\r\n\r\n");
        if let Some(end) = script.wire_ends.last_mut() {
            *end += 5;
        }
        script
    }

    /// A whole answer of `tokens` tokens.
    fn json_of(model: &str, tokens: u32) -> Self {
        let mut body = format!(
            r#"{{"id":"chatcmpl-0000000000000000000","object":"chat.completion","created":1764000000,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":""#,
        );
        for token in 0..tokens {
            body.push_str(WORDS[token as usize % WORDS.len()]);
        }
        let _ = write!(
            body,
            r#"","refusal":null,"tool_calls":[]}},"logprobs":null,"finish_reason":"length","stop_reason":null}}],"usage":{{"prompt_tokens":9,"total_tokens":{},"completion_tokens":{tokens},"prompt_tokens_details":null}},"system_fingerprint":"vllm-0.32.0"}}"#,
            tokens + 9
        );
        Self::whole("200 OK", &body)
    }

    /// A whole answer with this body.
    pub(crate) fn whole(status: &str, body: &str) -> Self {
        let wire = format!(
            "{}content-length: {}\r\ncontent-type: application/json\r\nvary: Origin\r\n\r\n{body}",
            HEAD.replacen("200 OK", status, 1),
            body.len()
        );
        Self {
            wire_ends: vec![wire.len()],
            wire: wire.into_bytes(),
            body: body.as_bytes().to_vec(),
            ends: Vec::new(),
        }
    }

    fn frame(&mut self, event: &str) {
        let _ = std::io::Write::write_fmt(
            &mut self.wire,
            format_args!("{:x}\r\n{event}\r\n", event.len()),
        );
        self.wire_ends.push(self.wire.len());
        self.body.extend_from_slice(event.as_bytes());
        self.ends.push(self.body.len());
    }
}

fn chunk(model: &str, delta: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-0000000000000000000\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{delta}\n\n"
    )
}

/// A clock that two processes of one machine share.
pub(crate) fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// Writes `ns` as the digits of a stamp.
pub(crate) fn stamp(digits: &mut [u8], mut ns: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (ns % 10) as u8;
        ns /= 10;
    }
}

/// The time in the digits of a stamp.
pub(crate) fn read_stamp(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_an_event_of_json_with_room_for_a_stamp() {
        let script = Script::stream(20);
        assert_eq!(script.ends.len(), 20);
        assert_eq!(script.wire_ends.len(), 21);
        let mut from = 0;
        for end in &script.ends[..19] {
            let event = &script.body[from..*end];
            assert!(event.starts_with(BEFORE_STAMP));
            let digits = &event[BEFORE_STAMP.len()..][..STAMP];
            assert_eq!(read_stamp(digits), Some(0));
            let json = event.strip_prefix(b"data: ").unwrap();
            serde_json::from_slice::<serde_json::Value>(json).unwrap();
            from = *end;
        }
        assert_eq!(&script.body[from..], b"data: [DONE]\n\n");
        assert!(script.wire.ends_with(b"\r\n0\r\n\r\n"));
    }

    #[test]
    fn whole_answers_are_json_of_their_length() {
        let script = Script::json(5);
        let json: serde_json::Value = serde_json::from_slice(&script.body).unwrap();
        assert_eq!(json["usage"]["completion_tokens"], 5);
        assert!(script.wire.ends_with(&script.body));
    }

    #[test]
    fn a_stamp_reads_back() {
        let mut digits = [b'x'; STAMP];
        let now = now_ns();
        stamp(&mut digits, now);
        assert_eq!(read_stamp(&digits), Some(now));
    }
}
