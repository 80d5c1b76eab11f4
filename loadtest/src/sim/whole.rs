//! Answers that are no streams, and what goes wrong with them.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::bodies::{self, error_message, error_type};
use super::fault::ErrorShape;
use super::head::Head;
use super::job::{Job, millis};
use super::output::Output;
use super::truth::{Entry, TruthEnd};
use super::{After, Fault};
use crate::http1::{Conn, PeerGone};

/// What is due once the tokens would have been generated.
pub(crate) enum Due {
    /// The body.
    Body,
    /// An error instead of it.
    Error { status: u16, body: Vec<u8> },
    /// Nothing: the client left while we stalled.
    Left,
}

/// Waits as long as the tokens take, and longer if that is the fault.
pub(crate) async fn wait(
    conn: &mut Conn,
    entry: &mut Entry,
    job: &Job,
    rng: &mut StdRng,
) -> Result<Due, PeerGone> {
    let mut due = entry.received + job.ttft;
    for _ in 1..job.tokens.div_ceil(job.per_frame) {
        due += millis(job.itl.sample(rng));
    }
    if due > Instant::now() {
        conn.wait_until(due).await?;
    }
    match &job.fault {
        Some(Fault::Stall { ms, .. }) => {
            let gone = match ms {
                Some(ms) => {
                    let end = Instant::now() + Duration::from_millis(*ms);
                    conn.wait_until(end).await.err()
                }
                None => Some(conn.gone().await),
            };
            if gone.is_none() {
                return Ok(Due::Body);
            }
            entry.client_gone_at = Some(Instant::now());
            entry.end = TruthEnd::Stalled;
            Ok(Due::Left)
        }
        Some(Fault::ErrorFrame {
            message,
            error_type: kind,
            code,
            ..
        }) => {
            let status = code.unwrap_or(500);
            let kind = kind.as_deref().unwrap_or(error_type(status));
            let message = message.as_deref().unwrap_or(error_message(status));
            let body = bodies::error(ErrorShape::Nested, status, kind, message, None);
            Ok(Due::Error { status, body })
        }
        _ => Ok(Due::Body),
    }
}

/// Sends head and body, or as much of them as the fault lets through.
pub(crate) async fn send(out: &mut Output<'_>, head: Head, job: &Job) -> Result<After, PeerGone> {
    let body = bodies::answer(job);
    let bad_chunk = matches!(job.fault, Some(Fault::BadChunk { .. }));
    let head = if bad_chunk {
        head.chunked()
    } else {
        head.length(body.len() as u64)
    };
    out.raw(&head.bytes());
    out.note(|sent| sent.head = true);
    // uvicorn writes head and body apart.
    out.frame_end().await?;
    if bad_chunk || cuts(job.fault.as_ref()) {
        out.raw(if bad_chunk {
            b"xyzzy\r\n"
        } else {
            &body[..body.len() / 2]
        });
        out.flush().await?;
        if matches!(job.fault, Some(Fault::Reset { .. })) {
            out.entry.end = TruthEnd::Reset;
            return Ok(After::Reset);
        }
        out.entry.end = TruthEnd::Cut;
        return Ok(After::Close);
    }
    out.raw(&body);
    out.note(|sent| {
        sent.tokens = job.all_tokens();
        sent.reasoning = job.reasoning * job.n;
        sent.usage = job.usage_body;
        sent.finish = vec![job.finish.clone(); job.n as usize];
    });
    out.flush().await?;
    out.entry.end = TruthEnd::Complete;
    Ok(if job.fault == Some(Fault::IdleCloseRace) {
        After::CloseOnNextByte
    } else {
        After::KeepAlive
    })
}

/// Whether the fault is one that ends the body early.
fn cuts(fault: Option<&Fault>) -> bool {
    matches!(
        fault,
        Some(
            Fault::CutMidFrame { .. }
                | Fault::CutNoDone { .. }
                | Fault::Truncate { .. }
                | Fault::ShortBody
                | Fault::Reset { .. }
        )
    )
}
