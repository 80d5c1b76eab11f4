//! The dialects whose events have a type: the Responses API and Anthropic's messages.
//!
//! Both always carry usage, and neither ends in `[DONE]`: the type of the last event is the terminal.

use serde::Deserialize;

use crate::record::FinishReason;

use super::json::{Object, Reason, Text};
use super::progress::{Piece, Progress};
use super::template::Changing;
use super::wire::{EngineMetrics, ErrorBody, ErrorField, Usage};
use super::{error, quick};

/// An event of a Responses stream. A delta that is no string (an annotation, a log probability) is no output.
#[derive(Debug, Default, Deserialize)]
struct ResponsesEvent<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default, borrow)]
    delta: Text<'a>,
    #[serde(default, borrow)]
    response: Object<Response<'a>>,
}

/// A response: the last event's field, or the whole body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    incomplete_details: Object<Incomplete<'a>>,
    usage: Object<Usage>,
    metrics: Object<EngineMetrics>,
    #[serde(borrow)]
    error: ErrorField<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Incomplete<'a> {
    #[serde(borrow)]
    reason: Text<'a>,
}

/// An event of a messages stream.
#[derive(Debug, Default, Deserialize)]
struct MessagesEvent<'a> {
    #[serde(default, borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(default, borrow)]
    message: Object<Message<'a>>,
    #[serde(default, borrow)]
    delta: Object<BlockDelta<'a>>,
    #[serde(default)]
    usage: Object<Usage>,
}

/// A message: the first event's field, or the whole body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    stop_reason: Reason,
    usage: Object<Usage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockDelta<'a> {
    #[serde(borrow)]
    text: Text<'a>,
    #[serde(borrow)]
    thinking: Text<'a>,
    #[serde(borrow)]
    partial_json: Text<'a>,
    stop_reason: Reason,
}

/// Reads one event of a Responses stream.
pub(crate) fn read_response_event(
    name: &[u8],
    data: &str,
    progress: &mut Progress,
) -> serde_json::Result<()> {
    let event: ResponsesEvent<'_> = quick::from_str(data)?;
    let kind = if event.kind.is_empty() {
        name
    } else {
        event.kind.as_bytes()
    };
    if kind.ends_with(b".delta") {
        let reasoning = memchr::memmem::find(kind, b"reasoning").is_some();
        let piece = report(progress, &event.delta, reasoning);
        if !event.kind.is_empty() && !event.delta.is_empty() {
            progress.template(data, &event.delta, piece, Changing::Sequence);
        }
        return Ok(());
    }
    match kind {
        b"error" | b"response.failed" => fail(data, event.response.0, progress),
        b"response.completed" | b"response.incomplete" => {
            if let Some(response) = event.response.0 {
                response.report(progress);
            }
            progress.done = true;
            Ok(())
        }
        _ => {
            if let Some(response) = event.response.0 {
                progress.model(&response.model);
            }
            Ok(())
        }
    }
}

/// Reads one event of a messages stream.
pub(crate) fn read_message_event(
    name: &[u8],
    data: &str,
    progress: &mut Progress,
) -> serde_json::Result<()> {
    let event: MessagesEvent<'_> = quick::from_str(data)?;
    let kind = if event.kind.is_empty() {
        name
    } else {
        event.kind.as_bytes()
    };
    match kind {
        b"message_start" => {
            if let Some(message) = event.message.0 {
                progress.model(&message.model);
                // Its output count is 0 and stays so: no continuous usage.
                if let Some(usage) = message.usage.0 {
                    progress.usage_of_prompt(&usage);
                }
            }
        }
        b"content_block_delta" => {
            if let Some(delta) = event.delta.0 {
                let thinking = !delta.thinking.is_empty();
                let text = [&delta.thinking, &delta.text, &delta.partial_json]
                    .into_iter()
                    .find(|text| !text.is_empty());
                let text = text.map_or("", |text| text);
                let piece = report(progress, text, thinking);
                if !event.kind.is_empty() && !text.is_empty() {
                    progress.template(data, text, piece, Changing::Text);
                }
            }
        }
        b"message_delta" => {
            if let Some(reason) = event.delta.0.and_then(|delta| delta.stop_reason.0) {
                progress.finished(0, reason);
            }
            if let Some(usage) = event.usage.0 {
                progress.usage(&usage);
            }
        }
        b"message_stop" => progress.done = true,
        b"error" => fail(data, None, progress)?,
        _ => {}
    }
    Ok(())
}

/// Reads a whole body of the Responses API.
pub(crate) fn read_response_body(body: &[u8], progress: &mut Progress) -> serde_json::Result<()> {
    quick::from_slice::<Response<'_>>(body)?.report(progress);
    Ok(())
}

/// Reads a whole message.
pub(crate) fn read_message_body(body: &[u8], progress: &mut Progress) -> serde_json::Result<()> {
    let message: Message<'_> = quick::from_slice(body)?;
    progress.model(&message.model);
    if let Some(reason) = message.stop_reason.0 {
        progress.finished(0, reason);
    }
    if let Some(usage) = message.usage.0 {
        progress.usage(&usage);
    }
    Ok(())
}

fn report(progress: &mut Progress, text: &str, reasoning: bool) -> Piece {
    let some = !text.is_empty();
    let piece = Piece {
        index: 0,
        reasoning: some && reasoning,
        answer: some && !reasoning,
        ids: None,
    };
    if progress.piece(piece) {
        progress.keep(0, text);
    }
    piece
}

fn fail(
    data: &str,
    response: Option<Response<'_>>,
    progress: &mut Progress,
) -> serde_json::Result<()> {
    let inner = response.and_then(|response| response.error.info());
    let info = match inner {
        Some(info) => info,
        None => quick::from_str::<ErrorBody<'_>>(data)?.assumed(),
    };
    progress.fail(error::of_frame(&info));
    Ok(())
}

// === impl Response ===

impl Response<'_> {
    fn report(self, progress: &mut Progress) {
        progress.model(&self.model);
        let reason = match &*self.status {
            "completed" => Some(FinishReason::Stop),
            "incomplete" => {
                let details = self.incomplete_details.0.unwrap_or_default();
                Some(match &*details.reason {
                    "max_output_tokens" => FinishReason::Length,
                    word => FinishReason::from_wire(word),
                })
            }
            _ => None,
        };
        if let Some(reason) = reason {
            progress.finished(0, reason);
        }
        if let Some(usage) = self.usage.0 {
            progress.usage(&usage);
        }
        if let Some(metrics) = self.metrics.0 {
            progress.engine(&metrics);
        }
    }
}
