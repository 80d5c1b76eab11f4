//! Outcomes that no capture has: every end of every kind of answer.

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

    pub(super) fn outcome(&self, body: &str, end: End) -> &'static str {
        label(self.ends(body, end).outcome)
    }
}

pub(super) const TOKEN: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
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
