//! Writing families in either text format.

use std::thread;
use std::time::Duration;

use super::gzip::Gzip;
use super::{help, number};

/// What a scraper asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text exposition 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// A family's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum, count.
    Histogram,
    /// Quantiles, sum, count.
    Summary,
    /// Nobody has said.
    Untyped,
}

impl Kind {
    /// After `# TYPE name` in the text format.
    #[must_use]
    pub const fn in_text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }

    /// Name and type in OpenMetrics of a family that is called `name` in the text format.
    #[must_use]
    pub fn in_open_metrics(self, name: &str) -> (&str, &'static str) {
        match self {
            // OpenMetrics has no counter whose samples do not end in _total.
            Self::Counter => match name.strip_suffix("_total") {
                Some(stem) if !stem.is_empty() => (stem, "counter"),
                _ => (name, "unknown"),
            },
            Self::Untyped => (name, "unknown"),
            Self::Gauge | Self::Histogram | Self::Summary => (name, self.in_text()),
        }
    }

    /// The names that samples of a family called `name` have or could have in the text format.
    pub fn sample_names(self, name: &str) -> impl Iterator<Item = String> + use<> {
        let suffixes: &[&str] = match self {
            Self::Counter | Self::Gauge | Self::Untyped => &[""],
            Self::Histogram => &["", "_bucket", "_sum", "_count"],
            Self::Summary => &["", "_sum", "_count"],
        };
        let name = name.to_owned();
        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
    }
}

/// Text under construction. Families come one after the other, each with all its samples.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    out: Vec<u8>,
    /// A piece is full when so much is in `out`.
    full: usize,
    gzip: Option<Gzip>,
    /// After each piece.
    pause: Duration,
}

/// What is written or packed at once. It stays in the processor's cache, and takes about a tenth of a millisecond.
const PIECE: usize = 16 * 1024;

impl Writer {
    /// An empty text that is about to have so many bytes.
    #[must_use]
    pub fn new(format: Format, about: usize) -> Self {
        Self {
            format,
            out: Vec::with_capacity(about.max(PIECE)),
            full: PIECE,
            gzip: None,
            pause: Duration::ZERO,
        }
    }

    /// An empty text that is packed while it is written.
    #[must_use]
    pub fn packed(format: Format) -> Self {
        Self {
            gzip: Some(Gzip::default()),
            ..Self::new(format, 2 * PIECE)
        }
    }

    /// Sleeps so long after each piece.
    ///
    /// The kernel may let a thread that is at work go on for milliseconds, however nice it is, before one that wakes up gets
    /// its core. So whoever writes megabytes beside the traffic has to step aside by itself.
    #[must_use]
    pub fn pausing(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Which format it is in.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Begins a family. `name` is the one of its samples in the text format: of a counter with `_total`, if it has that.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let (name, kind) = match self.format {
            Format::Text => (name, kind.in_text()),
            Format::OpenMetrics => kind.in_open_metrics(name),
        };
        self.put("# HELP ");
        self.put(name);
        self.put(" ");
        help::escape(help, self.format == Format::OpenMetrics, &mut self.out);
        self.put("\n# TYPE ");
        self.put(name);
        self.put(" ");
        self.put(kind);
        self.put("\n");
    }

    /// One sample. `labels` are written out and escaped, `a="b",c="d"`, or empty.
    pub fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.series(name, labels);
        self.number(value);
    }

    /// [`Writer::sample`] of a whole number.
    pub fn count(&mut self, name: &str, labels: &str, value: u64) {
        self.series(name, labels);
        self.whole(value);
    }

    fn series(&mut self, name: &str, labels: &str) {
        self.put(name);
        if !labels.is_empty() {
            self.put("{");
            self.put(labels);
            self.put("}");
        }
        self.put(" ");
    }

    /// A number that ends a line whose beginning is written.
    pub(super) fn number(&mut self, value: f64) {
        number::write(value, &mut self.out);
        self.end_line();
    }

    /// [`Writer::number`] of a count.
    pub(super) fn whole(&mut self, value: u64) {
        number::whole(value, &mut self.out);
        self.end_line();
    }

    /// What is written elsewhere, whole lines.
    pub fn raw(&mut self, lines: &[u8]) {
        for piece in lines.chunks(PIECE) {
            self.out.extend_from_slice(piece);
            self.end_piece();
        }
    }

    /// The text, packed if it is to be.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.put("# EOF\n");
        }
        match self.gzip {
            Some(mut gzip) => {
                gzip.pack(&self.out);
                gzip.finish()
            }
            None => self.out,
        }
    }

    fn end_line(&mut self) {
        self.put("\n");
        self.end_piece();
    }

    fn end_piece(&mut self) {
        if self.out.len() < self.full {
            return;
        }
        if let Some(gzip) = &mut self.gzip {
            gzip.pack(&self.out);
            self.out.clear();
        }
        if !self.pause.is_zero() {
            thread::sleep(self.pause);
        }
        self.full = self.out.len() + PIECE;
    }

    pub(super) fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Instant;

    use super::*;

    /// More than two pieces, of both kinds of writing.
    fn written(mut out: Writer) -> Vec<u8> {
        for number in 0..3000 {
            out.count("family_total", "a=\"b\"", number);
        }
        out.raw(&b"raw 1\n".repeat(PIECE / 3));
        out.finish()
    }

    #[test]
    fn the_text_is_the_same_in_pieces() {
        let whole = written(Writer::new(Format::Text, 0));
        let rest = Duration::from_millis(2);
        let start = Instant::now();
        assert_eq!(whole, written(Writer::new(Format::Text, 0).pausing(rest)));
        let pieces = u32::try_from(whole.len() / PIECE).unwrap();
        assert!(pieces > 4);
        // The last lines of a piece make it longer than that.
        assert!(start.elapsed() >= rest * (pieces - 1));
        let packed = written(Writer::packed(Format::Text).pausing(rest));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert!(whole == unpacked);
    }
}
