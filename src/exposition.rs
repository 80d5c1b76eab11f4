//! `/metrics`: what is measured here, what the pollers have found and what vLLM says of itself, in one text.

mod writer;

pub use writer::{Format, Kind, Writer};
