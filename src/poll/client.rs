//! One GET, within a time and a size.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};

use crate::config::{self, Secret, UpstreamUrl};
use crate::upstream::{Connector, Error, Events, Informational, Upstream};

/// Asks one upstream.
#[derive(Debug)]
pub struct Client {
    upstream: Rc<Upstream>,
    host: HeaderValue,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not reached, or broken off.
    #[error(transparent)]
    Upstream(#[from] Error),
    /// No answer in time, or not all of it.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Longer than anybody wants to read.
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
    /// The path or key cannot be sent.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// The answer's body broke off.
    #[error("the answer broke off: {0}")]
    Body(String),
}

impl Client {
    /// Asks what `connector` leads to.
    #[must_use]
    pub fn new(connector: Connector, settings: &config::Upstream) -> Self {
        let upstream = Upstream::new(connector, settings);
        let host = match upstream.url() {
            UpstreamUrl::Http { host, port } | UpstreamUrl::Https { host, port } => {
                let colon = host.contains(':');
                let host = if colon {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                };
                HeaderValue::try_from(host).ok()
            }
            UpstreamUrl::Unix { .. } => None,
        };
        Self {
            upstream,
            host: host.unwrap_or(HeaderValue::from_static("localhost")),
        }
    }

    /// Where it asks.
    #[must_use]
    pub fn url(&self) -> &UpstreamUrl {
        self.upstream.url()
    }

    /// `GET path`: the whole answer within `limit` and `max_bytes`.
    ///
    /// # Errors
    /// [`ProbeError`]; a status that says no is an answer.
    pub async fn get(
        &self,
        path: &'static str,
        accept: &'static str,
        key: Option<&Secret>,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<Reply, ProbeError> {
        let mut request = Request::get(path)
            .header(HOST, &self.host)
            .header(
                USER_AGENT,
                concat!("tokenglass/", env!("CARGO_PKG_VERSION")),
            )
            .header(ACCEPT, accept);
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose()));
        }
        let request = request.body(Empty::<Bytes>::new())?;
        match tokio::time::timeout(limit, self.exchange(request, max_bytes)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ProbeError::Timeout(limit)),
        }
    }

    async fn exchange(
        &self,
        request: Request<Empty<Bytes>>,
        max_bytes: usize,
    ) -> Result<Reply, ProbeError> {
        let pooled = self.upstream.has_idle();
        let answer = match self.upstream.send(request.clone(), &mut Ignore).await {
            // A server may have dropped the pooled connection just now, or some time ago without a word. That says nothing
            // of how it is, and to ask twice does nothing twice. The others of the pool are no better.
            Err(Error::ClosedBeforeHead { .. } | Error::BrokenBeforeHead { .. }) if pooled => {
                self.upstream.close_idle();
                self.upstream.send(request, &mut Ignore).await?
            }
            other => other?,
        };
        let mut body = std::pin::pin!(answer.body);
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ProbeError::Body(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len().saturating_add(data.len()) > max_bytes {
                    return Err(ProbeError::TooLong(max_bytes));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(Reply {
            status: answer.head.status,
            headers: answer.head.headers,
            body: bytes.freeze(),
        })
    }
}

/// Interim responses are nobody's business here.
struct Ignore;

impl Events for Ignore {
    fn informational(&mut self, _head: &Informational) {}
}
