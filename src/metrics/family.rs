//! Making and registering families.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

type Result<T> = std::result::Result<T, prometheus::Error>;

/// Makes families in one registry.
pub(super) struct Maker<'a> {
    registry: &'a Registry,
    /// Labels of every request family, in this order; a family's own come behind them.
    request: Vec<&'a str>,
    made: RefCell<Vec<Box<dyn Collector>>>,
}

/// What has been made, in that order. The registry would sort and copy everything on each scrape.
pub(super) struct Collectors(Vec<Box<dyn Collector>>);

impl fmt::Debug for Collectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collectors({})", self.0.len())
    }
}

impl Collectors {
    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn Collector> {
        self.0.iter().map(|collector| &**collector)
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
        self.made.borrow_mut().push(Box::new(family.clone()));
        Ok(family)
    }

    /// All that has been made.
    pub(super) fn finish(self) -> Collectors {
        Collectors(self.made.into_inner())
    }

    fn labels(&self, more: &[&'a str]) -> Vec<&'a str> {
        [&self.request, more].concat()
    }

    pub(super) fn requests(
        &self,
        name: &str,
        help: &str,
        more: &[&'a str],
    ) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(
            Opts::new(name, help),
            &self.labels(more),
        )?)
    }

    pub(super) fn request_gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), &self.request)?)
    }

    pub(super) fn request_histograms(
        &self,
        name: &str,
        help: &str,
        edges: &[f64],
        more: &[&'a str],
    ) -> Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(edges.to_vec());
        self.register(HistogramVec::new(opts, &self.labels(more))?)
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
            .push(Box::new(ProcessCollector::for_self()));
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
