//! The response head, as far as measuring needs it.

/// What the response head said.
#[derive(Clone, Debug)]
pub struct HeadFacts<'a> {
    /// Status code.
    pub status: u16,
    /// `content-type`.
    pub content_type: Option<&'a [u8]>,
    /// `content-encoding`.
    pub content_encoding: Option<&'a [u8]>,
}

// === impl HeadFacts ===

impl HeadFacts<'_> {
    /// The body is a stream of events.
    pub(crate) fn is_event_stream(&self) -> bool {
        self.media()
            .is_some_and(|media| media.eq_ignore_ascii_case(b"text/event-stream"))
    }

    /// Nothing is said that speaks against JSON.
    pub(crate) fn may_be_json(&self) -> bool {
        self.media().is_none_or(|media| {
            let end = media.len().saturating_sub(4);
            let end = media.get(end..).unwrap_or_default();
            media.is_empty() || end.eq_ignore_ascii_case(b"json")
        })
    }

    /// The body is compressed.
    pub(crate) fn is_encoded(&self) -> bool {
        let encoding = self.content_encoding.unwrap_or_default().trim_ascii();
        !(encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity"))
    }

    fn media(&self) -> Option<&[u8]> {
        let content_type = self.content_type?;
        let media = content_type.split(|byte| *byte == b';').next();
        Some(media.unwrap_or_default().trim_ascii())
    }
}
