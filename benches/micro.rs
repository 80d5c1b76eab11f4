//! Where the time goes: the parts of the path that every frame takes, and a scrape. `cargo bench [-- NAME]`
//!
//! To look at, not to guard with: times differ from run to run. `tests/budget/run` is the guard.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

#[allow(dead_code)]
#[path = "../tests/budget/src/capture.rs"]
mod capture;
#[allow(dead_code)]
#[path = "../tests/budget/src/observed.rs"]
mod observed;
#[allow(dead_code)]
#[path = "../tests/budget/src/scraped.rs"]
mod scraped;

use std::iter::once;

use bytes::Bytes;
use capture::Capture;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use observed::{Replay, TEXT, frames};
use tokenglass::exposition::Format;
use tokenglass::{observe, upstream};

/// Where the recorded exchanges are.
const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");

const CHAT: &str = "/v1/chat/completions";
const FRAMES: usize = 500;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn stream(name: &str) -> (Capture, Vec<Bytes>) {
    let capture = Capture::read(name);
    let stream = frames(&capture.events(), TEXT, FRAMES);
    (capture, stream)
}

/// Reads of so many bytes: an edge in every frame, some frames whole, many in one read.
#[divan::bench(args = [100, 1460, 65536])]
fn splitter(bencher: Bencher<'_, '_>, read: usize) {
    let (_, stream) = stream("chat-stream-usage");
    let (events, stream) = (stream.len(), stream.concat());
    bencher
        .counter(BytesCount::new(stream.len()))
        .counter(ItemsCount::new(events))
        .bench(|| observe::count_events(stream.chunks(read)));
}

/// From frame to gap: those that differ in their text alone, and those that must be parsed.
#[divan::bench(args = ["chat-stream-usage", "chat-stream-usage-continuous", "chat-stream-logprobs"])]
fn scan(bencher: Bencher<'_, '_>, name: &str) {
    let (capture, stream) = stream(name);
    let mut replay = Replay::new();
    bencher
        .counter(ItemsCount::new(stream.len()))
        .bench_local(|| replay.exchange(CHAT, &capture, stream.iter().map(|frame| &frame[..])));
}

/// A request's whole life without a socket: from its head to its record in the metrics.
#[divan::bench(args = ["chat-nonstream", "chat-stream-usage", "err-model404"])]
fn record(bencher: Bencher<'_, '_>, name: &str) {
    let capture = Capture::read(name);
    let mut replay = Replay::new();
    bencher.bench_local(|| replay.exchange(CHAT, &capture, once(&capture.body[..])));
}

#[divan::bench]
fn render(bencher: Bencher<'_, '_>) {
    let exposition = scraped::full();
    let length = exposition.render(Format::Text).len();
    bencher
        .counter(BytesCount::new(length))
        .bench_local(|| exposition.render(Format::Text));
}

/// As uvicorn frames a stream: a chunk for every event, so many of them in one read.
#[divan::bench(args = [1, 16, 128])]
fn chunked(bencher: Bencher<'_, '_>, chunks: usize) {
    let (_, stream) = stream("chat-stream-usage");
    let mut wire = Vec::new();
    for frame in stream.iter().take(chunks) {
        wire.extend_from_slice(format!("{:x}\r\n", frame.len()).as_bytes());
        wire.extend_from_slice(frame);
        wire.extend_from_slice(b"\r\n");
    }
    bencher
        .counter(ItemsCount::new(chunks))
        .with_inputs(|| wire.clone())
        .bench_local_refs(|wire| upstream::decode_chunked(wire));
}
