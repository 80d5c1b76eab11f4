//! Byte pair encoding, as far as counting needs it: tiktoken's tokens, in a tenth of its memory.
//!
//! tiktoken keeps each token twice, in an allocation of its own (20 MB for cl100k, 40 for o200k); here they lie one behind
//! the other in the program itself (`build.rs`), and a table of their ranks finds them. Its regular expressions, which
//! would take most of the time, are `cut.rs`; and what a word counts is remembered, since texts have the same ones again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use super::cut::{Cutter, Rules};
use super::words::Words;

/// No such token.
const NONE: u32 = u32::MAX;

/// Bits of a rank. Of its place in the table the others have a part of the token's hash, so that most of what is no token
/// is known by that alone.
const RANK: u32 = 18;

/// ASCII's characters, pairs of which most merging begins with.
const ASCII: usize = 128;

/// In longer pieces the next pair to be merged is found in a heap, in shorter ones by looking at all of them.
const LONG: usize = 100;

/// Most pieces are shorter, and need less room to be made ready.
const SHORT: usize = 24;

/// A vocabulary and the rules that cut text into the pieces which it is applied to.
#[derive(Debug)]
pub(super) struct Bpe {
    /// All tokens in the order of their ranks, each behind its length.
    packed: &'static [u8],
    /// Where each begins, at its length.
    starts: Vec<u32>,
    /// Ranks by the hash of their token, at the first free place behind it. Its length is a power of two.
    table: Vec<u32>,
    /// Ranks of two characters of ASCII.
    pairs: Vec<u32>,
    rules: Rules,
    /// What pieces have counted. Of the counting thread, but for tests.
    known: Mutex<Words>,
}

/// A token so far, in a long piece.
#[derive(Clone, Copy)]
struct Part {
    previous: usize,
    end: usize,
    /// Of the pair that it is the left half of.
    rank: u32,
}

// === impl Bpe ===

impl Bpe {
    pub(super) fn new(packed: &'static [u8], rules: Rules) -> Option<Self> {
        let (mut starts, mut at) = (Vec::new(), 0);
        while let Some(length) = packed.get(at) {
            starts.push(u32::try_from(at).ok()?);
            at += 1 + usize::from(*length);
        }
        starts.shrink_to_fit();
        let mut bpe = Self {
            table: vec![NONE; (starts.len() * 2).next_power_of_two()],
            packed,
            starts,
            pairs: Vec::new(),
            rules,
            known: Mutex::default(),
        };
        for rank in 0..u32::try_from(bpe.starts.len()).ok()? {
            if rank >= NONE & ((1 << RANK) - 1) {
                return None;
            }
            let (mut at, hash) = bpe.home(bpe.token(rank));
            while bpe.table.get(at).is_some_and(|taken| *taken != NONE) {
                at = (at + 1) & (bpe.table.len() - 1);
            }
            *bpe.table.get_mut(at)? = hash << RANK | rank;
        }
        bpe.pairs = (0..ASCII * ASCII)
            .map(|pair| bpe.find(&[(pair / ASCII) as u8, (pair % ASCII) as u8]))
            .collect();
        Some(bpe)
    }

    /// How many tokens the text has.
    pub(super) fn count(&self, text: &str) -> u64 {
        // A panic under the lock has left nothing half done.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let cutter = Cutter::new(text, self.rules);
        let mut count = 0;
        let mut from = 0;
        while from < text.len() {
            // At least on by one, whatever happens: there must be an end.
            let end = cutter.end(from).max(from + 1);
            let piece = || text.as_bytes().get(from..end).unwrap_or_default();
            count += match known.word(text.as_bytes(), from, end) {
                Some(word) => known.count(word, || self.count_piece(piece())),
                None => self.count_piece(piece()),
            };
            from = end;
        }
        count
    }

