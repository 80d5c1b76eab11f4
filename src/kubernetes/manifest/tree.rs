//! YAML as nodes that know where they stand.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};
use serde_json::{Map, Value};

use super::scalar;
use crate::kubernetes::injector::{Path, Step};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Its text; of a block collection the beginning only, see [`Node::end`].
    pub(super) span: Range<usize>,
    /// It stands elsewhere too (an alias, a merge key), so its text is not this place's own.
    pub(super) shared: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar {
        text: String,
        style: ScalarStyle,
        tag: Option<String>,
    },
    List {
        items: Vec<Node>,
        flow: bool,
    },
    Map {
        entries: Vec<(Node, Node)>,
        flow: bool,
    },
}

/// Why a text is no YAML for us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Syntax {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

/// Nodes that aliases may make of a file: a few lines can stand for gigabytes.
const MOST: usize = 1_000_000;

/// The documents of a file; none for one without content.
pub(super) fn parse(text: &str) -> Result<Vec<Option<Node>>, Syntax> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Syntax {
            line: error.marker().line(),
            message: error.info(),
        })?;
        let at = span.byte_range().unwrap_or_default();
        builder.event(event, at).map_err(|message| Syntax {
            line: span.start.line(),
            message,
        })?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Option<Node>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied: usize,
}

