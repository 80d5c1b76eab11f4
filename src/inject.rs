//! `usage = "inject"`: vLLM is asked for the token counts that the client did not ask for, and what that changes in the
//! answer is taken back out, so that the client's bytes are the ones it would have got.
//!
//! Sans-IO. [`request`] edits the request body, [`Strip`] restores the response body; what passes between them is
//! [`Added`]. Both only ever touch bytes that they have understood: a request that cannot be edited safely is sent as
//! it is, and so is every event that is not one of the two kinds known.
//!
//! What vLLM does otherwise when usage is on (recordings in `tests/captures-inject`):
//!
//! * `include_usage`: one more event before `[DONE]`, with `"choices":[]`, `usage` and, where the server is told so,
//!   `metrics`. `system_fingerprint` stands there *instead of* on the chunk with the `finish_reason`, to which it must
//!   be given back.
//! * `continuous_usage_stats`: `usage` in every chunk, right behind `choices`. Nothing else, from the Python frontend.
//!
//! With several answers to one request, the first can end long before the event that tells the fingerprint, and its
//! last chunk cannot wait: such a request is not edited unless the client itself asked for usage.

mod chunk;
mod events;
mod json;
pub mod request;
mod strip;

pub use request::{Edited, What, edit};
pub use strip::Strip;

/// What the answer holds only because the request was edited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// The event with the final usage.
    pub usage: bool,
    /// `usage` in the chunks before it.
    pub continuous: bool,
}

#[cfg(test)]
mod tests;
