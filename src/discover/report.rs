//! What is told of a source, for whoever counts.

use super::Target;

/// Is told how a source fares. Only for counting: what was found comes through the stream.
pub trait Report {
    /// The source was reached, and this many upstreams are there by it. Told each round or event, changed or not.
    fn reached(&self, target: &Target, upstreams: usize);
    /// It was not; what was found last stays.
    fn failed(&self, target: &Target, failure: Failure);
}

/// Nobody counts.
impl Report for () {
    fn reached(&self, _: &Target, _: usize) {}
    fn failed(&self, _: &Target, _: Failure) {}
}

/// Why a source could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No answer in time.
    Timeout,
    /// No connection, or it broke.
    Unreachable,
    /// The server answered that it cannot (SERVFAIL, REFUSED, 5xx, 429).
    Server,
    /// It may not be asked: 401 or 403, see the rights in the documentation of the `kubernetes` source.
    Denied,
    /// The history that a watch went on from is gone (410): everything is listed again. Now and then this is usual.
    Expired,
    /// Neither in a cluster nor a kubeconfig, no usable `/etc/resolv.conf`, or it cannot be read.
    Setup,
    /// An answer that makes no sense.
    Answer,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::Unreachable,
        Self::Server,
        Self::Denied,
        Self::Expired,
        Self::Setup,
        Self::Answer,
    ];

    /// Its label in metrics.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Server => "server",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Setup => "setup",
            Self::Answer => "answer",
        }
    }
}
