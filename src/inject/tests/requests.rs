//! The edit: which bytes change, and which requests are left alone.

use serde_json::{Map, Value, json};

use super::super::{What, edit};
use super::*;

fn edited(body: &str, continuous: bool) -> Option<(String, Added)> {
    let edited = edit(
        &Bytes::copy_from_slice(body.as_bytes()),
        What { continuous },
    )?;
    let new = edited.pieces().concat();
    assert_eq!(new.len(), edited.content_length());
    Some((String::from_utf8(new).unwrap(), edited.added()))
}

#[track_caller]
fn becomes(body: &str, want: &str, added: Added) {
    assert_eq!(edited(body, false), Some((want.to_owned(), added)));
}

#[track_caller]
fn becomes_continuous(body: &str, want: &str, added: Added) {
    assert_eq!(edited(body, true), Some((want.to_owned(), added)));
}

#[track_caller]
fn stays(body: &str) {
    assert_eq!(edited(body, false), None, "{body}");
    assert_eq!(edited(body, true), None, "{body}");
}

#[test]
fn options_are_added_behind_stream() {
    becomes(
        r#" { "stream" : true , "n":1 } "#,
        r#" { "stream" : true,"stream_options":{"include_usage":true} , "n":1 } "#,
        USAGE,
    );
    becomes_continuous(
        r#"{"a":[{"stream":false}],"stream":true}"#,
        r#"{"a":[{"stream":false}],"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#,
        BOTH,
    );
}

#[test]
fn options_that_are_there_are_completed() {
    becomes(
        r#"{"stream":true,"stream_options": null }"#,
        r#"{"stream":true,"stream_options": {"include_usage":true} }"#,
        USAGE,
    );
    becomes(
        r#"{"stream_options":{ },"stream":true}"#,
        r#"{"stream_options":{"include_usage":true },"stream":true}"#,
        USAGE,
    );
    becomes(
        "{\"stream_options\":\n{\n\"x\" : {}},\"stream\":true}",
        "{\"stream_options\":\n{\"include_usage\":true,\n\"x\" : {}},\"stream\":true}",
        USAGE,
    );
    becomes(
        r#"{"stream":true,"stream_options":{"include_usage": false, "y":1}}"#,
        r#"{"stream":true,"stream_options":{"include_usage": true, "y":1}}"#,
        USAGE,
    );
    becomes(
        r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        USAGE,
    );
    becomes_continuous(
        r#"{"stream":true,"stream_options":{"continuous_usage_stats":false,"include_usage":false}}"#,
        r#"{"stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":true}}"#,
        BOTH,
    );
    becomes_continuous(
        r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
        r#"{"stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":true}}"#,
        BOTH,
    );
    becomes_continuous(
        r#"{"stream":true,"stream_options":{}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#,
        BOTH,
    );
}

#[test]
fn usage_that_the_client_wants_stays() {
    let wanted = r#"{"stream":true,"n":4,"stream_options":{"include_usage":true}}"#;
    assert_eq!(edited(wanted, false), None);
    becomes_continuous(
        wanted,
        r#"{"stream":true,"n":4,"stream_options":{"continuous_usage_stats":true,"include_usage":true}}"#,
        CONTINUOUS,
    );
    stays(
        r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#,
    );
}

#[test]
fn a_sleeping_flag_of_the_client_wakes_and_is_stripped() {
    becomes(
        r#"{"stream":true,"stream_options":{"continuous_usage_stats":true}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#,
        BOTH,
    );
}

