//! What stripping costs. `cargo test --release --lib inject::tests::bench -- --ignored --nocapture`

use std::hint::black_box;
use std::time::Instant;

use super::*;

const CHUNK: &str = r#"data: {"id":"chatcmpl-bd085b1066aee093","object":"chat.completion.chunk","created":1795552004,"model":"meta-llama/Llama-3.1-8B","choices":[{"index":0,"delta":{"content":"ening"},"logprobs":null,"finish_reason":null,"token_ids":null}]}"#;
const COUNTED: &str = r#"data: {"id":"chatcmpl-bd085b1066aee093","object":"chat.completion.chunk","created":1795552004,"model":"meta-llama/Llama-3.1-8B","choices":[{"index":0,"delta":{"content":"ening"},"logprobs":null,"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":17,"total_tokens":18,"completion_tokens":1}}"#;
const ROUNDS: u32 = 200_000;

fn measure(name: &str, added: Added, event: &str, per_piece: u32) {
    let piece = Bytes::from(format!("{event}\n\n").repeat(per_piece as usize));
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let mut strip = Strip::new(added);
        let mut out = Vec::new();
        let start = Instant::now();
        for _ in 0..ROUNDS / per_piece {
            strip.push(black_box(&piece), &mut out);
            black_box(&out);
            out.clear();
        }
        let spent = start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS);
        best = best.min(spent);
    }
    eprintln!(
        "{name}: {best:.0} ns an event of {} bytes, {per_piece} a piece",
        event.len() + 2
    );
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    for per_piece in [1, 20] {
        measure("passed, usage added", USAGE, CHUNK, per_piece);
        measure("passed, both added", BOTH, CHUNK, per_piece);
        measure("usage cut out", BOTH, COUNTED, per_piece);
    }
}
