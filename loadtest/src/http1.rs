//! The little HTTP/1.1 that server and client share: reading heads and bodies out of a buffered connection.

mod conn;
mod date;
mod head;

pub(crate) use conn::{Conn, PeerGone};
pub(crate) use date::http_date;
pub(crate) use head::{BodyKind, RequestHead, ResponseHead};
