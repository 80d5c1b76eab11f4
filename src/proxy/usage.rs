//! `tokens.usage = "inject"` on the way: the request is held until it is whole and edited, the answer restored as it
//! passes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, request, response};
use http_body_util::BodyExt;

use super::client_body::ClientBody;
use super::guard;
use crate::classify::Endpoint;
use crate::config::{Config, UsageMode};
use crate::inject::{Added, Strip, What, edit};

/// Asks vLLM for usage, where that is configured.
#[derive(Debug)]
pub struct Injection {
    what: What,
    /// Longer bodies are sent as they come.
    limit: usize,
    /// vLLM sends usage whether it is asked or not (`--enable-force-include-usage`): there is nothing to ask for, and
    /// what it sends is the client's. With `continuous` the answers of such a server do not tell.
    forced: Cell<bool>,
}

/// A request body, or the beginning of one, that has been read.
#[derive(Debug, Default)]
pub struct Read {
    /// What has been read, edited if it could be.
    pub front: VecDeque<Bytes>,
    /// There is more to come.
    pub unread: bool,
    /// What the answer is to be rid of.
    pub added: Added,
}

impl Injection {
    /// `None` unless it is on.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        (config.tokens.usage == UsageMode::Inject && config.observe.enabled).then_some(Self {
            what: What {
                continuous: config.tokens.continuous,
            },
            limit: config.observe.max_request_body,
            forced: Cell::new(false),
        })
    }

    /// vLLM was seen to send usage unasked.
    pub fn stop(&self) {
        if !self.forced.replace(true) {
            tracing::info!("vLLM sends usage unasked; requests are no longer edited");
        }
    }

    /// Whether a request is one to be edited, as far as its head tells.
    #[must_use]
    pub fn applies(&self, endpoint: Option<Endpoint>, head: &request::Parts) -> bool {
        matches!(
            endpoint,
            Some(Endpoint::ChatCompletions | Endpoint::Completions)
        ) && !self.forced.get()
            && head.method == Method::POST
            && !head.headers.contains_key(CONTENT_ENCODING)
            && guard::content_length(&head.headers).is_none_or(|length| length <= self.limit as u64)
    }

    /// Reads the body and edits it, if it is whole within the limit and can be edited safely; corrects the length.
    ///
    /// # Errors
    /// What the client's body is refused for, or hyper's if it does not come properly.
    pub async fn read(
        &self,
        headers: &mut HeaderMap,
        body: &mut ClientBody,
    ) -> Result<Read, Box<dyn std::error::Error + Send + Sync>> {
        let mut read = Read::default();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            length += data.len();
            read.front.push_back(data);
            if length > self.limit {
                read.unread = true;
                return Ok(read);
            }
        }
        if read.front.len() > 1 {
            let mut whole = BytesMut::with_capacity(length);
            read.front
                .drain(..)
                .for_each(|data| whole.extend_from_slice(&data));
            read.front.push_back(whole.freeze());
        }
        if let Some(edited) = read.front.front().and_then(|whole| edit(whole, self.what)) {
            read.front = edited
                .pieces()
                .into_iter()
                .filter(|piece| !piece.is_empty())
                .collect();
            read.added = edited.added();
            if headers.contains_key(CONTENT_LENGTH) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(edited.content_length()));
            }
        }
        Ok(read)
    }
}

/// Takes out of an answer what was not asked for.
#[derive(Debug)]
pub struct Restore {
    injection: Rc<Injection>,
    strip: Strip,
    out: Vec<Bytes>,
    ready: VecDeque<Bytes>,
}

impl Restore {
    /// For an answer that can be restored: an uncoded event stream. Its length, should it have one, is not the one that
    /// the client gets.
    #[must_use]
    pub fn new(
        injection: &Rc<Injection>,
        added: Added,
        head: &mut response::Parts,
    ) -> Option<Self> {
        let stream = head.headers.get(CONTENT_TYPE).is_some_and(|value| {
            value
                .as_bytes()
                .to_ascii_lowercase()
                .starts_with(b"text/event-stream")
        });
        if added == Added::default() || !stream || head.headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        head.headers.remove(CONTENT_LENGTH);
        Some(Self {
            injection: Rc::clone(injection),
            strip: Strip::new(added),
            out: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    /// A piece came from upstream.
    pub fn push(&mut self, piece: &Bytes) {
        self.strip.push(piece, &mut self.out);
        self.ready.extend(self.out.drain(..));
    }

    /// Upstream has ended.
    pub fn finish(&mut self) {
        self.strip.finish(&mut self.out);
        if self.strip.saw_unasked_usage() {
            self.injection.stop();
        }
        self.ready.extend(self.out.drain(..));
    }

    /// The next piece for the client.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Whether none is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether the stream was beyond restoring, and passed as it came.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.strip.gave_up()
    }
}