struct Open {
    node: Node,
    anchor: usize,
    key: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), String> {
        let node = |kind, span| Node {
            kind,
            span,
            shared: false,
        };
        match event {
            Event::DocumentStart(..) => {
                self.documents.push(None);
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|tag| {
                    tag.core_suffix()
                        .map_or_else(|| tag.original(), str::to_owned)
                });
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    style,
                    tag,
                };
                self.complete(node(kind, span), anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                let items = Vec::new();
                self.begin(node(Kind::List { items, flow }, span), anchor);
                Ok(())
            }
            Event::MappingStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                let entries = Vec::new();
                self.begin(node(Kind::Map { entries, flow }, span), anchor);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.open.pop() else {
                    return Ok(());
                };
                if open.node.is_flow() {
                    open.node.span.end = span.end;
                }
                open.node.merge()?;
                self.complete(open.node, open.anchor)
            }
            Event::Alias(id) => {
                let mut copy = self
                    .anchors
                    .get(&id)
                    .cloned()
                    .ok_or("an alias within its own anchor")?;
                self.copied += copy.share();
                if self.copied > MOST {
                    return Err("aliases stand for too much".to_owned());
                }
                copy.span = span;
                self.complete(copy, 0)
            }
            _ => Ok(()),
        }
    }

    /// What follows is in it, up to its end.
    fn begin(&mut self, node: Node, anchor: usize) {
        self.open.push(Open {
            node,
            anchor,
            key: None,
        });
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.copied += 1;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            if let Some(document) = self.documents.last_mut() {
                *document = Some(node);
            }
            return Ok(());
        };
        match (&mut open.node.kind, open.key.take()) {
            (Kind::List { items, .. }, _) => items.push(node),
            (Kind::Map { .. }, None) => open.key = Some(node),
            (Kind::Map { entries, .. }, Some(key)) => {
                let name = key.name();
                if name != "<<" && entries.iter().any(|(given, _)| given.name() == name) {
                    return Err(format!("`{name}` is there twice"));
                }
                entries.push((key, node));
            }
            (Kind::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

impl Node {
    pub(super) fn is_flow(&self) -> bool {
        match &self.kind {
            Kind::Map { flow, .. } | Kind::List { flow, .. } => *flow,
            Kind::Scalar { .. } => false,
        }
    }

    /// A key's text.
    pub(super) fn name(&self) -> &str {
        match &self.kind {
            Kind::Scalar { text, .. } => text,
            Kind::List { .. } | Kind::Map { .. } => "",
        }
    }

    /// Marks it and all within as shared; how many they are.
    fn share(&mut self) -> usize {
        self.shared = true;
        1 + match &mut self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List { items, .. } => items.iter_mut().map(Self::share).sum::<usize>(),
            Kind::Map { entries, .. } => entries
                .iter_mut()
                .map(|(key, value)| key.share() + value.share())
                .sum(),
        }
    }

    /// Resolves `<<`: what it brings are further entries, shared, behind the mapping's own.
    fn merge(&mut self) -> Result<(), String> {
        let Kind::Map { entries, .. } = &mut self.kind else {
            return Ok(());
        };
        let plain = |key: &Self| matches!(&key.kind, Kind::Scalar { text, style: ScalarStyle::Plain, .. } if text == "<<");
        let mut brought = Vec::new();
        for (_, value) in entries.iter().filter(|(key, _)| plain(key)) {
            let sources = match &value.kind {
                Kind::Map { .. } => std::slice::from_ref(value),
                Kind::List { items, .. } => items.as_slice(),
                Kind::Scalar { .. } => {
                    return Err("`<<` of something that is no mapping".to_owned());
                }
            };
            for source in sources {
                let Kind::Map { entries, .. } = &source.kind else {
                    return Err("`<<` of something that is no mapping".to_owned());
                };
                brought.extend(entries.iter().cloned());
            }
        }
        for (mut key, mut value) in brought {
            if !entries.iter().any(|(given, _)| given.name() == key.name()) {
                key.share();
                value.share();
                entries.push((key, value));
            }
        }
        Ok(())
    }

    /// As JSON, the way Kubernetes' tools read it.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar { text, style, tag } => scalar::value(text, *style, tag.as_deref()),
            Kind::List { items, .. } => items.iter().map(Self::value).collect(),
            Kind::Map { entries, .. } => {
                let mut map = Map::new();
                for (key, value) in entries.iter().filter(|(key, _)| key.name() != "<<") {
                    map.insert(key.name().to_owned(), value.value());
                }
                Value::Object(map)
            }
        }
    }

    /// The node at a path.
    pub(super) fn find(&self, path: &Path) -> Option<&Self> {
        path.steps()
            .iter()
            .try_fold(self, |node, step| match (step, &node.kind) {
                (Step::Key(name), Kind::Map { entries, .. }) => entries
                    .iter()
                    .find(|(key, _)| key.name() == name)
                    .map(|(_, value)| value),
                (Step::Index(index), Kind::List { items, .. }) => items.get(*index),
                _ => None,
            })
    }

    /// Where its text ends.
    pub(super) fn end(&self, text: &str) -> usize {
        match &self.kind {
            Kind::Scalar {
                style: ScalarStyle::Literal | ScalarStyle::Folded,
                ..
            } => {
                let body = text.get(self.span.clone()).unwrap_or_default();
                // `|+` keeps the empty lines behind it: they are content.
                let keeps = self.header(text).is_some_and(|at| {
                    text.get(at..)
                        .and_then(|rest| rest.lines().next())
                        .is_some_and(|header| header.contains('+'))
                });
                let lines = body.rfind('\n').map_or(body.len(), |newline| newline + 1);
                self.span.start + if keeps { lines } else { body.trim_end().len() }
            }
            Kind::Map {
                entries,
                flow: false,
            } => entries
                .iter()
                .filter(|(key, _)| !key.shared)
                .map(|(key, value)| key.span.end.max(value.own_end(text)))
                .max()
                .unwrap_or(self.span.end),
            Kind::List { items, flow: false } => items
                .iter()
                .map(|item| item.own_end(text))
                .max()
                .unwrap_or(self.span.end),
            Kind::Scalar { .. } | Kind::Map { .. } | Kind::List { .. } => self.span.end,
        }
    }

    /// Where the `|` or `>` of a block scalar is; its own span begins with the text.
    pub(super) fn header(&self, text: &str) -> Option<usize> {
        let block = matches!(
            &self.kind,
            Kind::Scalar {
                style: ScalarStyle::Literal | ScalarStyle::Folded,
                ..
            }
        );
        let before = text.get(..self.span.start).filter(|_| block)?;
        before.rfind(['|', '>'])
    }

    /// `key:` and nothing behind it.
    pub(super) fn is_absent(&self) -> bool {
        self.span.is_empty()
            && matches!(
                &self.kind,
                Kind::Scalar {
                    style: ScalarStyle::Plain,
                    ..
                }
            )
    }

    /// [`Node::end`], but of an alias the alias' own, and of nothing none.
    fn own_end(&self, text: &str) -> usize {
        if self.shared {
            self.span.end
        } else if self.is_absent() {
            0
        } else {
            self.end(text)
        }
    }
}
