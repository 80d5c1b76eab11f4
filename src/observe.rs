//! The observer: bytes and time stamps in, one [`Record`] out.
//!
//! Sans-IO and pure: it reads no clock, no socket and no configuration file, and nothing that it returns can fail the
//! traffic. [`RequestTee`] reads the request body as it passes; [`ResponseObserver`] reads the response.

pub mod request;
pub mod response;

pub use request::{RequestFacts, RequestTee};
pub use response::{Gap, HeadFacts, Limits, ResponseObserver};

pub use crate::record::Record;
