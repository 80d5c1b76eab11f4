//! A pod's specification to the edits that put tokenglass in front of its vLLM, or to the reason why not.
//!
//! The proxy takes vLLM's port and vLLM moves to the next free one, so Services, clients and probes by number find the
//! proxy where vLLM was. What cannot be read for certain is refused: a pod without the sidecar serves, a wrong one does not.
//! No I/O, no clock: the same pod and settings give the same edits, offline and in a cluster.

mod edit;
mod environment;
mod find;
mod flags;
mod image;
mod launch;
mod outcome;
mod plan;
mod pod;
mod ports;
mod probes;
mod refusal;
mod settings;
mod shell;
mod sidecar;
mod stamp;
#[cfg(test)]
mod tests;
mod word;

pub use self::edit::{Change, Cut, Edit, Misplaced, Path, Step, apply, patch};
pub use self::outcome::{Injection, Outcome, Warning};
pub use self::plan::inject;
pub use self::pod::Pod;
pub use self::refusal::Refusal;
pub use self::settings::{BadSetting, Gpu, NAMES, Settings};

/// What our labels and annotations begin with.
pub const PREFIX: &str = "tokenglass.dev/";
/// The label that asks for the sidecar (`"true"`) or forbids it (`"false"`).
pub const INJECT: &str = "tokenglass.dev/inject";
/// The annotation that says what was done.
pub const STATUS: &str = "tokenglass.dev/status";
/// The sidecar's container.
pub const CONTAINER: &str = "tokenglass";
