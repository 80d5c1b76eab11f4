//! What is said of each object.

use std::fmt;

use crate::kubernetes::injector::{Injection, Refusal};

/// An object and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `deployment/vllm`
    pub object: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It has the sidecar now.
    Injected(Injection),
    /// There was nothing to do.
    Skipped(&'static str),
    /// It could not be done.
    Refused(Refusal),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        match &self.verdict {
            Verdict::Injected(injection) => {
                let Injection {
                    container,
                    listen,
                    upstream,
                    admin,
                    ..
                } = injection;
                write!(
                    f,
                    "injected before container {container}: proxy on {listen}, vLLM on {upstream}, metrics on {admin}"
                )?;
                injection
                    .warnings
                    .iter()
                    .try_for_each(|warning| write!(f, "\n  warning: {warning}"))
            }
            Verdict::Skipped(why) => write!(f, "left alone: {why}"),
            Verdict::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}
