//! Field types that take what they understand and shrug at the rest.
//!
//! Upstream and clients are not ours: a `null`, a number where a string belongs or an object where a number belongs
//! must cost one field, never the event around it. Strings are borrowed from the event unless they hold an escape.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::record::FinishReason;

/// A value of any JSON type. Each method that a type leaves out yields its default.
pub(crate) trait Field<'de>: Default {
    fn borrowed(text: &'de str) -> Self {
        Self::text(text)
    }
    fn text(_: &str) -> Self {
        Self::default()
    }
    fn integer(_: u64) -> Self {
        Self::default()
    }
    fn float(_: f64) -> Self {
        Self::default()
    }
    fn truth(_: bool) -> Self {
        Self::default()
    }
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// Reads any field leniently: `deserialize_with` for all of them.
pub(crate) fn any<'de, D: Deserializer<'de>, F: Field<'de>>(from: D) -> Result<F, D::Error> {
    from.deserialize_any(FieldVisitor(PhantomData))
}

struct FieldVisitor<F>(PhantomData<F>);

/// A string.
#[derive(Debug, Default)]
pub(crate) struct Text<'a>(Cow<'a, str>);

/// A number of things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) Option<u64>);

/// Any number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Number(pub(crate) Option<f64>);

/// A bool.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flag(pub(crate) bool);

/// How long a list is, if it is one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Length(pub(crate) Option<u64>);

/// `finish_reason`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reason(pub(crate) Option<FinishReason>);

/// An object, if it is one.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) Option<T>);

/// The first elements of a list, `INLINE` of them in place.
#[derive(Debug)]
pub(crate) struct Many<T, const INLINE: usize>(pub(crate) SmallVec<[T; INLINE]>);

/// Elements that a list is read for: an event of a megabyte can hold a third of a million `{}`. Batched prompts times
/// `n` rarely make as many choices.
const MANY: usize = 256;

// === impl Visitor ===

impl<'de, F: Field<'de>> Visitor<'de> for FieldVisitor<F> {
    type Value = F;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("anything")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<F, E> {
        Ok(F::borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<F, E> {
        Ok(F::text(text))
    }
    fn visit_u64<E>(self, number: u64) -> Result<F, E> {
        Ok(F::integer(number))
    }
    fn visit_i64<E>(self, number: i64) -> Result<F, E> {
        Ok(u64::try_from(number).map_or_else(|_| F::default(), F::integer))
    }
    fn visit_f64<E>(self, number: f64) -> Result<F, E> {
        Ok(F::float(number))
    }
    fn visit_bool<E>(self, truth: bool) -> Result<F, E> {
        Ok(F::truth(truth))
    }
    fn visit_unit<E>(self) -> Result<F, E> {
        Ok(F::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<F, A::Error> {
        F::list(list)
    }
    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<F, A::Error> {
        F::object(object)
    }
}

// === impl Field ===

impl<'de: 'a, 'a> Field<'de> for Text<'a> {
    fn borrowed(text: &'de str) -> Self {
        Self(Cow::Borrowed(text))
    }
    fn text(text: &str) -> Self {
        Self(Cow::Owned(text.to_owned()))
    }
}

impl Text<'_> {
    /// The string; empty where there was none.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Field<'_> for Count {
    fn integer(number: u64) -> Self {
        Self(Some(number))
    }
}

impl Field<'_> for Number {
    fn integer(number: u64) -> Self {
        Self::float(number as f64)
    }
    fn float(number: f64) -> Self {
        Self(Some(number))
    }
}

impl Field<'_> for Flag {
    fn truth(truth: bool) -> Self {
        Self(truth)
    }
}

impl<'de> Field<'de> for Length {
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut length = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        Ok(Self(Some(length)))
    }
}

impl Field<'_> for Reason {
    fn text(word: &str) -> Self {
        Self(Some(FinishReason::from_wire(word)))
    }
}

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Field<'de> for Object<T> {
    fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object)).map(|inner| Self(Some(inner)))
    }
}

impl<T, const INLINE: usize> Default for Many<T, INLINE> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<'de, T: Deserialize<'de>, const INLINE: usize> Field<'de> for Many<T, INLINE> {
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut kept = SmallVec::new();
        while kept.len() < MANY {
            match list.next_element()? {
                Some(element) => kept.push(element),
                None => return Ok(Self(kept)),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self(kept))
    }
}

// === impl Deserialize ===

macro_rules! deserialize {
    ($([$($generics:tt)*] $type:ty $(where $bound:ident)?;)+) => {$(
        impl<'de, $($generics)*> Deserialize<'de> for $type $(where $bound: Deserialize<'de>)? {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                any(from)
            }
        }
    )+};
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any(from)
    }
}

deserialize! {
    [] Count;
    [] Number;
    [] Flag;
    [] Length;
    [] Reason;
    [T] Object<T> where T;
    [T, const INLINE: usize] Many<T, INLINE> where T;
}
