//! What vLLM says of itself: its `/metrics`, read, made whole and ready to be shown again.
//!
//! Text in, families out; nothing here does I/O. parse → alias → filter for each upstream, merge over all of them,
//! snapshot keeps what is fresh. Whatever upstream serves, what comes out parses: names and series are there once, families
//! are in one piece, and what cannot be read costs only its own lines.

mod alias;
mod dropped;
mod family;
mod filter;
mod labels;
mod line;
mod merge;
mod names;
mod open_metrics;
mod parse;
mod snapshot;

pub use alias::complete;
pub use dropped::{Dropped, Reason};
pub use family::{Family, Sample};
pub use filter::Filter;
pub use merge::Taken;
pub use parse::{Parsed, parse};
pub use snapshot::{Settings, Snapshots};
