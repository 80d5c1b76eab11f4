//! The families of requests: as many series as there are models, endpoints and tenants.
//!
//! The `prometheus` crate's own vectors have two faults for this. To show a series they copy its labels, each a string of
//! its own, which was most of what a scrape cost; here each series keeps the text of its labels. And they tell series apart
//! by their label values laid end to end, so that (`ab`, `c`) counts on (`a`, `bc`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::Metric as _;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge};
use smallvec::SmallVec;

use crate::exposition::{Kind, Writer, registry};

/// One metric, without labels.
pub trait Child: Clone {
    /// Its type.
    const KIND: Kind;

    /// Its samples.
    fn write(&self, name: &str, labels: &str, edges: &mut registry::Edges, out: &mut Writer);
}

/// A family and its children by label values.
pub struct Children<M> {
    family: Arc<Family<M>>,
}

struct Family<M> {
    name: String,
    help: String,
    labels: Vec<String>,
    make: Box<dyn Fn() -> M + Send + Sync>,
    children: RwLock<ByValues<M>>,
}

/// The text of the labels, and the child.
type ByValues<M> = HashMap<Box<[u8]>, (Arc<str>, M)>;

/// Label values with a byte between them that no text has.
type JoinedValues = SmallVec<[u8; 128]>;

impl<M> Clone for Children<M> {
    fn clone(&self) -> Self {
        Self {
            family: Arc::clone(&self.family),
        }
    }
}

impl<M> fmt::Debug for Children<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Children({})", self.family.name)
    }
}

impl<M: Child> Children<M> {
    pub(super) fn new(
        name: &str,
        help: &str,
        labels: &[&str],
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        Self {
            family: Arc::new(Family {
                name: name.to_owned(),
                help: help.to_owned(),
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                make: Box::new(make),
                children: RwLock::default(),
            }),
        }
    }

    /// The family's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.family.name.clone()
    }

    /// The child of these values, born now if it is new. They are in the order of the labels; one that is missing is empty.
    #[must_use]
    pub fn with_label_values(&self, values: &[&str]) -> M {
        let key = join(values);
        let family = &*self.family;
        let children = family
            .children
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, child)) = children.get(&*key) {
            return child.clone();
        }
        drop(children);
        let mut children = family
            .children
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let born = || (family.text(values), (family.make)());
        let (_, child) = children
            .entry(key.to_vec().into_boxed_slice())
            .or_insert_with(born);
        child.clone()
    }

    /// Drops a child. Most were never born.
    pub fn remove_label_values(&self, values: &[&str]) {
        self.family
            .children
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&*join(values));
    }

    /// All children, with their labels as they are shown.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, M)> {
        let children = &self.family.children;
        let children = children.read().unwrap_or_else(PoisonError::into_inner);
        children.values().cloned().collect()
    }
}

/// What is on `/metrics`.
pub(super) trait Shown: Send + Sync {
    fn names(&self) -> Vec<(String, Kind)>;
    fn write(&self, out: &mut Writer);
}

impl<M: Child + Send + Sync> Shown for Children<M> {
    fn names(&self) -> Vec<(String, Kind)> {
        vec![(self.name(), M::KIND)]
    }

    fn write(&self, out: &mut Writer) {
        // Out of the lock first: a worker may be waiting to have a new one.
        let all = self.all();
        if all.is_empty() {
            return;
        }
        let family = &*self.family;
        out.family(&family.name, M::KIND, &family.help);
        let mut edges = registry::Edges::default();
        for (labels, child) in &all {
            child.write(&family.name, labels, &mut edges, out);
        }
    }
}

impl<M> Family<M> {
    fn text(&self, values: &[&str]) -> Arc<str> {
        let mut pairs: Vec<_> = self.labels.iter().zip(values).collect();
        pairs.sort_unstable();
        registry::labels(pairs.iter().map(|(name, value)| (name.as_str(), **value))).into()
    }
}

fn join(values: &[&str]) -> JoinedValues {
    let mut key = JoinedValues::new();
    for value in values {
        key.extend_from_slice(value.as_bytes());
        key.push(0xff);
    }
    key
}

// === impl Child ===

impl Child for IntCounter {
    const KIND: Kind = Kind::Counter;

    fn write(&self, name: &str, labels: &str, _: &mut registry::Edges, out: &mut Writer) {
        out.count(name, labels, self.get());
    }
}

impl Child for IntGauge {
    const KIND: Kind = Kind::Gauge;

    #[expect(
        clippy::cast_precision_loss,
        reason = "nobody has 2^53 requests in flight"
    )]
    fn write(&self, name: &str, labels: &str, _: &mut registry::Edges, out: &mut Writer) {
        out.sample(name, labels, self.get() as f64);
    }
}

impl Child for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn write(&self, name: &str, labels: &str, edges: &mut registry::Edges, out: &mut Writer) {
        registry::histogram(name, self.metric().get_histogram(), labels, edges, out);
    }
}

pub(super) fn counters(
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<Children<IntCounter>> {
    let spare = IntCounter::new(name, help)?;
    let owned = name.to_owned();
    let make = move || IntCounter::new(&*owned, "-").unwrap_or_else(|_| spare.clone());
    Ok(Children::new(name, help, labels, make))
}

pub(super) fn gauges(
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<Children<IntGauge>> {
    let spare = IntGauge::new(name, help)?;
    let owned = name.to_owned();
    let make = move || IntGauge::new(&*owned, "-").unwrap_or_else(|_| spare.clone());
    Ok(Children::new(name, help, labels, make))
}

pub(super) fn histograms(
    name: &str,
    help: &str,
    edges: &[f64],
    labels: &[&str],
) -> prometheus::Result<Children<Histogram>> {
    let opts = HistogramOpts::new(name, "-").buckets(edges.to_vec());
    // What is wrong with them is wrong from the first on; none is ever handed out.
    let spare = Histogram::with_opts(opts.clone())?;
    let make = move || Histogram::with_opts(opts.clone()).unwrap_or_else(|_| spare.clone());
    Ok(Children::new(name, help, labels, make))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::Format;

    #[test]
    fn values_that_are_the_same_end_to_end_are_two_series() {
        let family = counters("c_total", "C.", &["b", "a"]).unwrap();
        family.with_label_values(&["x", "yz"]).inc();
        family.with_label_values(&["xy", "z"]).inc_by(2);
        family.with_label_values(&["x", "yz"]).inc();
        let mut all: Vec<_> = family
            .all()
            .into_iter()
            .map(|(l, c)| (l.to_string(), c.get()))
            .collect();
        all.sort();
        assert_eq!(
            all,
            [
                (r#"a="yz",b="x""#.to_owned(), 2),
                (r#"a="z",b="xy""#.to_owned(), 2)
            ]
        );
        family.remove_label_values(&["x", "yz"]);
        let mut out = Writer::new(Format::Text, 0);
        Shown::write(&family, &mut out);
        let text = String::from_utf8(out.finish()).unwrap();
        assert_eq!(
            text,
            "# HELP c_total C.\n# TYPE c_total counter\nc_total{a=\"z\",b=\"xy\"} 2\n"
        );
    }
}
