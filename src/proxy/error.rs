//! A failed exchange with upstream → the label it is counted under and the answer that the client gets.

use std::io::ErrorKind;

use http::StatusCode;

use super::client_body::Refused;
use super::reply::Reply;
use crate::outcome::{ErrorType, Outcome, Phase};
use crate::upstream::Error;

/// What an upstream error before the response head means.
#[must_use]
pub fn outcome(error: &Error) -> Outcome {
    match error {
        Error::Connect { .. } | Error::ConnectTimeout { .. } | Error::Tls { .. } => {
            Outcome::Error(ErrorType::UpstreamConnect)
        }
        Error::HeadTimeout(_) => Outcome::Error(ErrorType::UpstreamTimeout),
        Error::ClosedBeforeHead { .. }
        | Error::BrokenBeforeHead { .. }
        | Error::BadHead(_)
        | Error::ClosedInBody
        | Error::BrokenInBody(_)
        | Error::BadBody(_) => Outcome::Error(ErrorType::UpstreamReset),
        Error::BadRequest(_) => Outcome::Error(ErrorType::ProxyRejected),
        Error::RequestBody(cause) if cause.is::<Refused>() || is_malformed(&**cause) => {
            Outcome::Error(ErrorType::ProxyRejected)
        }
        Error::RequestBody(_) => Outcome::Cancelled(Phase::BeforeHead),
    }
}

/// Whether hyper's decoder refused the body (bad chunks), rather than the client having left.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| {
            matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::InvalidData
            )
        })
}

/// What the client is told. The system's reason is left to the log: it names hosts that are not the client's business.
#[must_use]
pub fn reply(error: &Error) -> Reply {
    match error {
        Error::Connect { .. } | Error::Tls { .. } => Reply::new(
            StatusCode::BAD_GATEWAY,
            "the upstream server cannot be reached",
        ),
        Error::ConnectTimeout { limit, .. } => Reply::new(
            StatusCode::BAD_GATEWAY,
            format!("the upstream server cannot be reached within {limit:?}"),
        ),
        Error::HeadTimeout(limit) => Reply::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("the upstream server did not answer within {limit:?}"),
        ),
        Error::BadHead(_) => Reply::new(
            StatusCode::BAD_GATEWAY,
            "the upstream server sent a malformed answer",
        ),
        Error::BadRequest(reason) => close(Reply::new(StatusCode::BAD_REQUEST, *reason)),
        Error::RequestBody(cause) if cause.is::<Refused>() => {
            let status = match cause.downcast_ref() {
                Some(Refused::TooSlow(_)) => StatusCode::REQUEST_TIMEOUT,
                Some(Refused::TooLarge(_)) | None => StatusCode::PAYLOAD_TOO_LARGE,
            };
            close(Reply::new(status, cause.to_string()))
        }
        // hyper's decoder: the chunks or their length are not what the head promised.
        Error::RequestBody(_) => close(Reply::new(
            StatusCode::BAD_REQUEST,
            "the request body is malformed or incomplete",
        )),
        Error::ClosedBeforeHead { .. }
        | Error::BrokenBeforeHead { .. }
        | Error::ClosedInBody
        | Error::BrokenInBody(_)
        | Error::BadBody(_) => Reply::new(
            StatusCode::BAD_GATEWAY,
            "the upstream server closed the connection before it answered",
        ),
    }
}

fn close(reply: Reply) -> Reply {
    Reply {
        close: true,
        ..reply
    }
}
