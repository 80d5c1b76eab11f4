//! An exposition for the wire: it is nearly all repetition, and packs to a thirtieth.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Packs, as fast as can be. `None` if that fails, which it cannot: memory is all that it writes to.
#[must_use]
pub fn pack(text: &[u8]) -> Option<Vec<u8>> {
    let room = Vec::with_capacity(text.len() / 16 + 64);
    let mut encoder = GzEncoder::new(room, Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}
