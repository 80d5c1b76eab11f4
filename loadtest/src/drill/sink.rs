//! The receivers of Alertmanager, each a path of one server here; and the series that no child can be made to have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::http1::{Conn, PeerGone, RequestHead};
use crate::net::{Listen, Listener};

/// The labels of an alert.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a receiver was told of one alert.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) receiver: String,
    pub(crate) firing: bool,
    pub(crate) labels: Labels,
    pub(crate) at: Instant,
}

/// Counters of the exposition that the drill serves itself.
#[derive(Debug, Default)]
pub(crate) struct Played {
    /// As kube-state-metrics counts them.
    pub(crate) restarts: AtomicU64,
    /// A bug in tokenglass's observer, which nobody knows how to cause.
    pub(crate) panics: AtomicU64,
    /// Of the admission webhook, as is what follows.
    pub(crate) bad_certificates: AtomicU64,
    /// It answers no scrape.
    pub(crate) injector_silent: AtomicBool,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Sink {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    notes: Mutex<Vec<Note>>,
    played: Played,
}

/// The path of the exposition.
pub(crate) const EXPOSITION: &str = "/exposition";
/// That of the admission webhook.
pub(crate) const INJECTOR: &str = "/injector";

// === impl Sink ===

impl Sink {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let any = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = Listener::bind(&any, false)?;
        let addr = listener.addr().unwrap_or(([127, 0, 0, 1], 0).into());
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let conn = Conn::new(listener.accept().await);
                tokio::spawn(serve(conn, Arc::clone(&served)));
            }
        });
        Ok(Self { addr, shared, task })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn played(&self) -> &Played {
        &self.shared.played
    }

    /// All that has been told so far.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let notes = self.shared.notes.lock();
        notes.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut conn: Conn, shared: Arc<Shared>) {
    while exchange(&mut conn, &shared).await.is_ok() {}
}

async fn exchange(conn: &mut Conn, shared: &Shared) -> Result<(), PeerGone> {
    let head = loop {
        if let Ok(Some((head, len))) = RequestHead::parse(&conn.buf) {
            conn.buf.drain(..len);
            break head;
        }
        conn.fill().await?;
    };
    let mut body = Vec::new();
    conn.read_body(head.body_kind(), &mut body).await?;
    let mut status = "200 OK";
    let answer = if head.path == EXPOSITION {
        shared.played.render()
    } else if head.path == INJECTOR {
        if shared.played.injector_silent.load(Ordering::Relaxed) {
            status = "503 Service Unavailable";
        }
        shared.played.injector()
    } else {
        let receiver = head.path.trim_start_matches('/');
        let document = serde_json::from_slice(&body).unwrap_or_default();
        let mut notes = shared.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.extend(told(receiver, &document));
        String::new()
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    conn.write_all((head + &answer).as_bytes()).await
}

/// The alerts of Alertmanager's webhook.
fn told(receiver: &str, document: &Value) -> Vec<Note> {
    let alerts = document["alerts"].as_array().into_iter().flatten();
    let notes = alerts.map(|alert| Note {
        receiver: receiver.to_owned(),
        firing: alert["status"] == "firing",
        labels: labels(&alert["labels"]),
        at: Instant::now(),
    });
    notes.collect()
}

/// An object of strings.
pub(crate) fn labels(object: &Value) -> Labels {
    let pairs = object.as_object().into_iter().flatten();
    pairs
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

// === impl Played ===

impl Played {
    fn render(&self) -> String {
        format!(
            concat!(
                "# TYPE kube_pod_container_status_restarts_total counter\n",
                "kube_pod_container_status_restarts_total{{namespace=\"drill\",pod=\"drill-vllm-0\",container=\"vllm\"}} {}\n",
                "# TYPE tokenglass_observer_faults_total counter\n",
                "tokenglass_observer_faults_total{{instance=\"drill\",reason=\"panic\"}} {}\n",
            ),
            self.restarts.load(Ordering::Relaxed),
            self.panics.load(Ordering::Relaxed),
        )
    }

    fn injector(&self) -> String {
        format!(
            concat!(
                "# TYPE tokenglass_webhook_certificate_reloads_total counter\n",
                "tokenglass_webhook_certificate_reloads_total{{instance=\"drill\",result=\"failure\"}} {}\n",
            ),
            self.bad_certificates.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_read() {
        let document = serde_json::json!({"receiver": "default", "status": "firing", "alerts": [
            {"status": "firing", "labels": {"alertname": "A", "model": "m"}},
            {"status": "resolved", "labels": {"alertname": "A", "model": "n"}},
        ]});
        let notes = told("default", &document);
        assert_eq!(notes.len(), 2);
        assert!(notes[0].firing && !notes[1].firing);
        assert_eq!(notes[1].labels["model"], "n");
        assert!(told("default", &Value::Null).is_empty());
    }
}
