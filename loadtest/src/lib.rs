//! What tokenglass is tested with: a scriptable vLLM on raw TCP, a server that replays bytes, mixed traffic, and a comparison
//! with other proxies.
//!
//! Nothing here uses an HTTP library for the server side, because half of the use is to answer in ways that an HTTP
//! library refuses to: half a chunk, a reset in the middle of a frame, a body shorter than its length.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod compare;
pub mod drill;
pub mod scripted;
pub mod sim;
pub mod traffic;

mod http1;
mod net;
