//! The mutating admission webhook: AdmissionReview v1 over TLS, answered with the injector's edits as JSON Patch.
//!
//! It never forbids a pod: what is not injected is allowed as it is, with the reason as a warning to whoever asked.

mod certificate;
mod counters;
mod review;
mod server;

pub use self::counters::Counters;
pub use self::review::{Malformed, answer};
pub use self::server::{Options, Problem, Server, run};
