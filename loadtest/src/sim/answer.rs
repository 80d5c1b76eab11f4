//! From a request to its answer: the models endpoints.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bodies;
use super::fault::ErrorShape;
use super::head::Head;
use super::job::{Asked, Job, JobContext};
use super::output::{Framing, Output};
use super::truth::{Entry, TruthEnd};
use super::{After, Behaviour, Fault, Shared, Split, stream, whole};
use crate::http1::{Conn, PeerGone, RequestHead};

/// Answers a request on a model endpoint, of which head and body have been read.
pub(crate) async fn answer(
    shared: &Shared,
    conn: &mut Conn,
    head: &RequestHead,
    body: &[u8],
    received: Instant,
) -> Result<After, PeerGone> {
    let mut open = shared
        .truth
        .open(head.header("x-request-id"), &head.path, received);
    let _running = shared.counters.running();
    let result = Answer::new(shared, head, body)
        .play(conn, &mut open.entry)
        .await;
    if result.is_err() {
        open.entry.client_gone();
    }
    shared.counters.count(&open.entry);
    result
}

struct Answer<'a> {
    shared: &'a Shared,
    head: &'a RequestHead,
    body: &'a [u8],
    rng: StdRng,
    behaviour: Behaviour,
    /// Why the `x-sim` header was not understood.
    misunderstood: Option<String>,
}

// === impl Answer ===

impl<'a> Answer<'a> {
    fn new(shared: &'a Shared, head: &'a RequestHead, body: &'a [u8]) -> Self {
        let default = &shared.config.behaviour;
        let asked = head.header("x-sim").map(serde_json::from_str::<Behaviour>);
        let (behaviour, misunderstood) = match asked {
            None => (default.clone(), None),
            Some(Ok(asked)) => (asked.over(default), None),
            Some(Err(error)) => (Behaviour::default(), Some(error.to_string())),
        };
        Self {
            shared,
            head,
            body,
            rng: StdRng::seed_from_u64(shared.next_seed()),
            behaviour,
            misunderstood,
        }
    }

    async fn play(mut self, conn: &mut Conn, entry: &mut Entry) -> Result<After, PeerGone> {
        // A test with a typo in its directive should not pass by luck.
        if let Some(error) = self.misunderstood.take() {
            let body = bodies::error(ErrorShape::Nested, 400, "x-sim", &error, Some("x-sim"));
            return self.refuse(conn, entry, 400, &body).await;
        }
        let Ok(asked) = serde_json::from_slice::<Asked>(self.body) else {
            let message = format!(
                "1 validation error:\n  {{'type': 'json_invalid', 'loc': 'body.{}', 'msg': 'JSON decode error'}}",
                self.body.len(),
            );
            let body = bodies::error(
                ErrorShape::Nested,
                400,
                "Bad Request",
                &message,
                Some("body"),
            );
            return self.refuse(conn, entry, 400, &body).await;
        };
        entry.model = asked.model.clone().unwrap_or_default();
        entry.stream = asked.stream();
        entry.n = asked.n();
        let models = &self.shared.config.models;
        if asked.model.is_some() && !models.contains(&entry.model) {
            let message = format!(
                "The model `{}` does not exist. Valid aliases: {}.",
                entry.model,
                models.join(", "),
            );
            let body = bodies::error(
                ErrorShape::Nested,
                404,
                "NotFoundError",
                &message,
                Some("model"),
            );
            return self.refuse(conn, entry, 404, &body).await;
        }
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let context = JobContext {
            request_id: self.head.header("x-request-id"),
            created,
            body_len: self.body.len(),
        };
        let chat = self.head.path == "/v1/chat/completions";
        let mut job = Job::new(chat, &asked, &self.behaviour, &context, &mut self.rng);
        if asked.model.is_none() {
            job.model = models.first().cloned().unwrap_or_default();
            entry.model.clone_from(&job.model);
        }
        entry.prompt_tokens = job.prompt_tokens;
        entry.fault.clone_from(&job.fault);
        self.run(conn, entry, &job).await
    }

