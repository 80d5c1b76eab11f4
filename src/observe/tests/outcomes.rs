//! Outcomes that no capture has: every end of every kind of answer, errors in the shapes of other versions.

use std::time::Instant;

use super::*;

pub(super) struct Answer {
    pub(super) endpoint: Endpoint,
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) encoding: Option<&'static str>,
    pub(super) limits: Limits,
}

pub(super) const STREAM: Answer = Answer {
    endpoint: Endpoint::ChatCompletions,
    status: 200,
    content_type: "Text/Event-Stream ; charset=utf-8",
    encoding: None,
    limits: LIMITS,
};

pub(super) const BODY: Answer = Answer {
    content_type: "application/json",
    ..STREAM
};

impl Answer {
    pub(super) fn observer(&self, facts: RequestFacts) -> ResponseObserver {
        let head = HeadFacts {
            status: self.status,
            content_type: Some(self.content_type.as_bytes()),
            content_encoding: self.encoding.map(str::as_bytes),
        };
        ResponseObserver::new(
            self.endpoint,
            facts,
            &head,
            self.limits,
            Instant::now(),
            true,
        )
    }

    pub(super) fn ends(&self, body: &str, end: End) -> Record {
        let mut observer = self.observer(RequestFacts::default());
        observer.data(body.as_bytes(), Instant::now(), &mut |_| {});
        observer.finish(end, Instant::now())
    }

    fn outcome(&self, body: &str, end: End) -> &'static str {
        label(self.ends(body, end).outcome)
    }
}

const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const ERROR: &str = "data: {\"error\":{\"message\":\"Internal server error\",\"code\":500}}\n\n";

#[test]
fn every_end_of_a_stream() {
    let done = format!("{TOKEN}{DONE}");
    let failed = format!("{TOKEN}{ERROR}");
    let after = format!("{TOKEN}{ERROR}{DONE}{TOKEN}");
    for (body, end, want) in [
        (TOKEN, End::Complete, "stream_truncated"),
        (TOKEN, End::UpstreamCut, "stream_truncated"),
        (TOKEN, End::Stalled, "stream_stalled"),
        (TOKEN, End::ClientGone, "streaming"),
        ("", End::ClientGone, "before_first_token"),
        (": keep-alive\n\n", End::ClientGone, "before_first_token"),
        (&done, End::Complete, "success"),
        (&done, End::UpstreamCut, "success"),
        (&done, End::Stalled, "success"),
        (&done, End::ClientGone, "success"),
        (&failed, End::UpstreamCut, "stream_error"),
        (&failed, End::ClientGone, "stream_error"),
        (&failed, End::Complete, "stream_error"),
        (&after, End::Complete, "stream_error"),
    ] {
        assert_eq!(STREAM.outcome(body, end), want, "{body} {end:?}");
    }
    let audio = Answer {
        endpoint: Endpoint::Audio,
        ..STREAM
    };
    assert_eq!(audio.outcome(TOKEN, End::Complete), "stream_truncated");
    assert_eq!(audio.outcome(&done, End::Complete), "success");
    // A stream of whatever a plugin has to say; but what speaks like a chat ends like one.
    let other = Answer {
        endpoint: Endpoint::Other,
        ..STREAM
    };
    let strange = "data: {\"a\":1}\n\n";
    assert_eq!(other.outcome(strange, End::Complete), "success");
    assert_eq!(other.outcome(strange, End::UpstreamCut), "stream_truncated");
    assert_eq!(other.outcome(TOKEN, End::Complete), "stream_truncated");
    assert_eq!(other.outcome(&done, End::Complete), "success");
}