    fn count_piece(&self, piece: &[u8]) -> u64 {
        if piece.len() < 2 || self.rank(piece) != NONE {
            return u64::from(!piece.is_empty());
        }
        match piece.len() {
            0..SHORT => self.count_short::<SHORT>(piece),
            SHORT..LONG => self.count_short::<LONG>(piece),
            _ => self.count_long(piece),
        }
    }

    /// Merges the pair of the lowest rank, the leftmost of equals, until there is none. The piece is shorter than `ROOM`.
    fn count_short<const ROOM: usize>(&self, piece: &[u8]) -> u64 {
        // Where each token begins, and the end of the last; and the rank of the pair which it is the left half of. Apart,
        // for the lowest rank to be found by several at once.
        let (mut starts, mut ranks) = ([0; ROOM], [NONE; ROOM]);
        let mut len = piece.len();
        let (Some(starts), Some(ranks)) = (starts.get_mut(..=len), ranks.get_mut(..=len)) else {
            return 0;
        };
        for (at, (start, rank)) in starts.iter_mut().zip(&mut *ranks).enumerate() {
            *start = at as u8;
            *rank = self.rank(piece.get(at..at + 2).unwrap_or_default());
        }
        loop {
            let used = ranks.get(..len).unwrap_or_default();
            let lowest = used.iter().fold(NONE, |lowest, rank| lowest.min(*rank));
            let Some(at) = used
                .iter()
                .position(|rank| *rank == lowest)
                .filter(|_| lowest != NONE)
            else {
                return len as u64;
            };
            starts.copy_within(at + 2..=len, at + 1);
            ranks.copy_within(at + 2..=len, at + 1);
            len -= 1;
            for left in at.saturating_sub(1)..=at {
                let end = starts.get(left + 2).filter(|_| left + 2 <= len);
                let range = starts.get(left).zip(end);
                let range = range.map(|(start, end)| usize::from(*start)..usize::from(*end));
                let pair = range.and_then(|range| piece.get(range));
                if let Some(rank) = ranks.get_mut(left) {
                    *rank = self.rank(pair.unwrap_or_default());
                }
            }
        }
    }

    /// The same, for a piece in which looking at all of them each time would take too long.
    fn count_long(&self, piece: &[u8]) -> u64 {
        let mut pairs = BinaryHeap::with_capacity(piece.len());
        let mut parts = Vec::with_capacity(piece.len());
        for at in 0..piece.len() {
            let rank = self.rank(piece.get(at..at + 2).unwrap_or_default());
            if rank != NONE {
                pairs.push(Reverse((rank, at)));
            }
            parts.push(Part {
                previous: at.wrapping_sub(1),
                end: at + 1,
                rank,
            });
        }
        let mut count = parts.len() as u64;
        while let Some(Reverse((rank, at))) = pairs.pop() {
            let Some(&left) = parts.get(at).filter(|left| left.rank == rank) else {
                continue;
            };
            let Some(right) = parts.get_mut(left.end) else {
                continue;
            };
            // What is found of it in the heap is void.
            right.rank = NONE;
            let end = right.end;
            count -= 1;
            if let Some(next) = parts.get_mut(end) {
                next.previous = at;
            }
            if let Some(merged) = parts.get_mut(at) {
                merged.end = end;
            }
            for at in [left.previous, at] {
                let after = |part: &Part| parts.get(part.end).map(|next| next.end);
                let end = parts.get(at).and_then(after);
                let pair = end.and_then(|end| piece.get(at..end));
                let rank = self.rank(pair.unwrap_or_default());
                if let Some(part) = parts.get_mut(at) {
                    part.rank = rank;
                }
                if rank != NONE {
                    pairs.push(Reverse((rank, at)));
                }
            }
        }
        count
    }

    fn token(&self, rank: u32) -> &[u8] {
        let start = self.starts.get(rank as usize).copied();
        let from = self.packed.get(start.unwrap_or(NONE) as usize..);
        let split = from.and_then(<[u8]>::split_first);
        let token = split.and_then(|(length, rest)| rest.get(..usize::from(*length)));
        token.unwrap_or_default()
    }

