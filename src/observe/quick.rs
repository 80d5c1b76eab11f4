//! A reader of plain JSON, with serde_json behind it for the rest.
//!
//! Most of what engines and clients send is plain: no escapes, whole numbers, few levels. That much is read here at a
//! quarter of serde_json's cost, into the same types. At anything else — an escape where a text is wanted, a duplicate
//! key, a syntax error, whatever — it gives up, and serde_json reads the document from the start and has the last word.
//! So what is read here needs only be a part of what serde_json would read, and be the same.

pub(crate) mod plain;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use plain::Plain;

/// Containers that may be open around a value that is wanted. No type of ours is nearly as deep.
const DEEPEST: u32 = 64;

/// A document.
///
/// # Errors
/// Those of serde_json.
pub(crate) fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    plain(json).map_or_else(|| serde_json::from_slice(json), Ok)
}

/// A document that is known to be text.
///
/// # Errors
/// Those of serde_json.
pub(crate) fn from_str<'de, T: Deserialize<'de>>(json: &'de str) -> serde_json::Result<T> {
    plain(json.as_bytes()).map_or_else(|| serde_json::from_str(json), Ok)
}

/// The document, if there is nothing to it that takes serde_json.
fn plain<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Option<T> {
    #[cfg(test)]
    if tests::is_off() {
        return None;
    }
    let mut reader = Reader {
        rest: Plain::new(json),
        open: 0,
    };
    let read = T::deserialize(&mut reader).ok()?;
    reader.rest.is_over().then_some(read)
}

struct Reader<'de> {
    rest: Plain<'de>,
    /// Containers that have not been read to their end.
    open: u32,
}

/// It takes serde_json to read this, or to say what is wrong with it.
#[derive(Debug)]
struct Unusual;

type Read<T> = Result<T, Unusual>;

/// The entries of a container.
struct Entries<'r, 'de> {
    reader: &'r mut Reader<'de>,
    first: bool,
}

struct Key<'r, 'de>(&'r mut Reader<'de>);

// === impl Unusual ===

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is not plain")
    }
}

impl std::error::Error for Unusual {}

impl serde::de::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

// === impl Reader ===

impl<'de> Reader<'de> {
    /// Hands a single value to serde_json.
    fn pass<V: Visitor<'de>>(value: &'de [u8], visitor: V) -> Read<V::Value> {
        let mut reader = serde_json::Deserializer::from_slice(value);
        let read = reader.deserialize_any(visitor).map_err(|_| Unusual)?;
        reader.end().map_err(|_| Unusual)?;
        Ok(read)
    }

    fn text<V: Visitor<'de>>(&mut self, visitor: V) -> Read<V::Value> {
        let text = self.rest.string().ok_or(Unusual)?;
        if text.escapes {
            return Self::pass(text.quoted, visitor);
        }
        visitor.visit_borrowed_str(std::str::from_utf8(text.inner).map_err(|_| Unusual)?)
    }

    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Read<V::Value> {
        let number = self.rest.number().ok_or(Unusual)?;
        match number.whole {
            Some(whole) => visitor.visit_u64(whole),
            None => Self::pass(number.text, visitor),
        }
    }

    /// Whatever the visitor of a container leaves unread is for serde_json to complain of.
    fn inside<V>(&mut self, visit: impl FnOnce(Entries<'_, 'de>) -> Read<V>) -> Read<V> {
        let around = self.open;
        if around >= DEEPEST {
            return Err(Unusual);
        }
        self.open = around + 1;
        let read = visit(Entries {
            reader: self,
            first: true,
        })?;
        if self.open == around {
            Ok(read)
        } else {
            Err(Unusual)
        }
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.rest.peek().ok_or(Unusual)? {
            b'"' => self.text(visitor),
            b'n' if self.rest.take_word(b"null") => visitor.visit_unit(),
            b't' if self.rest.take_word(b"true") => visitor.visit_bool(true),
            b'f' if self.rest.take_word(b"false") => visitor.visit_bool(false),
            b'-' | b'0'..=b'9' => self.number(visitor),
            b'[' => {
                self.rest.bump();
                self.inside(|entries| visitor.visit_seq(entries))
            }
            b'{' => {
                self.rest.bump();
                self.inside(|entries| visitor.visit_map(entries))
            }
            _ => Err(Unusual),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.rest.skip().ok_or(Unusual)?;
        visitor.visit_unit()
    }

    /// serde_json takes a list for a struct too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        if !self.rest.take(b'{') {
            return Err(Unusual);
        }
        self.inside(|entries| visitor.visit_map(entries))
    }

    fn deserialize_option<V: Visitor<'de>>(self, _: V) -> Read<V::Value> {
        Err(Unusual)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Read<V::Value> {
        Err(Unusual)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Read<V::Value> {
        Err(Unusual)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

// === impl Entries ===

impl<'de> Entries<'_, 'de> {
    /// Goes to the next entry. None is left behind `close`.
    #[inline]
    fn next(&mut self, close: u8) -> Read<bool> {
        let rest = &mut self.reader.rest;
        let byte = rest.peek().ok_or(Unusual)?;
        if byte == close {
            rest.bump();
            self.reader.open -= 1;
            return Ok(false);
        }
        if std::mem::take(&mut self.first) {
            return Ok(true);
        }
        if byte != b',' {
            return Err(Unusual);
        }
        // A comma before the end is left for the reader of the entry to stumble on.
        rest.bump();
        Ok(true)
    }
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Unusual;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        if !self.next(b'}')? {
            return Ok(None);
        }
        seed.deserialize(Key(self.reader)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        if !self.reader.rest.take(b':') {
            return Err(Unusual);
        }
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> SeqAccess<'de> for Entries<'_, 'de> {
    type Error = Unusual;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        if !self.next(b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

// === impl Key ===

impl<'de> Deserializer<'de> for Key<'_, 'de> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        if self.0.rest.peek() != Some(b'"') {
            return Err(Unusual);
        }
        let key = self.0.rest.string().ok_or(Unusual)?;
        if key.escapes {
            return Err(Unusual);
        }
        visitor.visit_borrowed_str(std::str::from_utf8(key.inner).map_err(|_| Unusual)?)
    }

    /// A name that is compared with others, and only that.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        if self.0.rest.peek() != Some(b'"') {
            return Err(Unusual);
        }
        let key = self.0.rest.string().ok_or(Unusual)?;
        if key.escapes || !key.ascii {
            return Err(Unusual);
        }
        visitor.visit_borrowed_bytes(key.inner)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum ignored_any
    }
}

#[cfg(test)]
pub(crate) mod tests;
