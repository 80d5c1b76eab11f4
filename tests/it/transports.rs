//! The kinds of connection: h2c and TLS from the client; TLS and Unix sockets to upstream; real WebSockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest::sim;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokenglass::config::{TlsFiles, UpstreamUrl};

use crate::support::{Proxy, STREAM, runtime};

/// A certificate for localhost, as files.
struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(
            folder.path().join("key.pem"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        Self { folder }
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.folder.path().join("cert.pem"),
            key: self.folder.path().join("key.pem"),
        }
    }

    fn client(&self, alpn: &str) -> tokio_rustls::TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.files().cert).unwrap())
            .unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        tokio_rustls::TlsConnector::from(Arc::new(config))
    }

    fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(self.files().cert).unwrap()],
            PrivateKeyDer::from_pem_file(self.files().key).unwrap(),
        )
        .unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}

fn stream_request(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(STREAM.as_bytes())))
        .unwrap()
}

fn check(body: &[u8]) {
    let text = std::str::from_utf8(body).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(text.matches("data: ").count() >= 10, "{text}");
}

#[test]
fn h2c_with_many_streams_on_one_connection() {
    let runtime = runtime();
    runtime.block_on(async {
        let sim = sim::Server::start(sim::Config::default()).unwrap();
        let proxy = Proxy::start(sim.addr());
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http::<Full<Bytes>>();
        let uri = format!("http://{}/v1/chat/completions", proxy.addr());
        let answers = (0..50).map(|_| {
            let (client, request) = (client.clone(), stream_request(&uri));
            tokio::spawn(async move {
                let response = client.request(request).await.unwrap();
                assert_eq!(response.version(), Version::HTTP_2);
                assert_eq!(
                    response.headers()["content-type"],
                    "text/event-stream; charset=utf-8"
                );
                assert!(!response.headers().contains_key("transfer-encoding"));
                check(&response.into_body().collect().await.unwrap().to_bytes());
            })
        });
        for answer in answers.collect::<Vec<_>>() {
            answer.await.unwrap();
        }
        let metrics = proxy.wait_metrics("50 successes", |m| m.outcomes().0 == 50);
        assert_eq!(metrics.outcomes(), (50, 0, 0));
        assert_eq!(metrics.sum("vllm_requests_in_flight", &[]), 0.0);
    });
}

