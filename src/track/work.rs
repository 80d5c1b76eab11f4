//! What a request is to the engine, for the books.

use http::StatusCode;

use crate::classify::Endpoint;
use crate::ledger::Work;
use crate::observe::RequestFacts;

/// vLLM takes no more (`VLLM_MAX_N_SEQUENCES`).
const MOST_CHOICES: u32 = 16_384;

/// As how many requests the engine runs one with this `n`. Others ignore the field, so a client may write anything in it.
pub(super) fn choices(endpoint: Endpoint, n: u32) -> u32 {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Generate => {
            n.min(MOST_CHOICES)
        }
        _ => 1,
    }
}

/// What of the engine's work its usage will not tell.
pub(super) fn of(endpoint: Endpoint, facts: &RequestFacts, status: StatusCode) -> Work {
    if status.is_client_error() {
        Work::Refused
    } else if endpoint == Endpoint::Responses && facts.background {
        Work::Later
    } else if facts.searches {
        Work::More
    } else {
        Work::Recorded
    }
}
