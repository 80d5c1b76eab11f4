//! Adding usage to a stream as vLLM does and stripping it again gives the stream.

use serde_json::{Map, Value, json};

use super::*;

/// A stream of one answer in one of the two frontends' spellings.
#[derive(Clone, Debug)]
struct Model {
    chunks: Vec<Chunk>,
    finished: bool,
    fingerprint: Option<String>,
    crlf: bool,
    space: bool,
}

#[derive(Clone, Debug)]
enum Chunk {
    Content {
        text: String,
        nulls: bool,
        last: bool,
        more: Vec<(String, String)>,
    },
    Other(String),
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let name = "[a-z_]{1,8}x";
    let more = proptest::collection::vec((name, any::<String>()), 0..3);
    prop_oneof![
        8 => (text(), any::<bool>(), more).prop_map(|(text, nulls, more)| {
            Chunk::Content { text, nulls, last: false, more }
        }),
        1 => prop::sample::select(vec![
            ": keep-alive",
            r#"data: {"error":{"message":"\"usage\":{}","usage":{}}}"#,
            "event: ping\ndata: {\"usage\":1}",
            "",
        ])
        .prop_map(|text| Chunk::Other(text.to_owned())),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            r#""usage""#,
            r#"","usage":{"a":1},"b":""#,
            r#""finish_reason":"stop""#,
            "\n\ndata: [DONE]\n\n",
            "[]\\",
        ])
        .prop_map(str::to_owned),
    ]
}

fn model() -> impl Strategy<Value = Model> {
    let chunks = proptest::collection::vec(chunk(), 0..8);
    let last = (text(), any::<bool>());
    let fingerprint = proptest::option::of(any::<String>());
    (
        chunks,
        proptest::option::of(last),
        fingerprint,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(mut chunks, last, fingerprint, crlf, space)| {
            let finished = last.is_some();
            chunks.extend(last.map(|(text, nulls)| Chunk::Content {
                text,
                nulls,
                last: true,
                more: Vec::new(),
            }));
            Model {
                chunks,
                finished,
                fingerprint,
                crlf,
                space,
            }
        })
}

impl Model {
    fn stream(&self, usage: bool, continuous: bool) -> Vec<u8> {
        let mut events: Vec<String> = Vec::new();
        for (place, chunk) in self.chunks.iter().enumerate() {
            events.push(match chunk {
                Chunk::Other(text) => text.clone(),
                Chunk::Content {
                    text,
                    nulls,
                    last,
                    more,
                } => {
                    let mut choice = Map::new();
                    choice.insert("delta".into(), json!({"content": text, "usage": {"a": 1}}));
                    if *last || *nulls {
                        let reason = last.then_some("stop");
                        choice.insert("finish_reason".into(), reason.into());
                    }
                    let mut members = vec![
                        member("id", &json!("chatcmpl-1")),
                        member("choices", &json!([choice])),
                    ];
                    if continuous {
                        members.push(member("usage", &json!({"completion_tokens": place})));
                    }
                    if let (true, false, Some(print)) = (*last, usage, &self.fingerprint) {
                        members.push(member("system_fingerprint", &json!(print)));
                    }
                    members.extend(more.iter().map(|(name, text)| member(name, &json!(text))));
                    self.data(&members)
                }
            });
        }
        if usage && self.finished {
            let mut members = vec![
                member("id", &json!("chatcmpl-1")),
                member("choices", &json!([])),
                member(
                    "usage",
                    &json!({"prompt_tokens": 1, "details": {"a": null}}),
                ),
            ];
            let print = self.fingerprint.as_ref();
            members.extend(print.map(|print| member("system_fingerprint", &json!(print))));
            members.push(member("metrics", &json!({"usage": 1})));
            events.push(self.data(&members));
        }
        events.push("data: [DONE]".to_owned());
        let end = if self.crlf { "\r\n" } else { "\n" };
        let lines = events
            .iter()
            .flat_map(|event| event.split('\n').chain([""]));
        lines
            .flat_map(|line| [line, end])
            .collect::<String>()
            .into_bytes()
    }

    fn data(&self, members: &[String]) -> String {
        let (data, comma) = if self.space {
            ("data: ", ", ")
        } else {
            ("data:", ",")
        };
        format!("{data}{{{}}}", members.join(comma))
    }
}

fn member(name: &str, value: &Value) -> String {
    format!("{}:{value}", Value::from(name))
}

proptest! {
    #[test]
    fn stripping_undoes_what_was_added(model in model(), at in indices()) {
        for (asked, added) in [((false, false), USAGE), ((false, false), BOTH), ((true, false), CONTINUOUS)] {
            let want = model.stream(asked.0, asked.1);
            let with = model.stream(asked.0 || added.usage, asked.1 || added.continuous);
            prop_assert_eq!(&whole(added, &with), &want);
            prop_assert_eq!(&bytewise(added, &with), &want);
            prop_assert_eq!(&stripped(added, &cut(&with, &at)), &want);
        }
    }

    #[test]
    fn a_stream_without_usage_is_not_changed(model in model(), added in added(), at in indices()) {
        let stream = model.stream(false, false);
        prop_assert_eq!(&stripped(added, &cut(&stream, &at)), &stream);
    }

    #[test]
    fn bytes_without_usage_are_not_changed(
        bytes in r#"(data: ?|\{|\}|\[|\]|,|:|"choices"|"finish_reason"|"stop"|null|\r|\n|\n\n|\r\n|a|"|\\){0,40}"#,
        random: Vec<u8>,
        added in added(),
        at in indices(),
    ) {
        // With usage added, what looks like the beginning of the usage event is taken for it when the stream is cut.
        let end = b"\n\n: end\n\n";
        for stream in [[bytes.as_bytes(), end].concat(), [&random, &end[..]].concat()] {
            prop_assert_eq!(&stripped(added, &cut(&stream, &at)), &stream);
        }
    }

    #[test]
    fn where_the_reads_cut_does_not_matter(
        stream in r#"(data: ?|\{|\}|\[|\]|,|:|"choices":\[|"usage":|"usage":\{\}|"finish_reason":"stop"|null|\n|\n\n|data: \{"choices":\[|\],"usage":\{\}|\}\n\n|a|"){0,40}"#,
        added in added(),
        at in indices(),
    ) {
        let stream = stream.as_bytes();
        let want = whole(added, stream);
        prop_assert_eq!(&bytewise(added, stream), &want);
        prop_assert_eq!(&stripped(added, &cut(stream, &at)), &want);
    }
}
