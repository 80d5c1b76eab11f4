//! tiktoken's vocabularies in the form that `src/tokens/bpe.rs` reads: each token behind its length, in the order of the
//! ranks. tiktoken itself, which needs twenty times the room for them, does not become part of the program.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use tiktoken_rs::{CoreBPE, cl100k_base, o200k_base};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let out = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    let out = Path::new(&out);
    fs::write(out.join("cl100k"), packed(&cl100k_base()?)?)?;
    fs::write(out.join("o200k"), packed(&o200k_base()?)?)?;
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
