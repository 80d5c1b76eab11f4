//! Text → number of tokens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use std::sync::LazyLock;

use super::bpe::Bpe;
use super::calibration::Features;
use super::cut::Rules;

/// Text is counted in pieces of this length, so that no run of letters keeps the thread for long. A cut costs at most a
/// token.
const PIECE: usize = 16 * 1024;

/// tiktoken's vocabularies, as far as a model served by vLLM may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The stand-in for everything else: of all, its counts are nearest to those of Llama's and Qwen's tokenizers.
    Cl100k,
    O200k,
    O200kHarmony,
}

// === impl Encoding ===

impl Encoding {
    /// By the model's name, with or without an organisation in front.
    pub(super) fn of_model(model: &str) -> Self {
        let name = model
            .rsplit('/')
            .next()
            .unwrap_or(model)
            .to_ascii_lowercase();
        let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if is(&["gpt-oss"]) {
            Self::O200kHarmony
        } else if is(&["gpt-4o", "gpt-4.1", "gpt-5", "o1", "o3"]) {
            Self::O200k
        } else {
            Self::Cl100k
        }
    }

    /// Tokens of the text. What looks like a special token is text like any other.
    pub(super) fn count(self, text: &str) -> Option<u64> {
        // A bug in a tokenizer must not end the thread that all estimates come from.
        let count = catch_unwind(AssertUnwindSafe(|| {
            let vocabulary = self.vocabulary()?;
            Some(pieces(text).map(|piece| vocabulary.count(piece)).sum())
        }));
        count.ok().flatten()
    }

    /// The count, and what it is corrected by.
    pub(super) fn measure(self, text: &str) -> Option<Features> {
        let count = self.count(text)?;
        let wide = if text.is_ascii() {
            0
        } else {
            let wide: String = text.chars().filter(|c| !c.is_ascii()).collect();
            self.count(&wide)?.min(count)
        };
        Some(Features {
            narrow: count - wide,
            wide,
            digits: digits(text),
        })
    }

    /// Made ready when it is first needed. Harmony has other special tokens only, which are text here.
    pub(super) fn vocabulary(self) -> Option<&'static Bpe> {
        static CL100K_BASE: LazyLock<Option<Bpe>> = LazyLock::new(|| {
            Bpe::new(
                include_bytes!(concat!(env!("OUT_DIR"), "/cl100k")),
                Rules::Cl100k,
            )
        });
        static O200K_BASE: LazyLock<Option<Bpe>> = LazyLock::new(|| {
            Bpe::new(
                include_bytes!(concat!(env!("OUT_DIR"), "/o200k")),
                Rules::O200k,
            )
        });
        match self {
            Self::Cl100k => CL100K_BASE.as_ref(),
            Self::O200k | Self::O200kHarmony => O200K_BASE.as_ref(),
        }
    }
}

/// Digits of ASCII. So many bytes at once that their number fits a byte, for many to be added in one instruction.
fn digits(text: &str) -> u64 {
    let of = |bytes: &[u8]| {
        let digits = bytes.iter().map(|byte| u8::from(byte.is_ascii_digit()));
        u64::from(digits.sum::<u8>())
    };
    text.as_bytes().chunks(usize::from(u8::MAX)).map(of).sum()
}

/// Cuts before the last blank of each piece, since a token begins there.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, tail) = if rest.len() <= PIECE {
            (rest, "")
        } else {
            let end = rest.floor_char_boundary(PIECE);
            let cut = rest.get(..end).and_then(|head| head.rfind(' '));
            let cut = cut.filter(|cut| *cut > 0).unwrap_or(end);
            rest.split_at_checked(cut).unwrap_or((rest, ""))
        };
        rest = tail;
        Some(piece)
    })
}