    async fn run(
        &mut self,
        conn: &mut Conn,
        entry: &mut Entry,
        job: &Job,
    ) -> Result<After, PeerGone> {
        let mut delay = Duration::from_millis(self.behaviour.head_delay_ms.unwrap_or(0));
        match &job.fault {
            Some(Fault::SlowHead { ms }) => delay += Duration::from_millis(*ms),
            Some(Fault::CloseBeforeHead) => return Ok(After::Close),
            Some(Fault::Reset { after: None }) => {
                entry.end = TruthEnd::Reset;
                return Ok(After::Reset);
            }
            Some(Fault::Http {
                status,
                shape,
                error_type,
                message,
            }) => {
                let kind = error_type.as_deref().unwrap_or(bodies::error_type(*status));
                let message = message.as_deref().unwrap_or(bodies::error_message(*status));
                let body = bodies::error(*shape, *status, kind, message, None);
                conn.wait_until(entry.received + delay).await?;
                return self.refuse(conn, entry, *status, &body).await;
            }
            _ => {}
        }
        if !delay.is_zero() {
            conn.wait_until(entry.received + delay).await?;
        }
        let keep_alive = if job.stream {
            self.stream(conn, entry, job).await?
        } else {
            self.whole(conn, entry, job).await?
        };
        Ok(match keep_alive {
            After::KeepAlive if self.closes() => After::Close,
            after => after,
        })
    }

    fn closes(&self) -> bool {
        self.behaviour.close.unwrap_or(false) || self.head.wants_close()
    }

    fn response_head(&self, status: u16, content_type: &'static str) -> Head {
        Head::new(status, content_type)
            .close(self.closes())
            .rust(self.behaviour.rust_frontend.unwrap_or(false))
    }

    async fn stream(
        &mut self,
        conn: &mut Conn,
        entry: &mut Entry,
        job: &Job,
    ) -> Result<After, PeerGone> {
        let short = job.fault == Some(Fault::ShortBody);
        let framing = Framing {
            chunked: !self.head.http10 && !short,
            crlf: self.behaviour.crlf.unwrap_or(false),
        };
        let mut head = self.response_head(200, "text/event-stream; charset=utf-8");
        if short {
            head = head.length(1 << 40);
        } else if framing.chunked {
            head = head.chunked();
        }
        let mut out = self.output(conn, entry, framing);
        out.entry.status = 200;
        out.raw(&head.bytes());
        out.note(|sent| sent.head = true);
        let after = stream::play(&mut out, job).await?;
        Ok(match after {
            // Without chunks only the close ends the body.
            After::KeepAlive if !framing.chunked => After::Close,
            after => after,
        })
    }

    async fn whole(
        &mut self,
        conn: &mut Conn,
        entry: &mut Entry,
        job: &Job,
    ) -> Result<After, PeerGone> {
        match whole::wait(conn, entry, job, &mut self.rng).await? {
            whole::Due::Left => return Ok(After::Close),
            whole::Due::Body => {}
            whole::Due::Error { status, body } => {
                return self.refuse(conn, entry, status, &body).await;
            }
        }
        let head = self.response_head(200, "application/json");
        let framing = Framing {
            chunked: false,
            crlf: false,
        };
        let mut out = self.output(conn, entry, framing);
        out.entry.status = 200;
        whole::send(&mut out, head, job).await
    }

    fn output<'o>(
        &mut self,
        conn: &'o mut Conn,
        entry: &'o mut Entry,
        framing: Framing,
    ) -> Output<'o> {
        let split = self.behaviour.split.unwrap_or(Split::Frame);
        let keepalive = self
            .behaviour
            .keepalive_comment_ms
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis);
        // A generator of its own: the output outlives this borrow.
        let rng = StdRng::seed_from_u64(self.rng.random());
        Output::new(conn, entry, rng, framing, split, keepalive)
    }

    async fn refuse(
        &mut self,
        conn: &mut Conn,
        entry: &mut Entry,
        status: u16,
        body: &[u8],
    ) -> Result<After, PeerGone> {
        let head = self
            .response_head(status, "application/json")
            .length(body.len() as u64);
        let framing = Framing {
            chunked: false,
            crlf: false,
        };
        let mut out = self.output(conn, entry, framing);
        out.entry.status = status;
        out.entry.end = TruthEnd::HttpError;
        out.raw(&head.bytes());
        out.note(|sent| sent.head = true);
        out.raw(body);
        out.flush().await?;
        Ok(if self.closes() {
            After::Close
        } else {
            After::KeepAlive
        })
    }
}
