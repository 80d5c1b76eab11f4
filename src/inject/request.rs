//! The edit of a request body: a few bytes put in or replaced, every other byte as the client wrote it.
//!
//! For bodies of `/v1/chat/completions` and `/v1/completions` without a content coding. Whoever gets an [`Edited`] must
//! send its `Content-Length`, and pass the answer through a [`Strip`](super::Strip) if it is an uncoded
//! `text/event-stream`.

use std::ops::Range;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::Added;
use super::json::{Key, Kind, Scanner, Value};

/// What to ask vLLM for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// Counts with every chunk, so that those of a stream cut short are exact too. Not for vLLM's Rust frontend, which
    /// then joins chunks that it would send one by one: no stripping undoes that, and no request tells.
    pub continuous: bool,
}

/// An edited body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    body: Bytes,
    /// In the order of the body, not touching each other.
    splices: Splices,
    added: Added,
}

type Splices = SmallVec<[Splice; 2]>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Splice {
    /// Empty for a mere insertion.
    old: Range<usize>,
    new: &'static str,
}

/// The members that matter, each at most once.
#[derive(Default)]
struct Body {
    stream: Option<Value>,
    options: Option<Options>,
    n: Option<(Value, bool)>,
    prompt: Option<Prompt>,
    prompt_embeds: Option<Value>,
}

struct Options {
    value: Value,
    include: Option<Value>,
    continuous: Option<Value>,
}

struct Prompt {
    value: Value,
    /// The elements are numbers: the array is the tokens of one prompt.
    tokens: bool,
}

/// Edits `body` so that vLLM sends usage. `None` where there is nothing to add or where it cannot be done safely: the
/// body is then to be sent as it is.
#[must_use]
pub fn edit(body: &Bytes, what: What) -> Option<Edited> {
    std::str::from_utf8(body).ok()?;
    let read = Body::read(body)?;
    if read.stream.as_ref()?.kind != Kind::True {
        return None;
    }
    let (splices, added) = read.edit(what)?;
    // The fingerprint of an answer that ends before the others is not known in time.
    (!added.usage || read.has_one_answer()).then(|| Edited {
        body: body.clone(),
        splices,
        added,
    })
}

// === impl Edited ===

impl Edited {
    /// What the answer is to be rid of.
    #[must_use]
    pub fn added(&self) -> Added {
        self.added
    }

    /// The length of the new body, for `Content-Length`.
    #[must_use]
    pub fn content_length(&self) -> usize {
        let new: usize = self.splices.iter().map(|splice| splice.new.len()).sum();
        let old: usize = self.splices.iter().map(|splice| splice.old.len()).sum();
        (self.body.len() + new).saturating_sub(old)
    }

    /// The new body in pieces, those of the old one not copied.
    #[must_use]
    pub fn pieces(&self) -> SmallVec<[Bytes; 5]> {
        let mut pieces = SmallVec::new();
        let mut at = 0;
        for Splice { old, new } in &self.splices {
            pieces.push(self.body.slice(at..old.start));
            pieces.push(Bytes::from_static(new.as_bytes()));
            at = old.end;
        }
        pieces.push(self.body.slice(at..));
        pieces
    }
}

// === impl Body ===

impl Body {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut body = Self::default();
        let mut scan = Scanner::new(bytes, 0);
        scan.object(|scan, key| body.member(scan, &key))?;
        scan.is_done().then_some(body)
    }

    fn member<'a>(&mut self, scan: &mut Scanner<'a>, key: &Key<'a>) -> Option<()> {
        if key.is("stream") {
            once(&mut self.stream, scan.value()?)
        } else if key.is("stream_options") {
            once(&mut self.options, Options::read(scan)?)
        } else if key.is("n") {
            let one = scan.is_at(b"1");
            once(&mut self.n, (scan.value()?, one))
        } else if key.is("prompt") {
            once(&mut self.prompt, Prompt::read(scan)?)
        } else if key.is("prompt_embeds") {
            once(&mut self.prompt_embeds, scan.value()?)
        } else {
            scan.value().map(drop)
        }
    }

    /// Where `n` and `prompt` leave a doubt, there is more than one.
    fn has_one_answer(&self) -> bool {
        let n = self
            .n
            .as_ref()
            .is_none_or(|(n, one)| n.kind == Kind::Null || (*one && n.at.len() == 1));
        let prompt = self
            .prompt
            .as_ref()
            .is_none_or(|prompt| match prompt.value.kind {
                Kind::Text | Kind::Null => true,
                Kind::Array => prompt.tokens || prompt.value.items == 1,
                Kind::Object | Kind::Number | Kind::True | Kind::False => false,
            });
        let embeds = self
            .prompt_embeds
            .as_ref()
            .is_none_or(|embeds| embeds.kind == Kind::Null);
        n && prompt && embeds
    }

    fn edit(&self, what: What) -> Option<(Splices, Added)> {
        let Some(options) = &self.options else {
            let at = self.stream.as_ref()?.at.end;
            return Some(whole(
                at..at,
                what,
                [
                    r#","stream_options":{"include_usage":true}"#,
                    r#","stream_options":{"include_usage":true,"continuous_usage_stats":true}"#,
                ],
            ));
        };
        if options.value.kind == Kind::Null {
            return Some(whole(
                options.value.at.clone(),
                what,
                [
                    r#"{"include_usage":true}"#,
                    r#"{"include_usage":true,"continuous_usage_stats":true}"#,
                ],
            ));
        }
        options.edit(what)
    }
}

