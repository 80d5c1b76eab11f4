//! One request: guard → classify → forward → observe.

pub mod body;
pub mod client_body;
pub mod error;
pub mod forward;
pub mod guard;
pub mod reply;
mod several;
pub mod tee;
pub mod tunnel;
pub mod usage;

pub use body::ProxyBody;
pub use forward::{Backend, Proxy};
