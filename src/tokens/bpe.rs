//! Byte pair encoding, as far as counting needs it: tiktoken's tokens, in a tenth of its memory.
//!
//! tiktoken keeps each token twice, in an allocation of its own (20 MB for cl100k, 40 for o200k); here they lie one behind
//! the other in the program itself (`build.rs`), and a table of their ranks finds them. Its regular expression looks ahead
//! in one place only, which is done by hand here, so that the rest needs no backtracking.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use regex::Regex;

/// No such token.
const NONE: u32 = u32::MAX;

/// In longer pieces the next pair to be merged is found in a heap, in shorter ones by looking at all of them.
const LONG: usize = 100;

/// A vocabulary and the expression that cuts text into the pieces which it is applied to.
#[derive(Debug)]
pub(super) struct Bpe {
    /// All tokens in the order of their ranks, each behind its length.
    packed: &'static [u8],
    /// Where each begins, at its length.
    starts: Vec<u32>,
    /// Ranks by the hash of their token, at the first free place behind it. Its length is a power of two.
    table: Vec<u32>,
    cut: Regex,
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
    /// `cut` is the vocabulary's expression, with `\s+` for `\s+(?!\S)` and all that follows it.
    pub(super) fn new(packed: &'static [u8], cut: &str) -> Option<Self> {
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
            cut: Regex::new(cut).ok()?,
        };
        for rank in 0..u32::try_from(bpe.starts.len()).ok()? {
            let mut at = bpe.home(bpe.token(rank));
            while bpe.table.get(at).is_some_and(|taken| *taken != NONE) {
                at = (at + 1) & (bpe.table.len() - 1);
            }
            *bpe.table.get_mut(at)? = rank;
        }
        Some(bpe)
    }

    /// How many tokens the text has.
    pub(super) fn count(&self, text: &str) -> u64 {
        let mut count = 0;
        let mut from = 0;
        while let Some(found) = self.cut.find_at(text, from) {
            let end = before_last_blank(text, found.start(), found.end());
            count += self.count_piece(text.as_bytes().get(found.start()..end).unwrap_or_default());
            from = end;
        }
        count
    }

    fn count_piece(&self, piece: &[u8]) -> u64 {
        if piece.len() < 2 || self.rank(piece) != NONE {
            return u64::from(!piece.is_empty());
        }
        if piece.len() < LONG {
            self.count_short(piece)
        } else {
            self.count_long(piece)
        }
    }

    /// Merges the pair of the lowest rank, the leftmost of equals, until there is none.
    fn count_short(&self, piece: &[u8]) -> u64 {
        // Where each token begins, and the rank of the pair which it is the left half of.
        let mut parts = [(0, NONE); LONG + 1];
        let mut len = piece.len();
        let Some(used) = parts.get_mut(..=len) else {
            return 0;
        };
        for (at, part) in used.iter_mut().enumerate() {
            *part = (at, self.rank(piece.get(at..at + 2).unwrap_or_default()));
        }
        let pair = |used: &[(usize, u32)], at: usize, len: usize| {
            let end = used.get(at + 2).filter(|_| at + 2 <= len);
            let range = used.get(at).zip(end).map(|(left, end)| left.0..end.0);
            self.rank(range.and_then(|range| piece.get(range)).unwrap_or_default())
        };
        while let Some((at, _)) = used
            .iter()
            .take(len)
            .enumerate()
            .min_by_key(|(_, part)| part.1)
            .filter(|(_, part)| part.1 != NONE)
        {
            used.copy_within(at + 2..=len, at + 1);
            len -= 1;
            for left in at.saturating_sub(1)..=at {
                let rank = pair(used, left, len);
                if let Some(part) = used.get_mut(left) {
                    part.1 = rank;
                }
            }
        }
        len as u64
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
        if token.len() < 2 {
            return NONE;
        }
        let mut at = self.home(token);
        loop {
            match self.table.get(at) {
                Some(&NONE) | None => return NONE,
                Some(&rank) if self.token(rank) == token => return rank,
                Some(_) => at = (at + 1) & (self.table.len() - 1),
            }
        }
    }

    /// Where the search for a token begins.
    fn home(&self, token: &[u8]) -> usize {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut hash = token.len() as u64;
        for word in token.chunks(8) {
            let mut bytes = [0; 8];
            if let Some(bytes) = bytes.get_mut(..word.len()) {
                bytes.copy_from_slice(word);
            }
            hash = (hash.rotate_left(5) ^ u64::from_le_bytes(bytes)).wrapping_mul(ODD);
        }
        // The upper bits are the well mixed ones.
        (hash >> 32) as usize & (self.table.len() - 1)
    }
}

/// `\s+(?!\S)`: of blanks before something else the last belongs to what follows, unless it is the only one. A match that
/// ends in a blank other than a line's end is nothing but blanks.
fn before_last_blank(text: &str, start: usize, end: usize) -> usize {
    let found = text.get(start..end).unwrap_or_default();
    match found.chars().next_back() {
        Some(last)
            if last.is_whitespace()
                && !matches!(last, '\r' | '\n')
                && end < text.len()
                && found.len() > last.len_utf8() =>
        {
            end - last.len_utf8()
        }
        _ => end,
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