// === impl Options ===

impl Options {
    fn read(scan: &mut Scanner<'_>) -> Option<Self> {
        let mut include = None;
        let mut continuous = None;
        let value = if scan.next_byte()? == b'{' {
            scan.object(|scan, key| {
                if key.is("include_usage") {
                    once(&mut include, flag(scan)?)
                } else if key.is("continuous_usage_stats") {
                    once(&mut continuous, flag(scan)?)
                } else {
                    scan.value().map(drop)
                }
            })?
        } else {
            scan.value().filter(|value| value.kind == Kind::Null)?
        };
        Some(Self {
            value,
            include,
            continuous,
        })
    }

    fn edit(&self, what: What) -> Option<(Splices, Added)> {
        let had_usage = is_true(self.include.as_ref());
        let had_flag = is_true(self.continuous.as_ref());
        let set_usage = !had_usage;
        let set_flag = what.continuous && !had_flag;
        let mut splices: Splices = SmallVec::new();
        let insert = (
            set_usage && self.include.is_none(),
            set_flag && self.continuous.is_none(),
        );
        let new = match (insert, self.value.items == 0) {
            ((true, true), true) => r#""include_usage":true,"continuous_usage_stats":true"#,
            ((true, true), false) => r#""include_usage":true,"continuous_usage_stats":true,"#,
            ((true, false), true) => r#""include_usage":true"#,
            ((true, false), false) => r#""include_usage":true,"#,
            ((false, true), true) => r#""continuous_usage_stats":true"#,
            ((false, true), false) => r#""continuous_usage_stats":true,"#,
            ((false, false), _) => "",
        };
        if !new.is_empty() {
            let at = self.value.at.start + 1;
            splices.push(Splice { old: at..at, new });
        }
        let replaced = [(set_usage, &self.include), (set_flag, &self.continuous)];
        for (set, value) in replaced {
            if let (true, Some(value)) = (set, value) {
                splices.push(Splice {
                    old: value.at.clone(),
                    new: "true",
                });
            }
        }
        splices.sort_by_key(|splice| splice.old.start);
        let added = Added {
            usage: set_usage,
            // The client's own flag does nothing until `include_usage` is there.
            continuous: (had_flag || set_flag) && !(had_usage && had_flag),
        };
        (!splices.is_empty()).then_some((splices, added))
    }
}

// === impl Prompt ===

impl Prompt {
    fn read(scan: &mut Scanner<'_>) -> Option<Self> {
        let mut tokens = true;
        let value = if scan.next_byte()? == b'[' {
            scan.array(|scan| {
                tokens &= scan.value()?.kind == Kind::Number;
                Some(())
            })?
        } else {
            scan.value()?
        };
        Some(Self { value, tokens })
    }
}

/// The options as a whole, with and without continuous counts.
fn whole(old: Range<usize>, what: What, texts: [&'static str; 2]) -> (Splices, Added) {
    let [usage, both] = texts;
    let new = if what.continuous { both } else { usage };
    let added = Added {
        usage: true,
        continuous: what.continuous,
    };
    (smallvec![Splice { old, new }], added)
}

fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.kind == Kind::True)
}

/// A bool or nothing. What vLLM would have to convert is left to it.
fn flag(scan: &mut Scanner<'_>) -> Option<Value> {
    let is_flag = |value: &Value| matches!(value.kind, Kind::True | Kind::False | Kind::Null);
    scan.value().filter(is_flag)
}

/// Of two members with one name, parsers take one or the other.
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}
