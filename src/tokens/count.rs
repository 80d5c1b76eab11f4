//! Text → number of tokens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::calibration::Features;

use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton, o200k_harmony_singleton};

/// Text is counted in pieces of this length: tiktoken's regular expression gives up (and panics) on a run of blanks
/// that is long enough. A cut costs at most a token.
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
            let encoder = self.encoder();
            pieces(text)
                .map(|piece| encoder.count_ordinary(piece) as u64)
                .sum()
        }));
        count.ok()
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
            digits: text.bytes().filter(u8::is_ascii_digit).count() as u64,
        })
    }

    fn encoder(self) -> &'static CoreBPE {
        match self {
            Self::Cl100k => cl100k_base_singleton(),
            Self::O200k => o200k_base_singleton(),
            Self::O200kHarmony => o200k_harmony_singleton(),
        }
    }
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
