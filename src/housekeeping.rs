//! What must be done now and then: series that nobody uses are dropped, the tenant table is read again when it changes.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Metrics;

/// How often the tenant table is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Runs for as long as it is polled. Never returns.
pub(crate) async fn run(metrics: Arc<Metrics>, expire_after: Option<Duration>) {
    tokio::join!(expire(&metrics, expire_after), reload(&metrics));
    std::future::pending::<()>().await;
}

async fn expire(metrics: &Metrics, after: Option<Duration>) {
    let Some(after) = after else {
        return;
    };
    // A series lives at most a quarter longer than it should.
    let mut tick = tokio::time::interval(
        (after / 4).clamp(Duration::from_millis(50), Duration::from_secs(60)),
    );
    loop {
        tick.tick().await;
        let gone = metrics.expire(after).len();
        if gone > 0 {
            tracing::debug!(series = gone, "series that nobody has used were dropped");
        }
    }
}

async fn reload(metrics: &Metrics) {
    let tenants = &metrics.tenants;
    let Some(file) = tenants.map_file() else {
        return;
    };
    let mut seen = std::fs::read(file).ok();
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let now = std::fs::read(file).ok();
        // A file that is being replaced may be missing for a moment.
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        let result = match tenants.reload() {
            Ok(()) => {
                tracing::info!("tenant table reloaded");
                "success"
            }
            Err(error) => {
                tracing::error!(%error, "tenant table not reloaded; the old one stays in force");
                "failure"
            }
        };
        metrics.reloads.with_label_values(&[result]).inc();
    }
}
