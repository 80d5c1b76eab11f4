//! The pieces against tiktoken's own expressions.

use std::sync::LazyLock;

use proptest::prelude::*;
use regex::Regex;

use super::*;

/// tiktoken's expressions, with `\s+` for `\s+(?!\S)` and all that follows it: see `before_last_blank`.
const CL100K: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";

static RULES: LazyLock<[(Rules, Regex); 2]> = LazyLock::new(|| {
    [(Rules::Cl100k, CL100K), (Rules::O200k, O200K)]
        .map(|(rules, pattern)| (rules, Regex::new(pattern).unwrap()))
});

/// `\s+(?!\S)`: of blanks before something else the last belongs to what follows, unless it is the only one. A match
/// that ends in a blank other than a line's end is nothing but blanks.
fn before_last_blank(text: &str, start: usize, end: usize) -> usize {
    match text[start..end].chars().next_back() {
        Some(last)
            if last.is_whitespace()
                && !matches!(last, '\r' | '\n')
                && end < text.len()
                && end - start > last.len_utf8() =>
        {
            end - last.len_utf8()
        }
        _ => end,
    }
}

fn same(text: &str) {
    for (rules, pattern) in &*RULES {
        let cutter = Cutter::new(text, *rules);
        let mut at = 0;
        while at < text.len() {
            let found = pattern.find_at(text, at).unwrap();
            assert_eq!(found.start(), at);
            let want = before_last_blank(text, at, found.end());
            assert_eq!(cutter.end(at), want, "{rules:?} at {at} of {text:?}");
            at = want;
        }
    }
}

#[test]
fn ascii_is_what_the_table_says() {
    for byte in 0..128u8 {
        assert_eq!(
            ASCII[usize::from(byte)],
            kind_of(char::from(byte)),
            "{byte}"
        );
    }
}

#[test]
fn characters_are_what_the_expressions_take_them_for() {
    let all: String = (char::MIN..=char::MAX).collect();
    let mut matched = 0;
    for (pattern, kinds) in [
        (r"[\r\n]+", LINE),
        (r"\s+", BLANK),
        (r"\p{N}+", NUMBER),
        (r"\p{L}+", LETTER),
        (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+", HEAD),
        (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+", TAIL),
        (r"[^\r\n\p{L}\p{N}]+", LEAD),
        (r"[^\s\p{L}\p{N}]+", SIGN),
    ] {
        for found in Regex::new(pattern).unwrap().find_iter(&all) {
            for c in found.as_str().chars() {
                assert_ne!(kind_of(c) & kinds, 0, "{c:?} {pattern}");
                matched += u32::from(kinds);
            }
        }
    }
    // And of no other kind than these.
    let sets = [LINE, BLANK, NUMBER, LETTER, HEAD, TAIL, LEAD, SIGN];
    let of = |c| sets.map(|set| u32::from(set) * u32::from(kind_of(c) & set != 0));
    let want: u32 = all.chars().flat_map(of).sum();
    assert_eq!(matched, want);
}

#[test]
fn characters_of_every_kind_beside_each_other() {
    let edges = (char::MIN..=char::MAX).filter(|&c| {
        let before = char::from_u32((c as u32).wrapping_sub(1));
        before.is_none_or(|before| kind_of(before) != kind_of(c))
    });
    for c in edges {
        same(&format!("{c}a{c}{c} {c}A{c}'s{c}"));
    }
}

#[test]
fn source_and_prose() {
    same(include_str!("../cut.rs"));
    same(include_str!("../../../docs/design.md"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cut_as_the_expressions_cut(
        any in ".{0,100}",
        ascii in "[ -~\t\r\n]{0,200}",
        marks in "[aAǅʰ日\u{301}\u{200d}'sſ !/\r\n1٣]{0,40}",
        contractions in "([a-zA-Z]{0,3}['’](s|S|ſ|d|m|t|ll|LL|ve|Ve|re|l|v|r|x|1| )?){0,8}",
        blanks in "[ \t\r\n\u{a0}\u{3000}\u{85}a1.]{0,60}",
    ) {
        for text in [any, ascii, marks, contractions, blanks] {
            same(&text);
        }
    }
}
