//! The sidecar on Kubernetes: one pure function ([`injector`]) and its two callers, files on a desk ([`manifest`]) and
//! the admission webhook of a cluster ([`webhook`]).

pub mod injector;
pub mod manifest;
pub mod webhook;
