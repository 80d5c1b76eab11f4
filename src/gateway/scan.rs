//! Finds the top-level `model` of a JSON body as its pieces come, without waiting for what is behind it.
//!
//! No parser: what is no JSON is vLLM's to refuse, here it only has no model. Of two keys of that name the first counts,
//! since waiting for a second would be waiting for the end of every body (vLLM takes the last).

use memchr::memchr2;
use smallvec::SmallVec;

/// A key that is longer, as it is written, is not `model`: each of the five letters may be an escape of six.
const KEY: usize = 30;
/// A longer name is nobody's.
const NAME: usize = 4096;

/// Reads one body.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// Brackets that are open.
    depth: u32,
    /// The key or name that is being read, as it is written.
    text: SmallVec<[u8; 64]>,
    escaped: bool,
    /// What is read as a value now is the model.
    wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the object.
    Start,
    /// Before a key of the object, or its end.
    Key,
    /// Inside a key of it.
    InKey,
    /// Behind a key of it.
    Colon,
    /// Before the value of one.
    Value,
    /// Inside a value that matters.
    InName,
    /// Inside or behind another value.
    Skip,
    /// Inside a string of such a value.
    InText,
    /// Nothing more is to be learnt.
    Over,
}

/// What has been found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The body is for this model.
    Model(Box<str>),
    /// It says none, or is no object.
    Nothing,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Start,
            depth: 0,
            text: SmallVec::new(),
            escaped: false,
            wanted: false,
        }
    }
}

impl Scanner {
    /// The next piece. `None`: what comes next must be seen too.
    pub fn push(&mut self, piece: &[u8]) -> Option<Found> {
        let mut rest = piece;
        while self.state != State::Over {
            let (&byte, behind) = rest.split_first()?;
            rest = match self.state {
                State::InKey | State::InName => self.collect(rest)?,
                State::InText => self.skip_text(rest)?,
                State::Start | State::Key | State::Colon | State::Value | State::Skip => {
                    self.step(byte);
                    behind
                }
                State::Over => break,
            };
        }
        Some(self.found())
    }

    /// One byte outside of strings.
    fn step(&mut self, byte: u8) {
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match (self.state, byte) {
            (state @ (State::Start | State::Key | State::Colon | State::Value), _) if blank => {
                state
            }
            (State::Start, b'{') => {
                self.depth = 1;
                State::Key
            }
            (State::Key, b'"') => State::InKey,
            (State::Colon, b':') => State::Value,
            (State::Value, b'"') if self.wanted => State::InName,
            (State::Value, _) if self.wanted => State::Over,
            (State::Value | State::Skip, b'"') => State::InText,
            (State::Value | State::Skip, b'{' | b'[') => {
                self.depth = self.depth.saturating_add(1);
                State::Skip
            }
            (State::Skip, b'}' | b']') => {
                self.depth -= 1;
                if self.depth == 0 {
                    State::Over
                } else {
                    State::Skip
                }
            }
            (State::Skip, b',') if self.depth == 1 => State::Key,
            (State::Value | State::Skip, _) => State::Skip,
            (
                State::Start
                | State::Key
                | State::Colon
                | State::InKey
                | State::InName
                | State::InText
                | State::Over,
                _,
            ) => State::Over,
        };
    }

    /// Inside a string that is kept. `None` if it goes on behind the piece.
    fn collect<'a>(&mut self, piece: &'a [u8]) -> Option<&'a [u8]> {
        let end = self.end_of_text(piece);
        let length = end.unwrap_or(piece.len());
        let most = if self.state == State::InKey {
            KEY
        } else {
            NAME
        };
        // One more shows that it is too long.
        let room = (most + 1).saturating_sub(self.text.len()).min(length);
        self.text.extend_from_slice(piece.get(..room)?);
        let behind = piece.get(end? + 1..)?;
        if self.state == State::InKey {
            self.wanted = decode(&self.text, KEY).is_some_and(|key| &*key == "model");
            self.text.clear();
            self.state = State::Colon;
        } else {
            self.state = State::Over;
        }
        Some(behind)
    }

    /// Inside a string that is not.
    fn skip_text<'a>(&mut self, piece: &'a [u8]) -> Option<&'a [u8]> {
        let end = self.end_of_text(piece)?;
        self.state = State::Skip;
        piece.get(end + 1..)
    }

    /// Where the quote is that ends the string.
    fn end_of_text(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = usize::from(std::mem::take(&mut self.escaped));
        while let Some(found) = piece.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            if piece.get(at + found) == Some(&b'"') {
                return Some(at + found);
            }
            at += found + 2;
        }
        // The backslash was the last of it.
        self.escaped = at > piece.len();
        None
    }

    fn found(&mut self) -> Found {
        let named = self.wanted && !self.text.is_empty();
        let name = named.then(|| decode(&self.text, NAME)).flatten();
        name.map_or(Found::Nothing, Found::Model)
    }
}

