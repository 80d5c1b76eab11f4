//! A fire drill: each alert's fault is made to happen, and real Prometheus and Alertmanager say what becomes of it.
//!
//! Rules and routing are the shipped ones with shorter durations. Every fault has a proxy, a model or a GPU of its own, so
//! that those of a stage happen at the same time and do not disturb each other.

mod act;
mod faults;
mod http;
mod process;
mod promql;
mod rig;
mod rules;
mod scale;
mod servers;
mod sink;
mod stage;
mod table;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub use table::Report;

use act::{Acting, World};
use faults::{Act, Fault, QUIET, Stage};
use process::Scratch;
use rig::{Rig, Which};
use servers::Servers;
use sink::Sink;
use stage::Drill;

/// What to drill.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names of alerts; none is all.
    pub only: Vec<String>,
    /// tokenglass.
    pub binary: PathBuf,
    /// The stub of NVML.
    pub nvml: PathBuf,
    /// Where tests/prometheus/install.sh has put Prometheus and Alertmanager.
    pub installed: PathBuf,
    /// The rule files.
    pub rules: PathBuf,
    /// Alertmanager's configuration.
    pub routing: PathBuf,
    /// What durations are divided by.
    pub scale: f64,
}

/// How long everything is in order before the first fault: longer than a `for` of 5 min is at the usual scale.
const REST: Duration = Duration::from_secs(15);
const STAGES: [Stage; 5] = [
    Stage::Gpu,
    Stage::Inference,
    Stage::Business,
    Stage::Gateway,
    Stage::Meta,
];

// === impl Plan ===

impl Plan {
    /// Every alert with the fault that is to make it fire, and what it does to it.
    #[must_use]
    pub fn alerts() -> Vec<[String; 4]> {
        let mut lines = Vec::new();
        for fault in faults::all() {
            for case in fault.cases {
                let hidden = case.hidden_by.map(|by| format!("suppressed by {by}"));
                lines.push([
                    case.alert.to_owned(),
                    format!("{} {}", case.severity(), case.window)
                        .trim_end()
                        .to_owned(),
                    fault.about.to_owned(),
                    hidden.unwrap_or_default(),
                ]);
            }
        }
        lines
    }

    fn faults(&self) -> anyhow::Result<Vec<Fault>> {
        let mut faults = faults::all();
        for (path, text) in rules::files(&self.rules)? {
            for alert in rules::alerts(&text) {
                let mut cases = faults.iter().flat_map(|fault| &fault.cases);
                let known = cases.any(|case| case.alert() == alert);
                anyhow::ensure!(known, "no fault for {alert:?} of {}", path.display());
            }
        }
        for name in &self.only {
            let known = |fault: &Fault| fault.cases.iter().any(|case| case.alert == name);
            anyhow::ensure!(faults.iter().any(known), "there is no alert {name}");
        }
        if !self.only.is_empty() {
            for fault in &mut faults {
                fault
                    .cases
                    .retain(|case| self.only.iter().any(|name| case.alert == name));
            }
            faults.retain(|fault| !fault.cases.is_empty());
        }
        Ok(faults)
    }

    /// Drills, saying what happens to `progress`.
    ///
    /// # Errors
    /// If something cannot be started, or ends by itself. What an alert does wrong is in the report.
    pub async fn run(&self, progress: impl Fn(&str)) -> anyhow::Result<Report> {
        let mut faults = self.faults()?;
        let began = Instant::now();
        let mut scratch = Scratch::new()?;
        let result = self.drill(&mut faults, &scratch, &progress).await;
        let logs = scratch.path().display().to_string();
        if result.as_ref().map_or(true, |report| !report.passed()) {
            scratch.keep();
        }
        let mut report = result.with_context(|| format!("logs are in {logs}"))?;
        report.seconds = began.elapsed().as_secs_f64();
        report.scale = self.scale;
        if !report.passed() {
            report.wrong.push(format!("logs are in {logs}"));
        }
        Ok(report)
    }

    async fn drill(
        &self,
        faults: &mut Vec<Fault>,
        scratch: &Scratch,
        progress: &impl Fn(&str),
    ) -> anyhow::Result<Report> {
        let mut rigs = BTreeMap::new();
        let mut needed: BTreeSet<Which> = faults.iter().map(|fault| fault.rig).collect();
        // Always: what is calm shall stay calm.
        needed.insert(Which::Requests);
        for which in needed {
            rigs.insert(which, Rig::start(which, self, scratch.path()).await?);
        }
        let world = World {
            rigs,
            sink: Sink::start()?,
        };
        let servers = Servers::start(self, &world, scratch.path()).await?;
        progress(&format!(
            "{} proxies, Prometheus and Alertmanager run",
            world.rigs.len()
        ));
        let calm = Acting::new(Act::Load(QUIET), Which::Requests);
        let mut drill = Drill::new(world, servers, calm);
        drill.rest(REST).await?;
        for stage in STAGES {
            let (now, later) = std::mem::take(faults)
                .into_iter()
                .partition(|fault| fault.stage == stage);
            *faults = later;
            drill.stage(stage, now, progress).await?;
        }
        Ok(drill.report())
    }
}
