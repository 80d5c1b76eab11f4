//! Editing and stripping, each by itself and both against streams of a real vLLM.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Added, Strip};

mod bench;
mod recordings;
mod requests;
mod round_trip;
mod streams;

pub(super) const USAGE: Added = Added {
    usage: true,
    continuous: false,
};
pub(super) const CONTINUOUS: Added = Added {
    usage: false,
    continuous: true,
};
pub(super) const BOTH: Added = Added {
    usage: true,
    continuous: true,
};

/// What the client gets of a stream that comes in these pieces.
pub(super) fn stripped(added: Added, pieces: &[&[u8]]) -> Vec<u8> {
    let mut strip = Strip::new(added);
    let mut out = Vec::new();
    for piece in pieces {
        strip.push(&Bytes::copy_from_slice(piece), &mut out);
    }
    strip.finish(&mut out);
    assert!(out.iter().all(|bytes| !bytes.is_empty()));
    out.concat()
}

pub(super) fn whole(added: Added, stream: &[u8]) -> Vec<u8> {
    stripped(added, &[stream])
}

pub(super) fn bytewise(added: Added, stream: &[u8]) -> Vec<u8> {
    stripped(added, &stream.chunks(1).collect::<Vec<_>>())
}

pub(super) fn cut<'s>(stream: &'s [u8], at: &[Index]) -> Vec<&'s [u8]> {
    let mut at: Vec<usize> = at.iter().map(|at| at.index(stream.len() + 1)).collect();
    at.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for at in at {
        pieces.push(&stream[from..at]);
        from = at;
    }
    pieces.push(&stream[from..]);
    pieces
}

pub(super) fn indices() -> impl Strategy<Value = Vec<Index>> {
    proptest::collection::vec(any::<Index>(), 0..12)
}

pub(super) fn added() -> impl Strategy<Value = Added> {
    prop_oneof![Just(USAGE), Just(CONTINUOUS), Just(BOTH)]
}