/// The text behind what is written, if it is not too long and is one.
fn decode(written: &[u8], most: usize) -> Option<Box<str>> {
    if written.len() > most {
        return None;
    }
    if !written.contains(&b'\\') {
        return std::str::from_utf8(written).ok().map(Box::from);
    }
    let quoted = [b"\"", written, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn model(name: &str) -> Option<Found> {
        Some(Found::Model(name.into()))
    }

    fn scan(body: &str) -> Option<Found> {
        Scanner::default().push(body.as_bytes())
    }

    #[test]
    fn only_the_key_of_the_outer_object_counts() {
        for (body, want) in [
            (r#"{"model":"m"}"#, model("m")),
            (" \r\n\t{ \"model\" :\n\"m\" ", model("m")),
            (
                r#"{"messages":[{"model":"no","content":"\"model\":\"no\""}],"x":{"model":"no"},"model":"m","#,
                model("m"),
            ),
            (
                r#"{"a":1,"b":-1.5e3,"c":true,"d":null,"e":[],"f":{},"model":"m"}"#,
                model("m"),
            ),
            (r#"{"a":"{[\\","model":"m""#, model("m")),
            (r#"{"a":"x\\\"","model":"m""#, model("m")),
            (r#"{"\u006dod\u0065l":"a\/b\u00e9\"""#, model("a/bé\"")),
            (r#"{"model":"first","model":"last"}"#, model("first")),
            (
                r#"{"Model":"no","models":"no","mode":"no","model ":"no"}"#,
                Some(Found::Nothing),
            ),
            (r#"{"model":""}"#, Some(Found::Nothing)),
            (r#"{"model":null,"model":"m"}"#, Some(Found::Nothing)),
            (r#"{"model":["m"]}"#, Some(Found::Nothing)),
            (r#"{"model":7}"#, Some(Found::Nothing)),
            (r#"{"model":"\ud800"}"#, Some(Found::Nothing)),
            (r#"{"model" "m"}"#, Some(Found::Nothing)),
            ("{}", Some(Found::Nothing)),
            (r#"{"a":[1,{"b":[2]}]}"#, Some(Found::Nothing)),
            (r#"[{"model":"no"}]"#, Some(Found::Nothing)),
            (r#""model":"no""#, Some(Found::Nothing)),
            (
                "--boundary\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm",
                Some(Found::Nothing),
            ),
            ("\u{1f}\u{8b}", Some(Found::Nothing)),
            ("{]", Some(Found::Nothing)),
            ("", None),
            ("  ", None),
            (r#"{"model":"m"#, None),
            (r#"{"a":"model"#, None),
        ] {
            assert_eq!(scan(body), want, "{body}");
        }
        assert_eq!(
            Scanner::default().push(b"{\"model\":\"\xff\"}"),
            Some(Found::Nothing)
        );
    }

    #[test]
    fn cut_anywhere_it_is_the_same() {
        let body = r#"{"messages":[{"role":"user","content":"say \"model\": \\"}],"\u006dodel":"a\\\"b","n":1}"#.as_bytes();
        let want = model("a\\\"b");
        let end = body.len() - br#","n":1}"#.len();
        for cut in 0..end {
            let mut scanner = Scanner::default();
            assert_eq!(scanner.push(&body[..cut]), None, "{cut}");
            assert_eq!(scanner.push(&body[cut..]), want, "{cut}");
        }
        let mut scanner = Scanner::default();
        for (at, byte) in body[..end].iter().enumerate() {
            let found = scanner.push(&[*byte]);
            assert_eq!(
                found,
                if at + 1 == end { want.clone() } else { None },
                "{at}"
            );
        }
    }

    #[test]
    fn nothing_grows_with_the_body() {
        let long = "x".repeat(1 << 20);
        let mut scanner = Scanner::default();
        assert_eq!(
            scanner.push(format!(r#"{{"{long}":"{long}","model":"{long}"#).as_bytes()),
            None
        );
        assert!(
            scanner.text.capacity() <= 2 * NAME,
            "{}",
            scanner.text.capacity()
        );
        assert_eq!(scanner.push(b"\""), Some(Found::Nothing));
        let mut scanner = Scanner::default();
        assert_eq!(scanner.push("{\"a\":".as_bytes()), None);
        for _ in 0..1000 {
            assert_eq!(scanner.push("[".repeat(1000).as_bytes()), None);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[model\"\\\\{}\\[\\],: \u{e9}\u{1f600}]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let key = prop_oneof![Just("model".to_owned()), "[a-f\"\\\\]{0,4}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_parser_finds(
            body in any_json(),
            name in prop::option::of("[a-z\"\\\\/\u{e9}]{1,9}"),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            pretty: bool,
        ) {
            let mut body = body;
            if let (Value::Object(fields), Some(name)) = (&mut body, &name) {
                fields.shift_remove("model");
                fields.insert("model".to_owned(), json!(name));
            }
            let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
            let want = body.get("model").and_then(Value::as_str).filter(|name| !name.is_empty());
            let want = want.map_or(Found::Nothing, |name| Found::Model(name.into()));
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.sort_unstable();
            let mut scanner = Scanner::default();
            let mut found = None;
            let mut from = 0;
            for to in cuts.into_iter().chain([text.len()]) {
                if found.is_none() {
                    found = scanner.push(&text.as_bytes()[from..to]);
                }
                from = to;
            }
            // A scalar alone has no end that shows.
            if body.is_object() {
                prop_assert_eq!(found, Some(want));
            } else if let Some(found) = found {
                prop_assert_eq!(found, Found::Nothing);
            }
        }

        #[test]
        fn no_bytes_are_too_odd(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let mut scanner = Scanner::default();
            for piece in pieces {
                scanner.push(&piece);
            }
        }
    }
}
