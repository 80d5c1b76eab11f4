//! Our own families, as the `prometheus` crate has them, in either format.
//!
//! Its own encoder writes each label of each bucket anew and knows no OpenMetrics. Here the labels of a histogram are
//! written once and copied into its lines, which is most of the text.

use prometheus::proto::{Metric, MetricFamily, MetricType};

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
    // Label names and edges are the same in the whole family.
    let mut edges: Vec<(u64, String)> = Vec::new();
    let mut labels = Vec::new();
    for metric in family.get_metric() {
        labels.clear();
        write_labels(metric, &mut labels);
        let labels = std::str::from_utf8(&labels).unwrap_or_default();
        match kind {
            Kind::Histogram => histogram(name, metric, labels, &mut edges, out),
            Kind::Counter => out.sample(name, labels, metric.get_counter().get_value()),
            // The crate cannot make summaries.
            Kind::Gauge | Kind::Summary | Kind::Untyped => {
                out.sample(name, labels, metric.get_gauge().get_value());
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

fn histogram(
    name: &str,
    metric: &Metric,
    labels: &str,
    edges: &mut Vec<(u64, String)>,
    out: &mut Writer,
) {
    let histogram = metric.get_histogram();
    let comma = if labels.is_empty() { "" } else { "," };
    let begin = format!("{name}_bucket{{{labels}{comma}le=\"");
    let finite = histogram
        .get_bucket()
        .iter()
        .filter(|bucket| bucket.upper_bound().is_finite());
    for (at, bucket) in finite.enumerate() {
        let edge = bucket.upper_bound();
        if edges
            .get(at)
            .is_none_or(|(bits, _)| *bits != edge.to_bits())
        {
            let mut text = Vec::new();
            number::write(edge, &mut text);
            edges.truncate(at);
            edges.push((
                edge.to_bits(),
                String::from_utf8(text).unwrap_or_default() + "\"} ",
            ));
        }
        out.put(&begin);
        if let Some((_, edge)) = edges.get(at) {
            out.put(edge);
        }
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

fn write_labels(metric: &Metric, out: &mut Vec<u8>) {
    for label in metric.get_label() {
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(label.name().as_bytes());
        out.extend_from_slice(b"=\"");
        help::escape(label.value(), true, out);
        out.push(b'"');
    }
}
