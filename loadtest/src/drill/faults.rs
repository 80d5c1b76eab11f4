//! What has to go wrong for each alert.

mod business;
mod gateway;
mod gpu;
mod inference;
mod meta;

use std::time::Duration;

use serde_json::Value;

use super::rig::Which;
use super::rules::Alert;

/// Something goes wrong, and these alerts are to fire.
#[derive(Debug)]
pub(crate) struct Fault {
    /// In a few words, for the table.
    pub(crate) about: &'static str,
    pub(crate) stage: Stage,
    pub(crate) rig: Which,
    pub(crate) act: Act,
    pub(crate) cases: Vec<Case>,
}

/// Faults of a stage happen at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Gpu,
    Inference,
    Business,
    Gateway,
    Meta,
}

/// An alert that a fault makes fire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) alert: &'static str,
    pub(crate) critical: bool,
    /// Of a burn rate; "" otherwise.
    pub(crate) window: &'static str,
    pub(crate) on: On,
    /// It is to fire and to be suppressed by this, instead of being told.
    pub(crate) hidden_by: Option<&'static str>,
}

/// By which label the alert of this fault is told from others of its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    /// The instance of the fault's rig.
    Rig,
    Gpu(usize),
    Label(&'static str, &'static str),
}

/// How it is made to go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// What the driver says of a GPU.
    Gpu(usize, fn(&mut Value)),
    /// The driver reports an XID of a GPU, again and again.
    Xid(usize),
    /// The driver does not return.
    GpuHangs,
    /// Requests.
    Load(Load),
    /// Requests that do not come through the proxy.
    Bypass(Load),
    /// A value of vLLM's own metrics.
    Value(&'static str, f64),
    /// One that rises so much a second from a value, up to another.
    Ramp(&'static str, f64, f64, f64),
    /// An endpoint of vLLM's is so slow.
    Slow(&'static str, Duration),
    Unload,
    /// With a queue before its engine, which is still shown for a while.
    KillUpstream,
    KillProxy,
    /// vLLM accepts few connections, and these requests each want one.
    Crowd(Load),
    /// Idle connections.
    Connections,
    BadConfig,
    /// Series that the drill serves itself.
    Restarts,
    Panics,
    BadCertificate,
    /// The webhook that the drill plays says nothing any more.
    NoInjector,
}

/// Traffic of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) models: &'static [&'static str],
    pub(crate) stream: bool,
    pub(crate) max_tokens: u32,
    /// Every so many quarters of a second so many requests; 0 is once only.
    pub(crate) every: u64,
    pub(crate) at_once: u64,
    /// How the simulator answers.
    pub(crate) sim: &'static str,
    /// One request of so many is answered otherwise.
    pub(crate) odd: Option<(u64, &'static str)>,
    pub(crate) leave: Option<Duration>,
}

/// A model for each fault of the traffic, and one that nothing happens to.
pub(crate) const MODELS: [&str; 14] = [
    CALM,
    "broken",
    "broken-a-little",
    "late",
    "late-a-little",
    "slow",
    "slow-a-little",
    "long",
    "dead",
    "cut",
    "error-frames",
    "too-long",
    "left",
    "limited",
];
/// Whose requests always succeed: no alert may speak of it.
pub(crate) const CALM: &str = "calm";
/// The traffic of [`CALM`].
pub(crate) const QUIET: Load = Load::stream(r#"{"itl_ms":5,"finish_reason":"stop"}"#, &[CALM]);

// === impl Load ===

impl Load {
    /// Streams of a few tokens, four a second.
    const fn stream(sim: &'static str, models: &'static [&'static str]) -> Self {
        Self {
            models,
            stream: true,
            max_tokens: 6,
            every: 1,
            at_once: 1,
            sim,
            odd: None,
            leave: None,
        }
    }

    /// Answers that are no streams.
    const fn whole(sim: &'static str, models: &'static [&'static str]) -> Self {
        let mut load = Self::stream(sim, models);
        load.stream = false;
        load.max_tokens = 2;
        load
    }

    const fn odd(mut self, of: u64, sim: &'static str) -> Self {
        self.odd = Some((of, sim));
        self
    }

    const fn rate(mut self, at_once: u64, every: u64) -> Self {
        (self.at_once, self.every) = (at_once, every);
        self
    }

    const fn leave(mut self, millis: u64) -> Self {
        self.leave = Some(Duration::from_millis(millis));
        self
    }
}

// === impl Case ===

impl Case {
    const fn warning(alert: &'static str, on: On) -> Self {
        Self {
            alert,
            critical: false,
            window: "",
            on,
            hidden_by: None,
        }
    }

    const fn critical(alert: &'static str, on: On) -> Self {
        let mut case = Self::warning(alert, on);
        case.critical = true;
        case
    }

    const fn window(mut self, window: &'static str) -> Self {
        self.window = window;
        self
    }

    const fn hidden(mut self, by: &'static str) -> Self {
        self.hidden_by = Some(by);
        self
    }

    /// As the rules have it.
    pub(crate) fn alert(&self) -> Alert {
        Alert {
            name: self.alert.to_owned(),
            severity: self.severity().to_owned(),
            window: self.window.to_owned(),
        }
    }

    pub(crate) const fn severity(&self) -> &'static str {
        if self.critical { "critical" } else { "warning" }
    }
}

const fn model(name: &'static str) -> On {
    On::Label("model", name)
}

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    let mut all = gpu::all();
    all.extend(inference::all());
    all.extend(business::all());
    all.extend(gateway::all());
    all.extend(meta::all());
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::drill::rules;

    #[test]
    fn every_alert_has_its_fault_and_every_fault_its_alert() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules");
        let files = rules::files(&folder).unwrap();
        let ruled: Vec<Alert> = files
            .iter()
            .flat_map(|(_, text)| rules::alerts(text))
            .collect();
        assert!(ruled.len() > 40);
        assert!(ruled.iter().all(|alert| !alert.severity.is_empty()));
        let faults = all();
        let cases = faults.iter().flat_map(|fault| &fault.cases);
        let told = cases.filter(|case| case.hidden_by.is_none());
        let drilled: Vec<Alert> = told.map(Case::alert).collect();
        let set = |alerts: &[Alert]| alerts.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(set(&ruled), set(&drilled));
        assert_eq!(ruled.len(), drilled.len(), "one of them twice");
    }

    #[test]
    fn directives_are_understood() {
        for fault in all() {
            let (Act::Load(load) | Act::Bypass(load) | Act::Crowd(load)) = fault.act else {
                continue;
            };
            for text in [load.sim].into_iter().chain(load.odd.map(|(_, sim)| sim)) {
                serde_json::from_str::<crate::sim::Behaviour>(text).expect(text);
            }
            let known = |model: &&str| MODELS.contains(model);
            assert!(fault.rig != Which::Requests || load.models.iter().all(known));
        }
    }
}
