//! Downstream: the listening socket, its connections, TLS.

pub mod accept;
pub mod conn;
mod handoff;
mod head_watch;
mod io;
mod shared;
mod streaming;
pub mod tls;
mod transport;

pub use handoff::{Handoff, Wish};
pub use io::{Downstream, Limits};
pub use shared::{Serving, Shared};
pub(crate) use shared::{begin_cut, cut, end_cut};
