//! Several upstreams: which of them gets a request.
//!
//! A [`Registry`], shared by all threads, knows the upstreams and what each serves; only the pollers' thread changes it.
//! Each worker has a [`Balance`] with its own connections to them. A request names its model ([`scan`]) and gets a
//! [`Place`] at one of the upstreams that serve it: of two by chance the one with fewer requests, or the one that its
//! session went to before (`sessions`). Who fails is left alone for a while ([`breaker`]); who has enough has others
//! wait (`queue`).
//!
//! Of tower's parts the load metric, the random numbers and the stream of changes are used. Its `Balance` is not: it
//! chooses when it is polled, before it sees the request, so it can neither pass over an upstream that was tried, nor follow
//! a session, nor let one request try; and each worker would have one for each model. Nor is its `ConcurrencyLimit`: a
//! request waits for a place at any of several upstreams, and a semaphore has only its own.

mod balance;
pub mod breaker;
mod endpoint;
mod place;
mod queue;
mod registry;
mod retry_after;
pub mod scan;
mod sessions;
mod table;

#[cfg(test)]
mod tests;

pub use balance::{Balance, Pick, Want};
pub use endpoint::{Endpoint, Seat};
pub use place::Place;
pub use queue::{Queue, Waiting};
pub use registry::{Member, Registry};
pub use retry_after::retry_after;
