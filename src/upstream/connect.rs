//! Opening a connection: TCP with TCP_NODELAY, TLS over it, or a Unix socket.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::stream::Io;
use super::{Error, OpenConnections, Stream};
use crate::alive;
use crate::config::UpstreamUrl;

/// Opens connections to one upstream.
#[derive(Clone)]
pub struct Connector {
    url: UpstreamUrl,
    timeout: Duration,
    ack_timeout: Option<Duration>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    open: OpenConnections,
}

/// Why TLS towards upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA file cannot be read or holds no certificate.
    #[error("cannot read certificates from {path}: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host is neither a DNS name nor an address.
    #[error("{0} is not a name that a certificate can be for")]
    Name(String),
    /// rustls refuses.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl Connector {
    /// A connector for `url`; for https the roots come from `ca_file` or else from the system.
    ///
    /// # Errors
    /// [`TlsError`] for an https upstream whose roots or name cannot be used.
    pub fn new(
        url: UpstreamUrl,
        timeout: Duration,
        ca_file: Option<&Path>,
        open: OpenConnections,
    ) -> Result<Self, TlsError> {
        let tls = match &url {
            UpstreamUrl::Https { host, .. } => {
                let name =
                    ServerName::try_from(host.clone()).map_err(|_| TlsError::Name(host.clone()))?;
                Some((TlsConnector::from(Arc::new(client_config(ca_file)?)), name))
            }
            UpstreamUrl::Http { .. } | UpstreamUrl::Unix { .. } => None,
        };
        Ok(Self {
            url,
            timeout,
            ack_timeout: None,
            tls,
            open,
        })
    }

    /// Its connections break when the other host acknowledges nothing for so long.
    #[must_use]
    pub fn with_ack_timeout(self, ack_timeout: Option<Duration>) -> Self {
        Self {
            ack_timeout,
            ..self
        }
    }

    /// Where they lead.
    #[must_use]
    pub fn url(&self) -> &UpstreamUrl {
        &self.url
    }

    pub(super) async fn connect(&self) -> Result<Stream, Error> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(result) => Ok(Stream::new(result?, self.open.guard())),
            Err(_elapsed) => Err(Error::ConnectTimeout {
                to: self.url.to_string(),
                limit: self.timeout,
            }),
        }
    }

    async fn open(&self) -> Result<Io, Error> {
        let refused = |source| Error::Connect {
            to: self.url.to_string(),
            source,
        };
        let tcp = match &self.url {
            UpstreamUrl::Unix { path } => {
                return UnixStream::connect(path)
                    .await
                    .map(Io::Unix)
                    .map_err(refused);
            }
            UpstreamUrl::Http { host, port } | UpstreamUrl::Https { host, port } => {
                let tcp = connect_tcp(host, *port).await.map_err(refused)?;
                if let Some(limit) = self.ack_timeout {
                    alive::watch(&SockRef::from(&tcp), limit).map_err(refused)?;
                }
                tcp
            }
        };
        let Some((connector, name)) = &self.tls else {
            return Ok(Io::Tcp(tcp));
        };
        match connector.connect(name.clone(), tcp).await {
            Ok(tls) => Ok(Io::Tls(Box::new(tls))),
            Err(source) => Err(Error::Tls {
                to: self.url.to_string(),
                source,
            }),
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Without it a small frame may wait 40 ms for the peer's delayed ACK.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let bad = |reason: String| TlsError::CaFile {
            path: path.display().to_string(),
            reason,
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?;
        for certificate in certificates {
            roots.add(certificate.map_err(|e| bad(e.to_string()))?)?;
        }
        if roots.is_empty() {
            return Err(bad("no certificate in it".to_owned()));
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a system certificate cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
    // vLLM (uvicorn) speaks HTTP/1.1 only, and so does this leg.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
