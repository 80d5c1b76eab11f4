//! What counting needs and need not be worked out at run time.
//!
//! tiktoken's vocabularies in the form that `src/tokens/bpe.rs` reads: each token behind its length, in the order of the
//! ranks. tiktoken itself, which needs twenty times the room for them, does not become part of the program. And what
//! kind of character each is, for `src/tokens/cut.rs`, which does the work of tiktoken's regular expressions.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use regex_syntax::hir::{Class, HirKind};
use tiktoken_rs::{CoreBPE, cl100k_base, o200k_base};

/// Characters to a block of the table.
const BLOCK: usize = 256;

/// All that are no other kind.
const OTHER: u8 = 1;

/// Each kind's bit, as in `src/tokens/cut.rs`. Of those that overlap the last counts.
const KINDS: [(&str, u8); 7] = [
    (r"\s", 2),
    (r"[\r\n]", 4),
    (r"\p{N}", 8),
    (r"[\p{Lu}\p{Lt}]", 16),
    (r"\p{Ll}", 32),
    (r"[\p{Lm}\p{Lo}]", 64),
    (r"\p{M}", 128),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let out = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    let out = Path::new(&out);
    fs::write(out.join("cl100k"), packed(&cl100k_base()?)?)?;
    fs::write(out.join("o200k"), packed(&o200k_base()?)?)?;
    fs::write(out.join("kinds"), kinds()?)?;
    Ok(())
}

/// The ranks up to the first gap: behind it there are special tokens only.
fn packed(vocabulary: &CoreBPE) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut packed = Vec::new();
    for rank in 0.. {
        let Ok(token) = vocabulary.decode_bytes(&[rank]) else {
            break;
        };
        packed.push(u8::try_from(token.len())?);
        packed.extend(token);
    }
    Ok(packed)
}

/// For each 256 characters the number of their block; then the blocks, no two of them alike.
fn kinds() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut all = vec![OTHER; char::MAX as usize + 1];
    for (pattern, kind) in KINDS {
        let parsed = regex_syntax::parse(pattern)?;
        let HirKind::Class(Class::Unicode(class)) = parsed.kind() else {
            return Err(pattern.into());
        };
        for range in class.ranges() {
            all.get_mut(range.start() as usize..=range.end() as usize)
                .ok_or(pattern)?
                .fill(kind);
        }
    }
    let (mut numbers, mut blocks) = (Vec::new(), Vec::<&[u8]>::new());
    for block in all.chunks(BLOCK) {
        let known = blocks.iter().position(|known| *known == block);
        numbers.push(u8::try_from(known.unwrap_or(blocks.len()))?);
        if known.is_none() {
            blocks.push(block);
        }
    }
    Ok([numbers, blocks.concat()].concat())
}
