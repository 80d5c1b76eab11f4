//! `GET /metrics`. Rendering takes a while, most of which it sleeps, so it has a thread of its own.

use std::panic;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;

use super::plain;
use crate::exposition::{self, Exposition, Format};

/// What a scraper asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scrape {
    format: Format,
    packed: bool,
}

impl Scrape {
    pub(super) fn asked(headers: &HeaderMap) -> Self {
        Self {
            format: exposition::format(headers),
            packed: exposition::takes_gzip(headers),
        }
    }

    pub(super) async fn answer(self, exposition: Arc<Exposition>) -> Response<Full<Bytes>> {
        let Self { format, packed } = self;
        let rendering = tokio::task::spawn_blocking(move || {
            if packed {
                exposition.render_packed(format)
            } else {
                exposition.render(format)
            }
        });
        let body = match rendering.await {
            Ok(body) => body,
            Err(error) => match error.try_into_panic() {
                // The layer above makes it a 500.
                Ok(panic) => panic::resume_unwind(panic),
                Err(_the_end) => {
                    return plain(StatusCode::SERVICE_UNAVAILABLE, super::TEXT, "the end\n");
                }
            },
        };
        let mut response = plain(StatusCode::OK, format.content_type(), body);
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}
