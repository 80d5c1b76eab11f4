//! Tests that measure time, or that load the machine, take turns: side by side they would measure each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Waits for its turn, which lasts until the guard is dropped. A test that failed in its turn does not fail the others.
pub fn take() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
