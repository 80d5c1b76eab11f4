//! Writing families in either text format.

use std::io::Write as _;

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

/// Text under construction. Families come one after the other, each with all its samples.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    out: Vec<u8>,
}

impl Writer {
    /// An empty text.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            out: Vec::with_capacity(64 * 1024),
        }
    }

    /// Which format it is in.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Begins a family. `name` is the one of its samples in the text format: of a counter with `_total`, if it has that.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let (name, kind) = match (self.format, kind) {
            (Format::Text, Kind::Untyped) => (name, "untyped"),
            (_, Kind::Gauge) => (name, "gauge"),
            (_, Kind::Histogram) => (name, "histogram"),
            (_, Kind::Summary) => (name, "summary"),
            (Format::Text, Kind::Counter) => (name, "counter"),
            (Format::OpenMetrics, Kind::Untyped) => (name, "unknown"),
            // OpenMetrics has no counter whose samples do not end in _total.
            (Format::OpenMetrics, Kind::Counter) => match name.strip_suffix("_total") {
                Some(stem) => (stem, "counter"),
                None => (name, "unknown"),
            },
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let help = match self.format {
            Format::Text => help,
            Format::OpenMetrics => help.replace('"', "\\\""),
        };
        let _infallible = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample. `labels` are written out and escaped, `a="b",c="d"`, or empty.
    pub fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.out.extend_from_slice(name.as_bytes());
        if !labels.is_empty() {
            self.out.push(b'{');
            self.out.extend_from_slice(labels.as_bytes());
            self.out.push(b'}');
        }
        self.out.push(b' ');
        self.value(value);
        self.out.push(b'\n');
    }

    /// What is written elsewhere, whole lines.
    pub fn raw(&mut self, lines: &[u8]) {
        self.out.extend_from_slice(lines);
    }

    /// The text.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.out
    }

    fn value(&mut self, value: f64) {
        let _infallible = if value == f64::INFINITY {
            write!(self.out, "+Inf")
        } else if value == f64::NEG_INFINITY {
            write!(self.out, "-Inf")
        } else {
            // Shortest form that reads back the same; NaN is NaN.
            write!(self.out, "{value}")
        };
    }
}
