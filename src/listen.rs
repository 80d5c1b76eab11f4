//! Downstream: the listening socket, its connections, TLS.

pub mod accept;
pub mod conn;
mod head_watch;
mod io;
mod shared;
pub mod tls;
mod transport;

pub use io::{Downstream, Limits};
pub use shared::{Serving, Shared};
