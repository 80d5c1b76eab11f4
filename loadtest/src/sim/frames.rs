//! The JSON of stream events, from templates that are filled once per request and not once per frame.

use std::io::Write as _;

use super::behaviour::ReasoningField;
use super::job::Job;

/// What vLLM says of itself.
pub(crate) const FINGERPRINT: &str = "vllm-0.32.0-d3dc4c8d";

/// Tokens, escaped for JSON: with escapes and with more than ASCII, because that is where splits go wrong.
pub(crate) const WORDS: [&str; 16] = [
    "The",
    " quick",
    " na\u{ef}ve",
    " \\\"fox\\\"",
    " jumps",
    ",",
    " over",
    "\\n",
    " \u{65e5}\u{672c}",
    " lazy",
    " dog",
    ".",
    " \u{1f600}",
    " data",
    ":",
    " [DONE]",
];

/// The templates of one stream.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    job: &'a Job,
    prefix: String,
    tail: &'static str,
    finish_tail: String,
    details: bool,
}

/// Which tokens of which choice a frame carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) choice: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// It ends with the finish reason.
    pub(crate) finish: bool,
}

// === impl Frames ===

impl<'a> Frames<'a> {
    pub(crate) fn new(job: &'a Job) -> Self {
        let object = if job.chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        let (id, created, model, finish) = (&job.id, job.created, &job.model, &job.finish);
        let tail = match (job.rust, job.chat) {
            (true, _) => "}]",
            (false, true) => r#","logprobs":null,"finish_reason":null,"token_ids":null}]"#,
            (false, false) => {
                r#","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]"#
            }
        };
        let finish_tail = match (job.rust, job.chat) {
            (true, _) => format!(r#","finish_reason":"{finish}"}}]"#),
            (false, true) => {
                format!(
                    r#","logprobs":null,"finish_reason":"{finish}","stop_reason":null,"token_ids":null}}]"#
                )
            }
            (false, false) => format!(
                r#","logprobs":null,"finish_reason":"{finish}","stop_reason":null,"prompt_token_ids":null,"token_ids":null}}]"#
            ),
        };
        Self {
            job,
            prefix: format!(
                r#"{{"id":"{id}","object":"{object}","created":{created},"model":"{model}","choices":["#
            ),
            tail,
            finish_tail,
            details: job.reasoning > 0,
        }
    }

    /// The role chunk, that only chat has.
    pub(crate) fn role(&self, out: &mut Vec<u8>, choice: u32) {
        self.open(out, choice);
        if self.job.rust {
            out.extend_from_slice(br#""delta":{"role":"assistant"}}]"#);
        } else {
            out.extend_from_slice(
                br#""delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]"#,
            );
        }
        self.usage_so_far(out, 0);
        if !self.job.rust {
            out.extend_from_slice(br#","prompt_token_ids":null,"prompt_text":null"#);
        }
        out.push(b'}');
    }

    /// A token-bearing chunk.
    pub(crate) fn tokens(&self, out: &mut Vec<u8>, span: Span) {
        self.open(out, span.choice);
        let job = self.job;
        if !job.chat {
            out.extend_from_slice(br#""text":""#);
            if let (0, Some(echo)) = (span.from, &job.echo) {
                out.extend_from_slice(echo.as_bytes());
            }
            words(out, span.from, span.to);
            out.push(b'"');
        } else if span.from < job.reasoning {
            out.extend_from_slice(match job.reasoning_field {
                ReasoningField::Reasoning => br#""delta":{"reasoning":""#,
                ReasoningField::ReasoningContent => br#""delta":{"reasoning_content":""#,
            });
            words(out, span.from, span.to);
            out.extend_from_slice(br#""}"#);
        } else if job.tool {
            self.tool(out, span);
        } else {
            out.extend_from_slice(br#""delta":{"content":""#);
            words(out, span.from, span.to);
            out.extend_from_slice(br#""}"#);
        }
        self.close(out, span.finish, span.to);
    }

    /// The chunk of a finish reason that comes alone.
    pub(crate) fn finish(&self, out: &mut Vec<u8>, choice: u32) {
        self.open(out, choice);
        out.extend_from_slice(if self.job.chat {
            br#""delta":{}"#
        } else {
            br#""text":"""#
        });
        self.close(out, true, self.job.tokens);
    }

    /// The usage chunk.
    pub(crate) fn usage(&self, out: &mut Vec<u8>) {
        let (prompt, completion) = (self.job.prompt_tokens, self.job.all_tokens());
        out.extend_from_slice(self.prefix.as_bytes());
        let _ = write!(
            out,
            r#"],"usage":{{"prompt_tokens":{prompt},"total_tokens":{},"completion_tokens":{completion}"#,
            prompt.saturating_add(completion),
        );
        if self.details {
            let reasoning = self.job.reasoning * self.job.n;
            let _ = write!(
                out,
                r#","completion_tokens_details":{{"reasoning_tokens":{reasoning}}}"#
            );
        }
        out.push(b'}');
        self.fingerprint(out);
        out.push(b'}');
    }

    fn tool(&self, out: &mut Vec<u8>, span: Span) {
        let first = self.job.reasoning;
        out.extend_from_slice(br#""delta":{"content":null,"tool_calls":["#);
        if span.from == first {
            let _ = write!(
                out,
                r#"{{"id":"chatcmpl-tool-{:016x}","type":"function","index":0,"function":{{"name":"get_weather"}}}}]}}"#,
                self.job.created ^ u64::from(span.choice) << 40,
            );
            return;
        }
        // The fragments together are one JSON object, whatever their number.
        out.extend_from_slice(br#"{"index":0,"function":{"arguments":""#);
        arguments(
            out,
            span.from - first - 1,
            span.to - first - 1,
            self.job.tokens - first - 1,
        );
        out.extend_from_slice(br#""}}]}"#);
    }

    fn open(&self, out: &mut Vec<u8>, choice: u32) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(br#"{"index":"#);
        number(out, choice);
        out.push(b',');
    }

    fn close(&self, out: &mut Vec<u8>, finish: bool, sent: u32) {
        if finish {
            out.extend_from_slice(self.finish_tail.as_bytes());
        } else {
            out.extend_from_slice(self.tail.as_bytes());
        }
        self.usage_so_far(out, sent);
        if finish && !self.job.usage_final {
            self.fingerprint(out);
        }
        out.push(b'}');
    }

    fn usage_so_far(&self, out: &mut Vec<u8>, sent: u32) {
        if !self.job.usage_continuous {
            return;
        }
        let prompt = self.job.prompt_tokens;
        out.extend_from_slice(br#","usage":{"prompt_tokens":"#);
        number(out, prompt);
        out.extend_from_slice(br#","total_tokens":"#);
        number(out, prompt.saturating_add(sent));
        out.extend_from_slice(br#","completion_tokens":"#);
        number(out, sent);
        if self.details {
            out.extend_from_slice(br#","completion_tokens_details":{"reasoning_tokens":"#);
            number(out, sent.min(self.job.reasoning));
            out.push(b'}');
        } else if self.job.chat && !self.job.rust {
            out.extend_from_slice(br#","completion_tokens_details":null"#);
        }
        out.push(b'}');
    }

    fn fingerprint(&self, out: &mut Vec<u8>) {
        if !self.job.rust {
            out.extend_from_slice(br#","system_fingerprint":""#);
            out.extend_from_slice(FINGERPRINT.as_bytes());
            out.push(b'"');
        }
    }
}

/// Tokens `from..to` of any text.
pub(crate) fn words(out: &mut Vec<u8>, from: u32, to: u32) {
    for token in from..to {
        out.extend_from_slice(WORDS[token as usize % WORDS.len()].as_bytes());
    }
}

/// Fragments `from..to` of `total` of a tool call's arguments, escaped.
pub(crate) fn arguments(out: &mut Vec<u8>, from: u32, to: u32, total: u32) {
    for fragment in from..to {
        if fragment == 0 {
            out.extend_from_slice(br#"{\"city\": \""#);
        }
        out.push(b'a' + (fragment % 26) as u8);
        if fragment + 1 == total {
            out.extend_from_slice(br#"\"}"#);
        }
    }
}

fn number(out: &mut Vec<u8>, mut value: u32) {
    let mut digits = [0_u8; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