    /// The rank of a token of two bytes or more.
    fn rank(&self, token: &[u8]) -> u32 {
        match *token {
            [] | [_] => NONE,
            [left, right] if left.is_ascii() && right.is_ascii() => {
                let pair = usize::from(left) * ASCII + usize::from(right);
                self.pairs.get(pair).copied().unwrap_or(NONE)
            }
            _ => self.find(token),
        }
    }

    fn find(&self, token: &[u8]) -> u32 {
        let (mut at, hash) = self.home(token);
        loop {
            match self.table.get(at) {
                Some(&NONE) | None => return NONE,
                Some(&found) if found >> RANK == hash => {
                    let rank = found & ((1 << RANK) - 1);
                    if self.token(rank) == token {
                        return rank;
                    }
                }
                Some(_) => {}
            }
            at = (at + 1) & (self.table.len() - 1);
        }
    }

    /// Where the search for a token begins, and the part of its hash that is in the table.
    fn home(&self, token: &[u8]) -> (usize, u32) {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut hash = token.len() as u64;
        let mut mix = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(ODD);
        // Whole words, the last of which may overlap the one before: no token has to be copied for it.
        match (token.first_chunk(), token.last_chunk()) {
            (Some(first), Some(last)) => {
                mix(u64::from_le_bytes(*first));
                let mut rest = token;
                while let Some((word, more)) = rest.split_first_chunk::<8>()
                    && more.len() > 8
                {
                    rest = more;
                    mix(u64::from_le_bytes(*word));
                }
                mix(u64::from_le_bytes(*last));
            }
            _ => match (token.first_chunk(), token.last_chunk()) {
                (Some(first), Some(last)) => {
                    let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
                    mix(u64::from(first) | u64::from(last) << 32);
                }
                _ => mix(token
                    .iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))),
            },
        }
        // The uppermost bits, since only they depend on every byte.
        let place = hash >> (self.table.len().leading_zeros() + 1);
        (place as usize, (hash >> 14) as u32 >> RANK)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tiktoken_rs::CoreBPE;

    use super::super::count::Encoding;

    static CL100K: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::cl100k_base().unwrap());
    static O200K: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::o200k_harmony().unwrap());

    fn same(text: &str) {
        for (ours, theirs) in [(Encoding::Cl100k, &*CL100K), (Encoding::O200k, &*O200K)] {
            let want = theirs.count_ordinary(text) as u64;
            assert_eq!(
                ours.vocabulary().unwrap().count(text),
                want,
                "{ours:?}: {text:?}"
            );
        }
    }

    #[test]
    fn as_tiktoken_counts() {
        for text in [
            "",
            " ",
            "  \n  ",
            "a  b\u{a0}\u{a0}c \n\n d\r\n  ",
            "I'll say 'ſo, they'RE 12345 6",
            "fn main() {\n    println!(\"{}\", 1 + 1);\n}\n\n\n",
            "日本語のテキスト、それと한국어 и русский язык",
            "👩‍👩‍👧‍👦 e\u{301}\u{301} ǅungla / path/to//\n",
            "<|endoftext|>",
        ] {
            same(text);
        }
        same(&"ab".repeat(3000));
        same(&"x ".repeat(500));
        same(&format!("{}x", " ".repeat(300)));
        same(&"antidisestablishmentarianism".repeat(4));
        same(&"日本語".repeat(50));
    }

    #[test]
    fn as_tiktoken_counts_source_code() {
        same(include_str!("bpe.rs"));
        same(include_str!("../../docs/design.md"));
    }

    proptest! {
        #[test]
        fn as_tiktoken_counts_anything(text in ".{0,200}", blanks in "[ \t\r\n\u{a0}a'1/]{0,60}", word in "[a-zéА-я]{90,130}") {
            same(&text);
            same(&blanks);
            same(&word);
        }
    }
}