#[test]
fn h2c_client_that_resets_its_stream_is_a_cancel() {
    let runtime = runtime();
    runtime.block_on(async {
        let sim = sim::Server::start(sim::Config {
            behaviour: sim::Behaviour {
                itl_ms: Some(20.0.into()),
                output_tokens: Some(500.0.into()),
                ..Default::default()
            },
            ..Default::default()
        })
        .unwrap();
        let proxy = Proxy::start(sim.addr());
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http::<Full<Bytes>>();
        let mut request = stream_request(&format!("http://{}/v1/chat/completions", proxy.addr()));
        *request.body_mut() = Full::new(Bytes::from(
            STREAM.replace("\"max_tokens\":8", "\"max_tokens\":500"),
        ));
        let mut body = client.request(request).await.unwrap().into_body();
        for _ in 0..4 {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        proxy.wait_metrics("cancelled", |m| {
            m.count("vllm_request_cancelled_total", &[r#"phase="streaming""#]) == 1
        });
        assert!(sim.truth().wait_for(1, Duration::from_secs(5)).await);
        assert_eq!(sim.truth().entries()[0].end, sim::TruthEnd::ClientGone);
    });
}

#[test]
fn tls_with_alpn() {
    let runtime = runtime();
    let certificate = Certificate::new();
    runtime.block_on(async {
        let sim = sim::Server::start(sim::Config::default()).unwrap();
        let proxy = Proxy::with(sim.addr(), |config| {
            config.server.tls = Some(certificate.files())
        });
        for alpn in ["h2", "http/1.1"] {
            let tcp = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let tls = certificate.client(alpn).connect(name, tcp).await.unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
            let body = if alpn == "h2" {
                let (mut send, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
                        .await
                        .unwrap();
                tokio::spawn(connection);
                let request = stream_request("https://localhost/v1/chat/completions");
                send.send_request(request)
                    .await
                    .unwrap()
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
            } else {
                let (mut send, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(tls))
                        .await
                        .unwrap();
                tokio::spawn(connection);
                let mut request = stream_request("/v1/chat/completions");
                request
                    .headers_mut()
                    .insert("host", "localhost".parse().unwrap());
                send.send_request(request)
                    .await
                    .unwrap()
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
            };
            check(&body.to_bytes());
        }
    });
}

/// A TLS front before the simulator: what an https upstream is.
async fn tls_front(certificate: &Certificate, to: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = certificate.acceptor();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut plain = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    addr
}

async fn through(proxy: &Proxy) -> (u16, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let uri = format!("http://{}/v1/chat/completions", proxy.addr());
    let response = client.request(stream_request(&uri)).await.unwrap();
    let status = response.status().as_u16();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

#[test]
fn https_upstream_by_its_ca_and_refused_without() {
    let runtime = runtime();
    let certificate = Certificate::new();
    runtime.block_on(async {
        let sim = sim::Server::start(sim::Config::default()).unwrap();
        let front = tls_front(&certificate, sim.addr()).await;
        let url = UpstreamUrl::Https {
            host: "localhost".to_owned(),
            port: front.port(),
        };
        let trusted = Proxy::with(front, |config| {
            config.upstream.urls = vec![url.clone()];
            config.upstream.ca_file = Some(certificate.files().cert);
        });
        for _ in 0..3 {
            let (status, body) = through(&trusted).await;
            assert_eq!(status, 200);
            check(&body);
        }
        assert_eq!(sim.connections_seen(), 1, "the TLS connection is pooled");
        let stranger = Certificate::new();
        let untrusted = Proxy::with(front, |config| {
            config.upstream.urls = vec![url];
            config.upstream.ca_file = Some(stranger.files().cert);
        });
        let (status, body) = through(&untrusted).await;
        assert_eq!(status, 502, "{body:?}");
        assert_eq!(
            untrusted.metrics().count(
                "vllm_request_error_total",
                &[r#"error_type="upstream_connect""#]
            ),
            1
        );
    });
}

#[test]
fn unix_upstream() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vllm.sock");
    runtime.block_on(async {
        let sim = sim::Server::start(sim::Config {
            listen: sim::Listen::Unix(path.clone()),
            ..Default::default()
        })
        .unwrap();
        let proxy = Proxy::with(([127, 0, 0, 1], 9).into(), |config| {
            config.upstream.urls = vec![UpstreamUrl::Unix { path: path.clone() }];
        });
        let (status, body) = through(&proxy).await;
        assert_eq!(status, 200);
        check(&body);
        drop(sim);
    });
}

#[test]
fn a_real_websocket_client() {
    use tokio_tungstenite::tungstenite::Message;
    let runtime = runtime();
    runtime.block_on(async {
        let sim = sim::Server::start(sim::Config::default()).unwrap();
        let proxy = Proxy::start(sim.addr());
        let url = format!("ws://{}/v1/realtime", proxy.addr());
        let tcp = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
        let (socket, response) = tokio_tungstenite::client_async(url, tcp).await.unwrap();
        assert_eq!(response.status(), 101);
        let (mut sink, mut source) = futures_util::StreamExt::split(socket);
        for text in ["one", "two", &"three".repeat(50_000)] {
            futures_util::SinkExt::send(&mut sink, Message::text(text))
                .await
                .unwrap();
            let echo = futures_util::StreamExt::next(&mut source)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(echo.into_text().unwrap(), text);
        }
        assert_eq!(proxy.metrics().outcomes(), (0, 0, 0), "not over yet");
        drop((sink, source));
        proxy.wait_metrics("one connection, over", |m| {
            m.count("vllm_request_success_total", &[r#"endpoint="realtime""#])
                + m.count("vllm_request_cancelled_total", &[r#"endpoint="realtime""#])
                + m.count("vllm_request_error_total", &[r#"endpoint="realtime""#])
                == 1
        });
    });
}
