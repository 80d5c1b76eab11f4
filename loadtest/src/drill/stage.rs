//! Faults that happen at the same time, from the first sign of the first to the end of the last.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::act::{Acting, TICK, World};
use super::faults::{CALM, Fault, Stage};
use super::servers::Servers;
use super::sink::Labels;
use super::table::Report;
use super::watch::{View, Watch};

/// A drill under way.
pub(crate) struct Drill {
    world: World,
    servers: Servers,
    calm: Acting,
    report: Report,
    /// Alerts that somebody waited for.
    expected: Vec<Watch>,
    /// All that have fired.
    seen: BTreeSet<Labels>,
}

/// A fault with its alerts.
struct Running {
    fault: Fault,
    acting: Acting,
    watches: Vec<Watch>,
    /// When all had happened that was to happen.
    satisfied: Option<Instant>,
    ended: Option<Instant>,
}

/// An alert that has not fired after so long will not.
const FIRES: Duration = Duration::from_secs(100);
/// And one that is not over after so long stays.
const RESOLVES: Duration = Duration::from_secs(100);
/// A fault lasts so long after its alerts: what is suppressed must not be told later.
const HOLD: Duration = Duration::from_secs(3);

/// Ticks without an alert after which everything has been scraped.
const SETTLED: u32 = 12;

// === impl Drill ===

impl Drill {
    pub(crate) fn new(world: World, servers: Servers, calm: Acting) -> Self {
        Self {
            world,
            servers,
            calm,
            report: Report::default(),
            expected: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Nothing is wrong, and nothing may fire.
    pub(crate) async fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        self.settle().await?;
        let began = Instant::now();
        let mut fired = BTreeSet::new();
        while began.elapsed() < time {
            let view = self.tick().await?;
            fired.extend(view.firing.iter().map(|labels| self.name(labels)));
        }
        for name in fired {
            self.report
                .wrong
                .push(format!("{name} fires though nothing is wrong"));
        }
        Ok(())
    }

    /// Waits for the first scrapes. Before them no target is up, and the scaled `for` of that alert is shorter than a scrape.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut quiet = 0;
        while quiet < SETTLED && began.elapsed() < FIRES {
            let view = self.tick().await?;
            quiet = if view.firing.is_empty() { quiet + 1 } else { 0 };
        }
        self.seen.clear();
        Ok(())
    }

    /// The faults of a stage.
    pub(crate) async fn stage(
        &mut self,
        stage: Stage,
        faults: Vec<Fault>,
        progress: &impl Fn(&str),
    ) -> anyhow::Result<()> {
        if faults.is_empty() {
            return Ok(());
        }
        progress(&format!("{stage:?}: {} faults", faults.len()));
        let mut running: Vec<Running> = Vec::new();
        for fault in faults {
            let watches = fault
                .cases
                .iter()
                .map(|case| Watch::new(*case, fault.rig, &self.world));
            running.push(Running {
                watches: watches.collect(),
                acting: Acting::new(fault.act, fault.rig),
                fault,
                satisfied: None,
                ended: None,
            });
        }
        while !running.is_empty() {
            for one in running.iter_mut().filter(|one| one.ended.is_none()) {
                one.acting.tick(&mut self.world).await?;
            }
            let view = self.tick().await?;
            let mut left = Vec::new();
            for mut one in running {
                one.look(&view, &mut self.world).await?;
                if let Some(ended) = one.ended.filter(|ended| one.done(*ended)) {
                    for watch in one.watches {
                        self.report
                            .add(&watch, one.fault.about, one.acting.began, ended);
                        progress(&format!(
                            "  {} {}",
                            watch.case.alert,
                            if watch.passed() { "ok" } else { "FAILED" }
                        ));
                        self.expected.push(watch);
                    }
                } else {
                    left.push(one);
                }
            }
            running = left;
        }
        Ok(())
    }

    /// A moment passes.
    async fn tick(&mut self) -> anyhow::Result<View> {
        tokio::time::sleep(TICK).await;
        self.calm.tick(&mut self.world).await?;
        self.servers.check()?;
        for rig in self.world.rigs.values_mut() {
            rig.check()?;
        }
        let (prometheus, alertmanager) = (self.servers.prometheus, self.servers.alertmanager);
        let view = View::take(prometheus, alertmanager, &self.world).await?;
        self.seen.extend(view.firing.iter().cloned());
        Ok(view)
    }

    /// An alert for a message.
    fn name(&self, labels: &Labels) -> String {
        let of = |name: &str| labels.get(name).map_or("", String::as_str);
        let mut rigs = self.world.rigs.iter();
        let rig = rigs.find(|(_, rig)| rig.admin.to_string() == of("instance"));
        let rig = rig.map_or("", |(which, _)| which.name());
        let words = [of("severity"), rig, of("gpu"), of("model")];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        format!("{} ({})", of("alertname"), words.join(" "))
    }

    pub(crate) fn report(mut self) -> Report {
        let mut also = BTreeSet::new();
        for labels in &self.seen {
            if labels.get("model").is_some_and(|model| model == CALM) {
                let name = self.name(labels);
                let wrong = format!("{name} of a model that nothing happened to");
                self.report.wrong.push(wrong);
            } else if !self.expected.iter().any(|watch| watch.is(labels)) {
                also.insert(self.name(labels));
            }
        }
        self.report.also = also.into_iter().collect();
        self.report
    }
}

// === impl Running ===

impl Running {
    async fn look(&mut self, view: &View, world: &mut World) -> anyhow::Result<()> {
        let began = self.acting.began;
        for watch in &mut self.watches {
            watch.look(view, began, self.ended);
        }
        if self.ended.is_some() {
            return Ok(());
        }
        if self.satisfied.is_none() && self.watches.iter().all(Watch::satisfied) {
            self.satisfied = Some(view.at);
        }
        let held = self.satisfied.is_some_and(|at| at.elapsed() > HOLD);
        if held || began.elapsed() > FIRES {
            self.acting.end(world).await?;
            self.ended = Some(Instant::now());
        }
        Ok(())
    }

    fn done(&self, ended: Instant) -> bool {
        // What never fired has nothing to resolve.
        let over = |watch: &Watch| watch.fired.is_none() || watch.over.is_some();
        let settled = ended.elapsed() > HOLD && self.watches.iter().all(over);
        settled || ended.elapsed() > RESOLVES
    }
}
