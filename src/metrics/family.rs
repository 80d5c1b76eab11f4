//! Making and registering families.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

type Result<T> = std::result::Result<T, prometheus::Error>;

/// Makes families in one registry.
pub(super) struct Maker<'a> {
    registry: &'a Registry,
    /// Labels of every request family, in this order; a family's own come behind them.
    request: Vec<&'a str>,
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
        }
    }

    fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
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

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
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
