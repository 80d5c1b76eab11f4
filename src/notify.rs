//! What systemd is told of a unit with `Type=notify`: ready, alive, stopping. Without its socket in the environment, as
//! everywhere else, nothing is said.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::drain::{Drain, Stage};

/// The ports are open: says so, then that this thread still runs (with `WatchdogSec=`), then that the end has begun. It
/// is the thread that hears signals; a worker that hangs is not seen from here. Never returns.
pub(crate) async fn systemd(drain: Drain) {
    say(&[NotifyState::Ready]);
    tokio::join!(stopping(drain), alive(sd_notify::watchdog_enabled()));
}

async fn stopping(mut drain: Drain) {
    drain.reached(Stage::Leaving).await;
    say(&[NotifyState::Stopping]);
    std::future::pending::<()>().await;
}

/// Twice within the interval, as sd_watchdog_enabled(3) has it. During the drain too, which may take longer than it.
async fn alive(within: Option<Duration>) {
    let Some(within) = within else {
        return;
    };
    let mut tick = tokio::time::interval((within / 2).max(Duration::from_millis(1)));
    loop {
        tick.tick().await;
        say(&[NotifyState::Watchdog]);
    }
}

/// Never blocks for long: systemd reads its socket, or is in a state in which nothing helps. What it does not hear is no
/// reason to stop serving.
fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        let error: io::Error = error;
        tracing::warn!(%error, "systemd was not told {state:?}");
    }
}
