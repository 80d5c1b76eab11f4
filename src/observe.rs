//! The observer: bytes and time stamps in, one [`Record`] out.
//!
//! Sans-IO and pure: it reads no clock, no socket and no configuration file, and nothing that it returns can fail the
//! traffic. [`RequestTee`] reads the request body as it passes; [`ResponseObserver`] reads the response.

mod body;
mod error;
mod form;
pub mod head;
mod hollow;
pub(crate) mod json;
mod openai;
mod progress;
mod quick;
pub mod request;
pub mod response;
mod shape;
pub(crate) mod sse;
mod template;
mod timing;
mod typed;
mod wire;

pub use head::HeadFacts;
pub use request::{RequestFacts, RequestTee};
pub use response::{Gap, Limits, ResponseObserver};

pub use crate::record::Record;

pub(crate) use error::is_engine_dead;

/// Splits a stream and counts its events. For the benchmarks alone.
#[doc(hidden)]
pub fn count_events<'a>(reads: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut splitter = sse::Splitter::new(1 << 20);
    let mut events = 0;
    for read in reads {
        splitter.feed(read, |_| events += 1);
    }
    events
}

#[cfg(test)]
mod tests;
