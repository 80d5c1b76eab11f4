//! After a 101: bytes both ways until either end is done. Nothing in between is understood.

use std::io;
use std::time::{Duration, Instant};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};

use crate::gateway::Place;
use crate::outcome::End;
use crate::track::Track;
use crate::upstream::Tunnel;

/// How long the last bytes may take to leave.
const CLOSE: Duration = Duration::from_secs(5);

/// Runs a tunnel to its end. Its request is over when it is.
pub async fn run(
    upgrade: OnUpgrade,
    upstream: Tunnel,
    mut track: Option<Track>,
    place: Option<Box<Place>>,
) {
    let _until_the_end = (place, Cuttable);
    let end = match upgrade.await {
        Ok(client) => relay(client, upstream).await,
        Err(error) => {
            tracing::debug!(%error, "the client left before the tunnel opened");
            End::ClientGone
        }
    };
    if let Some(track) = &mut track {
        track.finish(end, Instant::now());
    }
}

/// Counts a tunnel that a drain's deadline cuts.
struct Cuttable;

impl Drop for Cuttable {
    fn drop(&mut self) {
        crate::listen::cut();
    }
}

/// One end's FIN ends both directions: a WebSocket has no half-open state, and a client that is gone must not keep
/// vLLM listening.
async fn relay(client: Upgraded, upstream: Tunnel) -> End {
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_upstream, mut to_upstream) = split(upstream);
    let (end, result) = tokio::select! {
        result = copy(&mut from_upstream, &mut to_client) => (broken(&result, End::UpstreamCut, End::ClientGone), result),
        result = copy(&mut from_client, &mut to_upstream) => (broken(&result, End::ClientGone, End::UpstreamCut), result),
    };
    tracing::debug!(?result, "a tunnel was closed");
    let close = async { tokio::join!(to_client.shutdown(), to_upstream.shutdown()) };
    if tokio::time::timeout(CLOSE, close).await.is_err() {
        tracing::debug!("a tunnel's end did not take its last bytes");
    }
    end
}

/// Whose fault an error is: reading fails with the reader's reset, writing with a broken pipe.
fn broken(result: &io::Result<u64>, reader: End, writer: End) -> End {
    match result {
        Ok(_) => End::Complete,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => writer,
        Err(_) => reader,
    }
}
