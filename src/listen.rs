//! Downstream: the listening socket, its connections, TLS.

pub mod accept;
pub mod conn;
mod head_watch;
mod io;
pub mod tls;

pub use io::{Downstream, Shared};
