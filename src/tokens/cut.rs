//! Text → the pieces that byte pair encoding is applied to: tiktoken's regular expressions, by hand.
//!
//! Each character is looked at about once, where the expressions take a lazily built automaton and an engine that may
//! go back. Nothing is left to an engine: what kind every character of Unicode is stands in a table (`build.rs`). The
//! tests hold the pieces against the expressions.

/// Where each of 256 characters has its block, then the blocks.
static KINDS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kinds"));

/// Blocks that all of Unicode has, alike or not.
const BLOCKS: usize = (char::MAX as usize + 1) / 256;

/// What kind a character is: one bit of these. Their sets are the classes of the expressions.
const OTHER: u8 = 1;
/// `\s` without the ends of lines.
const SPACE: u8 = 2;
/// `[\r\n]`.
const LINE: u8 = 4;
/// `\p{N}`.
const NUMBER: u8 = 8;
/// `[\p{Lu}\p{Lt}]`.
const UPPER: u8 = 16;
/// `\p{Ll}`.
const LOWER: u8 = 32;
/// `[\p{Lm}\p{Lo}]`.
const CASELESS: u8 = 64;
/// `\p{M}`.
const MARK: u8 = 128;

/// `\s`.
const BLANK: u8 = SPACE | LINE;
/// `\p{L}`.
const LETTER: u8 = UPPER | LOWER | CASELESS;
/// `[^\r\n\p{L}\p{N}]`, of which one may be the first of a word.
const LEAD: u8 = OTHER | SPACE | MARK;
/// `[^\s\p{L}\p{N}]`.
const SIGN: u8 = OTHER | MARK;
/// o200k's first part of a word, and its second. What is in both is either.
const HEAD: u8 = UPPER | CASELESS | MARK;
const TAIL: u8 = LOWER | CASELESS | MARK;

/// Of each byte; 0 for those that are a part of a character only.
const ASCII: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        kinds[byte] = match byte as u8 {
            b'\r' | b'\n' => LINE,
            b' ' | b'\t' | 0x0B | 0x0C => SPACE,
            b'0'..=b'9' => NUMBER,
            b'A'..=b'Z' => UPPER,
            b'a'..=b'z' => LOWER,
            _ => OTHER,
        };
        byte += 1;
    }
    kinds
};

/// Whose expression it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// `CL100K_BASE_PAT_STR`.
    Cl100k,
    /// `O200K_BASE_PAT_STR`.
    O200k,
}

/// A text, at the places where its pieces begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cutter<'a> {
    text: &'a str,
    rules: Rules,
}

// === impl Cutter ===

impl<'a> Cutter<'a> {
    pub(super) fn new(text: &'a str, rules: Rules) -> Self {
        Self { text, rules }
    }

    /// The end of the piece that begins at `at`, which is where another ended and not the end of the text.
    pub(super) fn end(self, at: usize) -> usize {
        match self.rules {
            Rules::Cl100k => self.cl100k(at),
            Rules::O200k => self.o200k(at),
        }
    }

    /// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s+(?!\S)|\s`
    fn cl100k(self, at: usize) -> usize {
        let (kind, next) = self.kind(at);
        if kind & LETTER != 0 {
            return self.run(next, LETTER);
        }
        let contracted = self.contraction(at);
        if contracted > at {
            return contracted;
        }
        if kind & LEAD != 0 {
            let end = self.run(next, LETTER);
            if end > next {
                return end;
            }
        }
        if kind == NUMBER {
            return self.number(next);
        }
        let signs = self.signs(at);
        if signs > at {
            return self.run(signs, LINE);
        }
        let blanks = self.blanks(at);
        if blanks.end == self.text.len() {
            return blanks.end;
        }
        blanks.line.unwrap_or(blanks.before_last)
    }

    /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?`, or
    /// the same with `+` in the head and `*` in the tail, or
    /// `\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    fn o200k(self, at: usize) -> usize {
        let (kind, next) = self.kind(at);
        if let Some(end) = self.word(at, kind, next) {
            return self.contraction(end);
        }
        if kind == NUMBER {
            return self.number(next);
        }
        let signs = self.signs(at);
        if signs > at {
            let tail = self.text.as_bytes().get(signs..).unwrap_or_default();
            let ends = tail
                .iter()
                .take_while(|c| matches!(c, b'\r' | b'\n' | b'/'));
            return signs + ends.count();
        }
        let blanks = self.blanks(at);
        match blanks.line {
            Some(end) => end,
            None if blanks.end == self.text.len() => blanks.end,
            None => blanks.before_last,
        }
    }

