//! Playing a stream: frames when they are due, and the fault in its place.

use std::time::{Duration, Instant};

use super::bodies::{error_event, error_message, error_type};
use super::frames::{Frames, Span};
use super::job::{Job, millis};
use super::output::Output;
use super::truth::TruthEnd;
use super::{After, Fault};
use crate::http1::PeerGone;

/// Plays `job` behind a head that lies in `out` already.
pub(crate) async fn play(out: &mut Output<'_>, job: &Job) -> Result<After, PeerGone> {
    let mut player = Player {
        frames: Frames::new(job),
        job,
        json: Vec::with_capacity(512),
        sent: 0,
        struck: false,
        delay: Duration::ZERO,
    };
    player.play(out).await
}

struct Player<'a> {
    job: &'a Job,
    frames: Frames<'a>,
    json: Vec<u8>,
    /// Token frames so far.
    sent: u32,
    struck: bool,
    /// What a stall has cost.
    delay: Duration,
}

// === impl Player ===

impl Player<'_> {
    async fn play(&mut self, out: &mut Output<'_>) -> Result<After, PeerGone> {
        out.frame_end().await?;
        let job = self.job;
        if let Some(after) = self.strike_if_due(out).await? {
            return Ok(after);
        }
        let mut due = out.entry.received + job.ttft;
        out.wait_until(due + self.delay).await?;
        if job.chat {
            for choice in 0..job.n {
                self.json.clear();
                self.frames.role(&mut self.json, choice);
                out.event(&self.json);
                out.frame_end().await?;
            }
        }
        let mut from = 0;
        while from < job.tokens {
            if from > 0 {
                due += millis(job.itl.sample(&mut out.rng));
                out.wait_until(due + self.delay).await?;
            }
            let to = self.span_end(from);
            for choice in 0..job.n {
                if let Some(after) = self.strike_if_due(out).await? {
                    return Ok(after);
                }
                self.token_frame(out, choice, from, to).await?;
            }
            from = to;
        }
        self.end(out).await
    }

    /// A frame holds tokens of one kind only.
    fn span_end(&self, from: u32) -> u32 {
        let job = self.job;
        let to = from.saturating_add(job.per_frame).min(job.tokens);
        if from < job.reasoning {
            to.min(job.reasoning)
        } else if job.tool && from == job.reasoning {
            from + 1
        } else {
            to
        }
    }

    async fn token_frame(
        &mut self,
        out: &mut Output<'_>,
        choice: u32,
        from: u32,
        to: u32,
    ) -> Result<(), PeerGone> {
        let finish = to == self.job.tokens && self.finish_rides_along();
        self.json.clear();
        let span = Span {
            choice,
            from,
            to,
            finish,
        };
        self.frames.tokens(&mut self.json, span);
        out.event(&self.json);
        self.sent += 1;
        let reasoning = from < self.job.reasoning;
        out.note(|sent| {
            sent.token_frames += 1;
            sent.tokens += to - from;
            if reasoning {
                sent.reasoning += to - from;
            }
            if finish {
                sent.finish.push(self.job.finish.clone());
            }
        });
        out.frame_end().await
    }

    /// vLLM puts the finish reason on the last token frame, but after a tool call in a frame of its own.
    fn finish_rides_along(&self) -> bool {
        let withheld = matches!(self.job.fault, Some(Fault::CutNoDone { .. }));
        let alone = self.job.tool && self.job.finish == "tool_calls";
        !(withheld || alone)
    }

    async fn end(&mut self, out: &mut Output<'_>) -> Result<After, PeerGone> {
        // A fault that lies behind the last token frame still happens, before the terminal frames.
        if let Some(after) = self.strike(out).await? {
            return Ok(after);
        }
        let job = self.job;
        if job.tokens == 0 || !self.finish_rides_along() {
            for choice in 0..job.n {
                self.json.clear();
                self.frames.finish(&mut self.json, choice);
                out.event(&self.json);
                out.note(|sent| sent.finish.push(job.finish.clone()));
                out.frame_end().await?;
            }
        }
        if job.usage_final {
            self.json.clear();
            self.frames.usage(&mut self.json);
            out.event(&self.json);
            out.note(|sent| sent.usage = true);
            out.frame_end().await?;
        }
        self.done(out, TruthEnd::Complete).await
    }

    async fn done(&mut self, out: &mut Output<'_>, end: TruthEnd) -> Result<After, PeerGone> {
        out.event(b"[DONE]");
        out.frame_end().await?;
        if self.job.fault == Some(Fault::ShortBody) {
            out.flush().await?;
            out.entry.end = TruthEnd::Cut;
            return Ok(After::Close);
        }
        out.last_chunk();
        out.flush().await?;
        out.entry.end = end;
        Ok(if self.job.fault == Some(Fault::IdleCloseRace) {
            After::CloseOnNextByte
        } else {
            After::KeepAlive
        })
    }

    async fn strike_if_due(&mut self, out: &mut Output<'_>) -> Result<Option<After>, PeerGone> {
        let at = self.job.fault.as_ref().and_then(Fault::strikes_after);
        if at == Some(self.sent) {
            self.strike(out).await
        } else {
            Ok(None)
        }
    }

    /// Plays the fault, once. `None`: the stream goes on.
    async fn strike(&mut self, out: &mut Output<'_>) -> Result<Option<After>, PeerGone> {
        let Some(fault) = &self.job.fault else {
            return Ok(None);
        };
        if std::mem::replace(&mut self.struck, true) {
            return Ok(None);
        }
        out.entry.end = TruthEnd::Cut;
        let after = match fault {
            Fault::ErrorFrame {
                message,
                error_type: kind,
                code,
                ..
            } => {
                let code = code.unwrap_or(500);
                let kind = kind.as_deref().unwrap_or(error_type(code));
                let message = message.as_deref().unwrap_or(error_message(code));
                out.event(error_event(kind, message, code).as_bytes());
                out.frame_end().await?;
                return self.done(out, TruthEnd::ErrorFrame).await.map(Some);
            }
            Fault::CutMidFrame { .. } => {
                self.json.clear();
                let span = Span {
                    choice: 0,
                    from: self.job.tokens,
                    to: self.job.tokens.saturating_add(1),
                    finish: false,
                };
                self.frames.tokens(&mut self.json, span);
                out.half_event(&self.json);
                After::Close
            }
            Fault::CutNoDone { .. } => {
                out.last_chunk();
                After::KeepAlive
            }
            Fault::Truncate { .. } => After::Close,
            Fault::BadChunk { .. } => {
                out.raw(b"xyzzy\r\ndata: {}\n\n\r\n");
                After::Close
            }
            Fault::Reset { after: Some(_) } => {
                out.flush().await?;
                out.entry.end = TruthEnd::Reset;
                return Ok(Some(After::Reset));
            }
            Fault::Stall { ms, .. } => return self.stall(out, *ms).await,
            Fault::None
            | Fault::Http { .. }
            | Fault::Reset { after: None }
            | Fault::SlowHead { .. }
            | Fault::CloseBeforeHead
            | Fault::IdleCloseRace
            | Fault::ShortBody => return Ok(None),
        };
        out.flush().await?;
        Ok(Some(after))
    }

    async fn stall(
        &mut self,
        out: &mut Output<'_>,
        ms: Option<u64>,
    ) -> Result<Option<After>, PeerGone> {
        out.flush().await?;
        let gone = match ms {
            Some(ms) => {
                let pause = Duration::from_millis(ms);
                self.delay += pause;
                out.conn.wait_until(Instant::now() + pause).await.err()
            }
            None => Some(out.conn.gone().await),
        };
        if gone.is_none() {
            return Ok(None);
        }
        out.entry.client_gone_at = Some(Instant::now());
        out.entry.end = TruthEnd::Stalled;
        Ok(Some(After::Close))
    }
}
