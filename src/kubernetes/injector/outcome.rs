//! What came of a pod.

use std::fmt;

use super::edit::Edit;
use super::refusal::Refusal;

/// What is to be done with a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// These edits put the sidecar in.
    Inject(Injection),
    /// It is in already. `same` unless by another version or with other settings; either way nothing is touched, since
    /// what vLLM was before is not known any more.
    Already {
        /// By this version with these settings.
        same: bool,
    },
    /// Its label says no.
    OptedOut,
    /// It is not done.
    Refuse(Refusal),
}

/// Edits, and what to say about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// In no order that matters.
    pub edits: Vec<Edit>,
    /// The container that is vLLM's.
    pub container: String,
    /// The proxy's port: what was vLLM's.
    pub listen: u16,
    /// vLLM's port now.
    pub upstream: u16,
    /// Metrics and drain.
    pub admin: u16,
    /// What its owner should know.
    pub warnings: Vec<Warning>,
}

/// Something that was done otherwise than one may expect, or left undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// vLLM's container has a preStop hook of its own.
    OwnPreStop {
        /// Where the drain is.
        admin: u16,
    },
    /// An exec probe or hook names the port in a way that is not read.
    ExecPort {
        /// `livenessProbe` and the like.
        place: &'static str,
        /// The port.
        port: u16,
    },
    /// Variables of Services are used, so they stay.
    ServiceLinks,
    /// vLLM wants a key that the poller does not have.
    ApiKey,
    /// A setting of ours that is none.
    UnknownSetting {
        /// The annotation.
        name: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnPreStop { admin } => write!(
                f,
                "vLLM's container has its own preStop hook, which stays: for a clean drain let it get http://127.0.0.1:{admin}/drain?wait=1"
            ),
            Self::ExecPort { place, port } => write!(
                f,
                "{place} runs a command that mentions {port}; it is left as it is and asks the proxy"
            ),
            Self::ServiceLinks => f.write_str(
                "containers use variables of Services (…_SERVICE_HOST), so enableServiceLinks stays: a Service called vllm or tokenglass may confuse both",
            ),
            Self::ApiKey => f.write_str(
                "vLLM wants an API key, which the sidecar's poller does not have: set TOKENGLASS_HEALTH__API_KEY by tokenglass.dev/config",
            ),
            Self::UnknownSetting { name, near: None } => write!(f, "{name} is no setting"),
            Self::UnknownSetting { name, near: Some(near) } => {
                write!(f, "{name} is no setting, did you mean tokenglass.dev/{near}?")
            }
        }
    }
}
