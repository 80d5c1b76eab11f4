//! What the webhook counts.

use prometheus::{Encoder, IntCounterVec, Opts, Registry, TextEncoder};

/// Counters of one webhook, in a registry of their own.
#[derive(Clone, Debug)]
pub struct Counters {
    registry: Registry,
    injections: IntCounterVec,
    reloads: IntCounterVec,
}

impl Counters {
    /// All at zero.
    ///
    /// # Errors
    /// If a name is given twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["result"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let injections = counter(
            "tokenglass_injections_total",
            "Reviews of pods by result: injected, already, opted_out, ignored, malformed, or the reason of a refusal.",
        )?;
        let reloads = counter(
            "tokenglass_webhook_certificate_reloads_total",
            "Readings of a changed certificate by result: success, failure.",
        )?;
        // What is alerted on is there from the beginning.
        for result in ["injected", "already", "opted_out", "ignored", "malformed"] {
            injections.with_label_values(&[result]);
        }
        for result in ["success", "failure"] {
            reloads.with_label_values(&[result]);
        }
        Ok(Self {
            registry,
            injections,
            reloads,
        })
    }

    /// One review more; `result` is of a closed set.
    pub fn review(&self, result: &'static str) {
        self.injections.with_label_values(&[result]).inc();
    }

    pub(super) fn reload(&self, result: &'static str) {
        self.reloads.with_label_values(&[result]).inc();
    }

    pub(super) fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Into memory; nothing of it fails.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}