#[test]
fn every_end_of_a_body() {
    for (body, end, want) in [
        ("{}", End::Complete, "success"),
        ("", End::Complete, "success"),
        ("{", End::UpstreamCut, "upstream_reset"),
        ("{", End::Stalled, "upstream_timeout"),
        ("{", End::ClientGone, "streaming"),
        ("", End::ClientGone, "before_first_token"),
        (
            r#"{"error":{"message":"m","code":503}}"#,
            End::Complete,
            "overloaded",
        ),
        (
            r#"{"error":{"message":"m","type":"NotFoundError","param":"model"}}"#,
            End::Complete,
            "model_not_found",
        ),
        (
            r#"{"object":"error","message":"m","type":"BadRequestError"}"#,
            End::Complete,
            "bad_request",
        ),
        (r#"{"error":"whatever"}"#, End::Complete, "server_error"),
        (r#"{"error":null,"model":"tiny"}"#, End::Complete, "success"),
    ] {
        assert_eq!(BODY.outcome(body, end), want, "{body} {end:?}");
    }
    for status in [101, 204, 301, 304] {
        let answer = Answer { status, ..BODY };
        assert_eq!(answer.outcome("", End::Complete), "success", "{status}");
    }
    assert_eq!(BODY.ends("{ no json", End::Complete).faults, 1);
    assert_eq!(BODY.ends("\u{fffd}PNG", End::Complete).faults, 0);
}

#[test]
fn errors_by_status_and_body() {
    const NESTED_CONTEXT: &str = r#"{"error":{"message":"This model's maximum context length is 2048 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in the completion).","type":"BadRequestError","code":400}}"#;
    const FLAT_CONTEXT: &str = r#"{"object":"error","message":"This model's maximum context length is 2048 tokens. However, you requested 5000 tokens","type":"BadRequestError","param":null,"code":400}"#;
    const LONGER: &str = r#"{"object":"error","message":"The decoder prompt (length 4000) is longer than the maximum model length of 2048.","type":"BadRequestError","code":400}"#;
    const PARAM: &str = r#"{"error":{"message":"too much","param":"input_text","code":400}}"#;
    const FLAT_MODEL: &str = r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","param":null,"code":404}"#;
    const ANTHROPIC: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
    const DEAD: &str = r#"{"error":{"message":"The server had an error while processing your request.","type":"InternalServerError","code":500}}"#;
    const CUT: &str = r#"{"error":{"message":"This model's maximum context length is 2048 tok"#;
    for (status, body, want) in [
        (400, NESTED_CONTEXT, "context_length_exceeded"),
        (400, FLAT_CONTEXT, "context_length_exceeded"),
        (400, LONGER, "context_length_exceeded"),
        (400, PARAM, "context_length_exceeded"),
        (400, CUT, "context_length_exceeded"),
        (400, "", "bad_request"),
        (400, "[]", "bad_request"),
        (401, r#"{"error":"Unauthorized"}"#, "unauthorized"),
        (403, "nginx", "forbidden"),
        (404, FLAT_MODEL, "model_not_found"),
        (404, r#"{"detail":"Not Found"}"#, "not_found"),
        (
            404,
            r#"{"error":{"type":"NotFoundError","message":"No such adapter"}}"#,
            "not_found",
        ),
        (405, r#"{"detail":"Method Not Allowed"}"#, "client_error"),
        (413, "", "payload_too_large"),
        (422, r#"{"detail":[{"loc":["body"]}]}"#, "unprocessable"),
        (429, "slow down", "rate_limited"),
        (499, "", "client_error"),
        (500, r#"{"error":{"message":"x"}}"#, "internal_error"),
        (500, DEAD, "engine_dead"),
        (500, "Internal Server Error", "internal_error"),
        (501, "", "not_implemented"),
        (502, "", "server_error"),
        (
            503,
            r#"{"error":"The model is currently scaling."}"#,
            "overloaded",
        ),
        (529, ANTHROPIC, "server_error"),
        (599, "", "server_error"),
    ] {
        let answer = Answer { status, ..BODY };
        assert_eq!(answer.outcome(body, End::Complete), want, "{status} {body}");
        // The head has said all: how the body ends changes nothing.
        let cut = answer.ends(body, End::ClientGone);
        assert_eq!(label(cut.outcome), want, "{status} {body}");
        let stream = Answer { status, ..STREAM };
        assert_eq!(
            stream.outcome(body, End::UpstreamCut),
            want,
            "{status} {body}"
        );
        assert!(stream.ends(body, End::Complete).stream);
    }
}

#[test]
fn error_frames_of_every_dialect() {
    let messages = Answer {
        endpoint: Endpoint::Messages,
        ..STREAM
    };
    let responses = Answer {
        endpoint: Endpoint::Responses,
        ..STREAM
    };
    for (answer, frame, want) in [
        (
            &STREAM,
            r#"{"error":{"message":"busy","type":"ServiceUnavailableError"}}"#,
            "overloaded",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"busy","code":"503"}}"#,
            "overloaded",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"EngineCore encountered an issue."}}"#,
            "engine_dead",
        ),
        (
            &STREAM,
            r#"{"error":{"message":"maximum context length is 5"}}"#,
            "context_length_exceeded",
        ),
        (&STREAM, r#"{"error":"boom"}"#, "stream_error"),
        (
            &STREAM,
            r#"{"object":"error","message":"boom","code":500}"#,
            "stream_error",
        ),
        (
            &STREAM,
            r#"{"object":"error","message":"boom","code":503}"#,
            "overloaded",
        ),
        (
            &messages,
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            "overloaded",
        ),
        (
            &messages,
            r#"{"type":"error","error":{"type":"api_error"}}"#,
            "stream_error",
        ),
        (
            &responses,
            r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}"#,
            "stream_error",
        ),
        (
            &responses,
            r#"{"type":"error","code":503,"message":"m"}"#,
            "overloaded",
        ),
        (
            &responses,
            r#"{"type":"response.incomplete","response":{}}"#,
            "success",
        ),
    ] {
        let stream = format!("{TOKEN}data: {frame}\n\n");
        assert_eq!(answer.outcome(&stream, End::Complete), want, "{frame}");
    }
    // The name of the event will do.
    assert_eq!(
        responses.outcome("event: error\ndata: {}\n\n", End::Complete),
        "stream_error"
    );
    assert_eq!(
        messages.outcome("event: message_stop\ndata: {}\n\n", End::Complete),
        "success"
    );
}

#[test]
fn a_compressed_body_is_not_read() {
    let stream = Answer {
        encoding: Some("gzip"),
        ..STREAM
    };
    let body = Answer {
        encoding: Some("br"),
        ..BODY
    };
    let refused = Answer {
        status: 404,
        ..Answer {
            encoding: Some("gzip"),
            ..BODY
        }
    };
    for (answer, end, want) in [
        (&stream, End::Complete, "success"),
        (&stream, End::UpstreamCut, "stream_truncated"),
        (&stream, End::ClientGone, "streaming"),
        (&body, End::Complete, "success"),
        (&body, End::Stalled, "upstream_timeout"),
        (&refused, End::Complete, "not_found"),
    ] {
        let record = answer.ends(&format!("{TOKEN}{DONE}"), end);
        assert_eq!(label(record.outcome), want);
        assert_eq!((record.faults, record.text, record.ttft), (1, None, None));
    }
    let plain = Answer {
        encoding: Some("Identity"),
        ..STREAM
    };
    assert_eq!(plain.ends(DONE, End::Complete).faults, 0);
}

#[test]
fn a_body_over_the_limit_gives_its_model_and_its_usage() {
    let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":4}"#;
    let padding = r#"\"usage\":{\"prompt_tokens\":9}, "#.repeat(3000);
    let body = format!(
        r#"{{"id":"x","model":"tiny","choices":[{{"message":{{"content":"{padding}"}}}}],{usage},"metrics":null}}"#
    );
    for limit in [0, 7, 1000, 20_000, body.len() - 1, body.len()] {
        for size in [1, 1000, 50_000, body.len()] {
            let mut observer = Answer {
                limits: Limits {
                    body: limit,
                    ..LIMITS
                },
                ..BODY
            }
            .observer(RequestFacts::default());
            for read in body.as_bytes().chunks(size) {
                observer.data(read, Instant::now(), &mut |_| {});
            }
            let record = observer.finish(End::Complete, Instant::now());
            assert_eq!(
                record.output_tokens.map(|tokens| tokens.0),
                Some(4),
                "{limit} {size}"
            );
            // In single bytes under no limit at all there is no beginning to look at.
            let named = limit >= 1000 || size >= 1000;
            assert_eq!(record.served_model.is_some(), named, "{limit} {size}");
            assert_eq!(record.outcome, Outcome::Success);
        }
    }
}
