//! After a 101: bytes both ways until both ends are done. Nothing in between is understood.

use std::time::Instant;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::outcome::End;
use crate::track::Track;
use crate::upstream::Tunnel;

/// Runs a tunnel to its end. Its request is over when it is.
pub async fn run(upgrade: OnUpgrade, mut upstream: Tunnel, mut track: Option<Track>) {
    let end = match upgrade.await {
        Ok(client) => {
            match tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut upstream).await {
                Ok((sent, received)) => {
                    tracing::debug!(sent, received, "a tunnel was closed");
                    End::Complete
                }
                Err(error) => {
                    tracing::debug!(%error, "a tunnel broke");
                    End::UpstreamCut
                }
            }
        }
        Err(error) => {
            tracing::debug!(%error, "the client left before the tunnel opened");
            End::ClientGone
        }
    };
    if let Some(track) = &mut track {
        track.finish(end, Instant::now());
    }
}
