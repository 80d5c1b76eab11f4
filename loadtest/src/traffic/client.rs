//! One request and its answer.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Plan;
use super::body::{Body, Event, Events, Piece};
use super::record::{Cancel, Outcome, Record};
use super::request::Request;
use crate::http1::{Conn, ResponseHead};

/// Idle connections.
pub(crate) type Pool = Mutex<Vec<Conn>>;

/// Sends `request` and reads its answer.
pub(crate) async fn perform(plan: &Plan, pool: &Pool, request: &Request) -> Record {
    let mut exchange = Exchange::new(request, plan.keep_bodies);
    let outcome = tokio::time::timeout(plan.timeout, exchange.run(plan, pool, request)).await;
    let mut record = exchange.record;
    record.outcome = outcome.unwrap_or(Outcome::TimedOut);
    record.e2e = record.sent.elapsed();
    record.body = exchange.body.map(Into::into);
    record
}

struct Exchange {
    record: Record,
    /// Kept only if asked for.
    body: Option<Vec<u8>>,
    last_token: Option<Instant>,
    done: bool,
    error: bool,
}

// === impl Exchange ===

impl Exchange {
    fn new(request: &Request, keep_body: bool) -> Self {
        let record = Record {
            id: request.id.clone(),
            endpoint: request.endpoint,
            stream: request.stream,
            usage: request.usage,
            tools: request.tools,
            n: request.n,
            directive: request.directive.clone(),
            cancel: request.cancel,
            sent: Instant::now(),
            status: 0,
            head: None,
            ttft: None,
            e2e: Duration::ZERO,
            itl_ms: Vec::new(),
            token_frames: 0,
            bytes: 0,
            body_hash: 0xcbf2_9ce4_8422_2325,
            body: None,
            outcome: Outcome::Cut,
        };
        Self {
            record,
            body: keep_body.then(Vec::new),
            last_token: None,
            done: false,
            error: false,
        }
    }

    async fn run(&mut self, plan: &Plan, pool: &Pool, request: &Request) -> Outcome {
        let mut conn = match idle(pool) {
            Some(conn) => conn,
            None => match plan.target.connect().await {
                Ok(socket) => Conn::new(socket),
                Err(_) => return Outcome::ConnectFailed,
            },
        };
        self.record.sent = Instant::now();
        if conn.write_all(&request.bytes).await.is_err() {
            // The answer may lie there all the same: a server may refuse before it has read all.
            tracing::debug!(id = request.id, "the request could not be written whole");
        }
        let read_head = read_head(&mut conn);
        let head = if request.cancel == Some(Cancel::BeforeHead) {
            match tokio::time::timeout(plan.cancel_delay, read_head).await {
                Ok(head) => head,
                Err(_) => return Outcome::Cancelled(Cancel::BeforeHead),
            }
        } else {
            read_head.await
        };
        let head = match head {
            Ok(head) => head,
            Err(outcome) => return outcome,
        };
        self.record.status = head.status;
        self.record.head = Some(self.record.sent.elapsed());
        let outcome = self.read_body(&mut conn, &head, request).await;
        let complete = matches!(
            outcome,
            Outcome::Ok | Outcome::HttpError(_) | Outcome::ErrorFrame | Outcome::NoDone
        );
        if complete && plan.keep_alive && !head.will_close() {
            lock(pool).push(conn);
        }
        outcome
    }

    async fn read_body(
        &mut self,
        conn: &mut Conn,
        head: &ResponseHead,
        request: &Request,
    ) -> Outcome {
        let (mut body, mut events) = (Body::new(head.body_kind()), Events::default());
        let mut piece = Vec::new();
        loop {
            if let Some(phase) = self.leaves(request) {
                return Outcome::Cancelled(phase);
            }
            piece.clear();
            let read = body.next(conn, &mut piece).await;
            self.bytes(&piece, &mut events);
            match read {
                Piece::More => {}
                Piece::Cut => return Outcome::Cut,
                Piece::Malformed => return Outcome::Malformed,
                Piece::End => break,
            }
        }
        // The last chunk often comes in one read with `[DONE]`; such a client closes all the same.
        if let Some(phase) = self.leaves(request).filter(|_| self.done) {
            return Outcome::Cancelled(phase);
        }
        match self.record.status {
            200..300 if !request.stream => Outcome::Ok,
            200..300 if self.error => Outcome::ErrorFrame,
            200..300 if self.done => Outcome::Ok,
            200..300 => Outcome::NoDone,
            status => Outcome::HttpError(status),
        }
    }

    /// Whether it is time to leave, and the phase that we are in then.
    fn leaves(&self, request: &Request) -> Option<Cancel> {
        let tokens = self.record.token_frames;
        let now = match request.cancel? {
            Cancel::BeforeHead | Cancel::BeforeFirstToken => true,
            Cancel::MidStream => tokens >= request.cancel_after,
            Cancel::AfterDone => self.done,
        };
        now.then_some(match (self.done, tokens) {
            (true, _) => Cancel::AfterDone,
            (false, 0) => Cancel::BeforeFirstToken,
            (false, _) => Cancel::MidStream,
        })
    }

    fn bytes(&mut self, piece: &[u8], events: &mut Events) {
        let now = Instant::now();
        self.record.bytes += piece.len() as u64;
        for byte in piece {
            self.record.body_hash ^= u64::from(*byte);
            self.record.body_hash = self.record.body_hash.wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(body) = &mut self.body {
            body.extend_from_slice(piece);
        }
        if !self.record.stream {
            return;
        }
        events.feed(piece, |event| match event {
            Event::Tokens => {
                self.record.token_frames += 1;
                if let Some(last) = self.last_token.replace(now) {
                    let gap = now.duration_since(last).as_secs_f32() * 1e3;
                    self.record.itl_ms.push(gap);
                } else {
                    self.record.ttft = Some(now.duration_since(self.record.sent));
                }
            }
            Event::Error => self.error = true,
            Event::Done => self.done = true,
            Event::Other => {}
        });
    }
}

/// An idle connection that the server has not closed.
fn idle(pool: &Pool) -> Option<Conn> {
    loop {
        let mut conn = lock(pool).pop()?;
        if conn.read_now() == Ok(0) {
            return Some(conn);
        }
    }
}

async fn read_head(conn: &mut Conn) -> Result<ResponseHead, Outcome> {
    loop {
        match ResponseHead::parse(&conn.buf) {
            Ok(Some((head, len))) => {
                conn.buf.drain(..len);
                if head.status >= 200 {
                    return Ok(head);
                }
            }
            Ok(None) => {
                if conn.fill().await.is_err() {
                    return Err(Outcome::Cut);
                }
            }
            Err(_) => return Err(Outcome::Malformed),
        }
    }
}

fn lock(pool: &Pool) -> std::sync::MutexGuard<'_, Vec<Conn>> {
    pool.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
