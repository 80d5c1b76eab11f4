//! Our own families, as the `prometheus` crate has them, in either format.
//!
//! Its own encoder writes each label of each bucket anew and knows no OpenMetrics. Here the labels of a histogram are
//! written once and copied into its lines, which is most of the text.

use prometheus::proto::{Histogram, MetricFamily, MetricType};

use super::writer::{Kind, Writer};
use super::{help, number};

/// One family; nothing if it has no samples.
pub(crate) fn write(family: &MetricFamily, out: &mut Writer) {
    let kind = kind(family);
    let name = family.name();
    if family.get_metric().is_empty() {
        return;
    }
    out.family(name, kind, family.help());
    let mut edges = Edges::default();
    for metric in family.get_metric() {
        let pairs = metric.get_label().iter();
        let labels = labels(pairs.map(|label| (label.name(), label.value())));
        match kind {
            Kind::Histogram => histogram(name, metric.get_histogram(), &labels, &mut edges, out),
            Kind::Counter => out.sample(name, &labels, metric.get_counter().get_value()),
            // The crate cannot make summaries.
            Kind::Gauge | Kind::Summary | Kind::Untyped => {
                out.sample(name, &labels, metric.get_gauge().get_value());
            }
        }
    }
}

/// The type of a family.
pub(crate) fn kind(family: &MetricFamily) -> Kind {
    match family.get_field_type() {
        MetricType::COUNTER => Kind::Counter,
        MetricType::GAUGE => Kind::Gauge,
        MetricType::HISTOGRAM => Kind::Histogram,
        MetricType::SUMMARY => Kind::Summary,
        MetricType::UNTYPED => Kind::Untyped,
    }
}

/// The edges of a family as they are written, which are the same in all of its series.
#[derive(Default)]
pub struct Edges(Vec<(u64, String)>);

impl Edges {
    /// `0.5"} `, written only once.
    fn text(&mut self, at: usize, edge: f64) -> &str {
        let same = |(bits, _): &(u64, String)| *bits == edge.to_bits();
        if !self.0.get(at).is_some_and(same) {
            let mut text = Vec::new();
            number::write(edge, &mut text);
            text.extend_from_slice(b"\"} ");
            self.0.truncate(at);
            let text = String::from_utf8(text).unwrap_or_default();
            self.0.push((edge.to_bits(), text));
        }
        self.0.get(at).map_or("", |(_, text)| text)
    }
}

/// A histogram's samples.
pub(crate) fn histogram(
    name: &str,
    histogram: &Histogram,
    labels: &str,
    edges: &mut Edges,
    out: &mut Writer,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    let begin = format!("{name}_bucket{{{labels}{comma}le=\"");
    let finite = histogram
        .get_bucket()
        .iter()
        .filter(|bucket| bucket.upper_bound().is_finite());
    for (at, bucket) in finite.enumerate() {
        out.put(&begin);
        out.put(edges.text(at, bucket.upper_bound()));
        out.whole(bucket.cumulative_count());
    }
    out.put(&begin);
    out.put("+Inf\"} ");
    out.whole(histogram.get_sample_count());
    let plain = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    for part in [name, "_sum", &plain, " "] {
        out.put(part);
    }
    out.number(histogram.get_sample_sum());
    for part in [name, "_count", &plain, " "] {
        out.put(part);
    }
    out.whole(histogram.get_sample_count());
}

/// `a="b",c="d"`
pub(crate) fn labels<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = Vec::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        help::escape(value, true, &mut out);
        out.push(b'"');
    }
    String::from_utf8(out).unwrap_or_default()
}
