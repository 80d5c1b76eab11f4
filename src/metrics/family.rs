//! Making and registering families.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::children::{self, Child, Children, Shown};
use crate::exposition::{Kind, Writer, registry};

type Result<T> = std::result::Result<T, prometheus::Error>;

/// Makes families in one registry.
pub(super) struct Maker<'a> {
    registry: &'a Registry,
    /// Labels of every request family, in this order; a family's own come behind them.
    request: Vec<&'a str>,
    made: RefCell<Vec<Box<dyn Shown>>>,
}

/// What has been made, in that order. The registry would sort and copy everything on each scrape.
pub(super) struct Families(Vec<Box<dyn Shown>>);

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Families({})", self.0.len())
    }
}

impl Families {
    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn Shown> {
        self.0.iter().map(|family| &**family)
    }
}

/// A family, or several, of the `prometheus` crate.
struct Collected<C>(C);

impl<C: Collector> Shown for Collected<C> {
    fn names(&self) -> Vec<(String, Kind)> {
        let families = self.0.collect();
        let name = |family: &MetricFamily| (family.name().to_owned(), registry::kind(family));
        families.iter().map(name).collect()
    }

    fn write(&self, out: &mut Writer) {
        for family in self.0.collect() {
            registry::write(&family, out);
        }
    }
}

impl<'a> Maker<'a> {
    /// Request families have the tenant labels behind the three that all have.
    pub(super) fn new(registry: &'a Registry, tenants: impl Iterator<Item = &'a str>) -> Self {
        Self {
            registry,
            request: ["model", "endpoint", "stream"]
                .into_iter()
                .chain(tenants)
                .collect(),
            made: RefCell::default(),
        }
    }

    /// Everything that is to be on `/metrics` comes by here.
    fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C> {
        self.registry.register(Box::new(family.clone()))?;
        self.made
            .borrow_mut()
            .push(Box::new(Collected(family.clone())));
        Ok(family)
    }

    /// The registry knows of such a family only its name, so that there is no other of it.
    fn show<M: Child + Send + Sync + 'static>(&self, family: Children<M>) -> Result<Children<M>> {
        self.registry
            .register(Box::new(IntGauge::new(family.name(), "-")?))?;
        self.made.borrow_mut().push(Box::new(family.clone()));
        Ok(family)
    }

    /// All that has been made.
    pub(super) fn finish(self) -> Families {
        Families(self.made.into_inner())
    }

    fn labels(&self, more: &[&'a str]) -> Vec<&'a str> {
        [&self.request, more].concat()
    }

    pub(super) fn requests(
        &self,
        name: &str,
        help: &str,
        more: &[&'a str],
    ) -> Result<Children<IntCounter>> {
        self.show(children::counters(name, help, &self.labels(more))?)
    }

    pub(super) fn request_gauges(&self, name: &str, help: &str) -> Result<Children<IntGauge>> {
        self.show(children::gauges(name, help, &self.request)?)
    }

    pub(super) fn request_histograms(
        &self,
        name: &str,
        help: &str,
        edges: &[f64],
        more: &[&'a str],
    ) -> Result<Children<Histogram>> {
        let labels = self.labels(more);
        self.show(children::histograms(name, help, edges, &labels)?)
    }

    pub(super) fn histogram(&self, name: &str, help: &str, edges: &[f64]) -> Result<Histogram> {
        self.register(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(edges.to_vec()),
        )?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        edges: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(edges.to_vec());
        self.register(HistogramVec::new(opts, labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Gauges by labels whose values are upstream's to choose: no two sets of them are taken for one.
    pub(super) fn free_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<Children<IntGauge>> {
        self.show(children::gauges(name, help, labels)?)
    }

    pub(super) fn floats(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Counters by one label, each of whose `values` is born at 0.
    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = &'a str>,
    ) -> Result<IntCounterVec> {
        let family = self.register(IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        for value in values {
            family.with_label_values(&[value]);
        }
        Ok(family)
    }

    /// `process_*` of this process.
    #[cfg(target_os = "linux")]
    pub(super) fn process(&self) -> Result<()> {
        use prometheus::process_collector::ProcessCollector;
        self.registry
            .register(Box::new(ProcessCollector::for_self()))?;
        self.made
            .borrow_mut()
            .push(Box::new(Collected(ProcessCollector::for_self())));
        Ok(())
    }

    pub(super) fn build_info(&self) -> Result<()> {
        let labels = HashMap::from([
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            (
                "rustc".to_owned(),
                env!("CARGO_PKG_RUST_VERSION").to_owned(),
            ),
        ]);
        let opts = Opts::new("tokenglass_build_info", "1, with the build in the labels.")
            .const_labels(labels);
        self.register(Gauge::with_opts(opts)?)?.set(1.0);
        Ok(())
    }
}
