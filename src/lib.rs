//! tokenglass: a transparent reverse proxy in front of vLLM that measures what passes.
//!
//! The modules stand in the order in which a request meets them: listen → proxy (guard, classify, headers, forward)
//! → upstream → observe → record → metrics; admin beside them.

pub mod classify;
pub mod config;
pub mod observe;
pub mod outcome;
pub mod record;
pub mod tokens;
