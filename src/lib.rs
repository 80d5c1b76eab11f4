//! tokenglass: a transparent reverse proxy in front of vLLM that measures what passes.
//!
//! The modules stand in the order in which a request meets them: listen → proxy (guard, classify, headers, forward)
//! → upstream → observe → record → metrics; the pollers (poll, gpu) and exposition, admin beside them.

pub mod activity;
pub mod admin;
mod alive;
pub mod app;
mod beside;
pub mod classify;
pub mod cli;
pub mod config;
pub mod demo;
pub mod discover;
pub mod drain;
pub mod engine;
pub mod exposition;
pub mod gateway;
mod gather;
pub mod gpu;
mod hop_by_hop;
mod housekeeping;
pub mod inject;
pub mod kubernetes;
pub mod ledger;
pub mod listen;
mod log_limit;
pub mod metrics;
mod notify;
pub mod observe;
pub mod outcome;
pub mod poll;
pub mod proxy;
pub mod record;
mod reload;
mod signals;
pub mod task;
pub mod telemetry;
pub mod tenants;
pub mod tokens;
pub mod track;
pub mod upstream;
pub mod worker;
