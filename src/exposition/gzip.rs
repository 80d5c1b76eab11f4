//! An exposition for the wire: it is nearly all repetition, and packs to a twentieth.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Packs piece by piece, as fast as can be.
#[derive(Debug)]
pub struct Gzip(GzEncoder<Vec<u8>>);

impl Default for Gzip {
    fn default() -> Self {
        Self(GzEncoder::new(
            Vec::with_capacity(8 * 1024),
            Compression::fast(),
        ))
    }
}

impl Gzip {
    /// One more piece.
    pub fn pack(&mut self, piece: &[u8]) {
        // Memory is all that it writes to.
        let _infallible = self.0.write_all(piece);
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().unwrap_or_default()
    }
}