    /// o200k's word, in the order in which an engine would find it: with a tail before without, and of each with
    /// something in front before without.
    fn word(self, at: usize, kind: u8, next: usize) -> Option<usize> {
        if kind & LEAD == 0 {
            let word = self.head_and_tail(at);
            return word.tailed.or(word.head);
        }
        let word = self.head_and_tail(next);
        let tailed = word.tailed;
        // A mark is a word by itself, so that there is one with a tail.
        tailed.or((kind == MARK).then_some(next)).or(word.head)
    }

    /// What of a word there is from here on.
    fn head_and_tail(self, at: usize) -> Word {
        let (mut end, mut either) = (at, None);
        let (kind, head_end) = loop {
            let (kind, next) = self.kind(end);
            if kind & HEAD == 0 {
                break (kind, end);
            }
            end = next;
            if kind & TAIL != 0 {
                either = Some(end);
            }
        };
        Word {
            // No lower case behind it: the head gives back what may be a tail too.
            tailed: if kind == LOWER {
                Some(self.run(head_end, TAIL))
            } else {
                either
            },
            head: (head_end > at).then_some(head_end),
        }
    }

    /// `'s` and the like; `at` if there is none.
    fn contraction(self, at: usize) -> usize {
        let rest = self.text.as_bytes().get(at..).unwrap_or_default();
        let Some((b'\'', rest)) = rest.split_first() else {
            return at;
        };
        let lower = |at: usize| rest.get(at).map_or(0, |byte| byte | 0x20);
        let length = match (lower(0), lower(1)) {
            (b's' | b'd' | b'm' | b't', _) => 1,
            (b'l', b'l') | (b'v' | b'r', b'e') => 2,
            // The long s is an s too, where case does not matter.
            _ if rest.starts_with("ſ".as_bytes()) => 2,
            _ => return at,
        };
        at + 1 + length
    }

    /// Up to two more digits.
    fn number(self, next: usize) -> usize {
        let mut end = next;
        for _ in 0..2 {
            match self.kind(end) {
                (NUMBER, next) => end = next,
                _ => break,
            }
        }
        end
    }

    /// ` ?[^\s\p{L}\p{N}]+`; `at` if there are none.
    fn signs(self, at: usize) -> usize {
        let first = at + usize::from(self.text.as_bytes().get(at) == Some(&b' '));
        let end = self.run(first, SIGN);
        if end > first { end } else { at }
    }

    fn blanks(self, at: usize) -> Blanks {
        let mut blanks = Blanks {
            end: at,
            before_last: at,
            line: None,
        };
        loop {
            let (kind, next) = self.kind(blanks.end);
            if kind & BLANK == 0 {
                break;
            }
            blanks.before_last = blanks.end;
            blanks.end = next;
            if kind == LINE {
                blanks.line = Some(next);
            }
        }
        if blanks.before_last == at {
            // The only one.
            blanks.before_last = blanks.end;
        }
        blanks
    }

    /// The end of all characters of these kinds from here on.
    fn run(self, at: usize, kinds: u8) -> usize {
        let mut end = at;
        loop {
            let (kind, next) = self.kind(end);
            if kind & kinds == 0 {
                return end;
            }
            end = next;
        }
    }

    /// What the character here is, and where the next begins; no kind at the end of the text.
    #[inline]
    fn kind(self, at: usize) -> (u8, usize) {
        match self.text.as_bytes().get(at) {
            Some(&byte) if byte < 128 => (ASCII[usize::from(byte)], at + 1),
            Some(_) => self.wide_kind(at),
            None => (0, at),
        }
    }

    fn wide_kind(self, at: usize) -> (u8, usize) {
        let rest = self.text.get(at..).unwrap_or_default();
        match rest.chars().next() {
            Some(c) => (kind_of(c), at + c.len_utf8()),
            // Not where a character begins. It never is, and there would be no end.
            None => (0, at),
        }
    }
}

/// One of o200k's words, from a place on.
struct Word {
    /// Its end, if it has a tail, as most do.
    tailed: Option<usize>,
    /// The end of its head, if it has one.
    head: Option<usize>,
}

/// A run of blanks.
struct Blanks {
    end: usize,
    /// What stands behind it takes the last for itself; but not the only one.
    before_last: usize,
    /// Behind the last end of a line among them.
    line: Option<usize>,
}

fn kind_of(c: char) -> u8 {
    let (block, place) = (c as usize / 256, c as usize % 256);
    let block = KINDS.get(block).copied().unwrap_or_default();
    let kind = KINDS.get(BLOCKS + usize::from(block) * 256 + place);
    kind.copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests;