#[test]
fn escaped_names_are_the_same_names() {
    becomes(
        r#"{"stre\u0061m":true,"stream\u005foptions":{"include\u005Fusage":false}}"#,
        r#"{"stre\u0061m":true,"stream\u005foptions":{"include\u005Fusage":true}}"#,
        USAGE,
    );
    stays(r#"{"stre\u0061m":true,"stream":true}"#);
}

#[test]
fn names_in_strings_and_deeper_down_are_not_meant() {
    stays(r#"{"messages":"\"stream\":true","x":{"stream":true}}"#);
    becomes(
        r#"{"x":"\\\",\"stream_options\":{}","stream":true}"#,
        r#"{"x":"\\\",\"stream_options\":{}","stream":true,"stream_options":{"include_usage":true}}"#,
        USAGE,
    );
}

#[test]
fn several_answers_are_left_alone() {
    for more in [
        r#""n":2"#,
        r#""n":1.0"#,
        r#""n":"1""#,
        r#""prompt":["a","b"]"#,
        r#""prompt":[[1],[2]]"#,
        r#""prompt":["a",1]"#,
        r#""prompt_embeds":"AA==""#,
    ] {
        stays(&format!(r#"{{"stream":true,{more}}}"#));
    }
    for one in [
        r#""n":1"#,
        r#""n":null"#,
        r#""prompt":"a""#,
        r#""prompt":["a"]"#,
        r#""prompt":[1,2,3]"#,
        r#""prompt":[[1,2,3]]"#,
        r#""prompt_embeds":null"#,
    ] {
        assert!(edited(&format!(r#"{{"stream":true,{one}}}"#), false).is_some());
    }
}

#[test]
fn what_is_not_safe_is_left_alone() {
    for body in [
        "",
        "{}",
        "[]",
        "null",
        r#"[{"stream":true}]"#,
        r#"{"stream":false}"#,
        r#"{"stream":null}"#,
        r#"{"stream":1}"#,
        r#"{"stream":"true"}"#,
        r#"{"Stream":true}"#,
        r#"{"stream":true"#,
        r#"{"stream":true,}"#,
        r#"{"stream":true}}"#,
        r#"{"stream":true} x"#,
        r#"{"stream":true,"x":NaN}"#,
        r#"{"stream":true,"x":01}"#,
        r#"{"stream":true,"x":1.}"#,
        r#"{"stream":true,"x":-}"#,
        r#"{"stream":true,"x":.5}"#,
        r#"{"stream":true,"x":1e}"#,
        r#"{"stream":true,"x":"\x"}"#,
        r#"{"stream":true,"x":"\u12g4"}"#,
        r#"{"stream":true,"x":tru}"#,
        r#"{"stream":true,"x":truex}"#,
        r#"{"stream":true,'x':1}"#,
        r#"{"stream":true,"x" 1}"#,
        r#"{"stream":true /* */}"#,
        "{\"stream\":true,\"x\":\"\n\"}",
        "\u{feff}{\"stream\":true}",
        r#"{"stream":true,"stream":true}"#,
        r#"{"stream":true,"stream_options":{},"stream_options":null}"#,
        r#"{"stream":true,"n":1,"n":1}"#,
        r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":false}}"#,
        r#"{"stream":true,"stream_options":true}"#,
        r#"{"stream":true,"stream_options":[]}"#,
        r#"{"stream":true,"stream_options":"{}"}"#,
        r#"{"stream":true,"stream_options":{"include_usage":1}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":"true"}}"#,
        r#"{"stream":true,"stream_options":{"continuous_usage_stats":{}}}"#,
    ] {
        stays(body);
    }
    let invalid = Bytes::from_static(b"{\"stream\":true,\"x\":\"\xff\"}");
    assert_eq!(edit(&invalid, What::default()), None);
}

#[test]
fn depth_has_an_end() {
    let nested = |depth: usize| {
        format!(
            r#"{{"x":{}{},"stream":true}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert!(edited(&nested(127), false).is_some());
    stays(&nested(128));
    stays(&nested(100_000));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        r#"["\\,:{}a]*"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(name(), inner, 0..6)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => any::<String>(),
        1 => prop::sample::select(vec!["stream", "stream_options", "include_usage", "n", "usage"])
            .prop_map(str::to_owned),
    ]
}

fn flag() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        any::<bool>().prop_map(|flag| Some(flag.into())),
    ]
}

/// What may stand in `stream_options`: nothing, null, or an object.
fn options() -> impl Strategy<Value = Option<Value>> {
    let object = (flag(), flag(), any::<bool>()).prop_map(|(usage, continuous, more)| {
        let mut members = Map::new();
        for (name, value) in [
            ("include_usage", usage),
            ("continuous_usage_stats", continuous),
            ("also", more.then(|| json!([{"include_usage": true}]))),
        ] {
            members.extend(value.map(|value| (name.to_owned(), value)));
        }
        Some(Value::Object(members))
    });
    prop_oneof![Just(None), Just(Some(Value::Null)), object]
}

fn request() -> impl Strategy<Value = Value> {
    let more = proptest::collection::btree_map(name(), value(), 0..6);
    (more, options()).prop_map(|(more, options)| {
        let mut body: Map<_, _> = more.into_iter().collect();
        body.remove("n");
        body.remove("stream_options");
        body.insert("stream".to_owned(), true.into());
        body.extend(options.map(|options| ("stream_options".to_owned(), options)));
        Value::Object(body)
    })
}

/// The length of what both begin with, and of what both end with behind it.
fn kept(old: &[u8], new: &[u8]) -> usize {
    let pairs = old.iter().zip(new);
    let before = pairs.take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[before..], &new[before..]);
    let pairs = old.iter().rev().zip(new.iter().rev());
    before + pairs.take_while(|(a, b)| a == b).count()
}

proptest! {
    #[test]
    fn only_the_options_change(body in request(), pretty: bool, continuous: bool) {
        let text = if pretty {
            serde_json::to_string_pretty(&body)
        } else {
            serde_json::to_string(&body)
        }
        .unwrap();
        let old = body.get("stream_options").and_then(Value::as_object).cloned();
        let mut old = old.unwrap_or_default();
        let is = |old: &Map<_, _>, name: &str| old.get(name) == Some(&Value::Bool(true));
        let (usage, flag) = (is(&old, "include_usage"), is(&old, "continuous_usage_stats"));
        let Some((new, added)) = edited(&text, continuous) else {
            prop_assert!(usage && (flag || !continuous));
            return Ok(());
        };
        prop_assert_eq!(added.usage, !usage);
        prop_assert_eq!(added.continuous, (flag || continuous) && !(usage && flag));
        let mut got: Value = serde_json::from_str(&new).unwrap();
        old.insert("include_usage".to_owned(), true.into());
        if continuous {
            old.insert("continuous_usage_stats".to_owned(), true.into());
        }
        prop_assert_eq!(got["stream_options"].take(), Value::Object(old.clone()));
        // Compared as texts: what a number is read as is not at stake here.
        let mut want: Value = serde_json::from_str(&text).unwrap();
        want["stream_options"] = Value::Null;
        // Members that are added come last.
        got.sort_all_objects();
        want.sort_all_objects();
        prop_assert_eq!(got.to_string(), want.to_string());
        // One splice, or two within the options.
        let changed = text.len() - kept(text.as_bytes(), new.as_bytes());
        prop_assert!(changed <= old.len() * 32 + "continuous_usage_stats".len() * 2, "{changed}");
    }

    #[test]
    fn the_pieces_are_the_body_around_the_splices(body in request(), continuous: bool) {
        let text = Bytes::from(body.to_string());
        let Some(edited) = edit(&text, What { continuous }) else { return Ok(()) };
        let pieces = edited.pieces();
        let mut rest = &text[..];
        for (place, piece) in pieces.iter().enumerate() {
            if place % 2 == 1 {
                for old in ["false", "null"] {
                    if piece == "true" || old == "null" && piece.starts_with(b"{\"") {
                        rest = rest.strip_prefix(old.as_bytes()).unwrap_or(rest);
                    }
                }
                continue;
            }
            prop_assert!(rest.starts_with(piece));
            prop_assert_eq!(piece.as_ptr(), rest.as_ptr());
            rest = &rest[piece.len()..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_are_too_odd(bytes: Vec<u8>, text in r#"(\{|\}|\[|\]|,|:|"stream"|"stream_options"|true|null|1|"|\\| ){0,24}"#) {
        for body in [Bytes::from(bytes), Bytes::from(text)] {
            if let Some(edited) = edit(&body, What { continuous: true }) {
                prop_assert!(serde_json::from_slice::<Value>(&body).is_ok());
                prop_assert!(serde_json::from_slice::<Value>(&edited.pieces().concat()).is_ok());
            }
        }
    }
}
