//! What becomes of an alert: when it fires, who is told, whether it is suppressed, when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::act::World;
use super::faults::{Case, On};
use super::http;
use super::rig::{self, Which};
use super::sink::{Labels, Note, labels};

/// What Prometheus, Alertmanager and its receivers say at a moment.
pub(crate) struct View {
    pub(crate) at: Instant,
    /// Alerts that fire.
    pub(crate) firing: Vec<Labels>,
    /// Those that Alertmanager keeps to itself.
    pub(crate) suppressed: Vec<Labels>,
    pub(crate) notes: Vec<Note>,
}

/// One alert of one fault.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) case: Case,
    /// The label by which it is known, and its value.
    label: (&'static str, String),
    pub(crate) fired: Option<Instant>,
    pub(crate) suppressed: Option<Instant>,
    /// It has been suppressed and a receiver was told of it all the same.
    pub(crate) leaked: bool,
    /// Who was told that it fires.
    pub(crate) told: BTreeSet<String>,
    /// Some of them before it was suppressed. The others when what suppressed it was over, and it was not.
    pub(crate) told_before: bool,
    pub(crate) over: Option<Instant>,
}

/// Between the end of a state and the news of it.
const SLACK: Duration = Duration::from_secs(1);

// === impl View ===

impl View {
    pub(crate) async fn take(
        prometheus: SocketAddr,
        alertmanager: SocketAddr,
        world: &World,
    ) -> anyhow::Result<Self> {
        let alerts = http::json(prometheus, "/api/v1/alerts").await?;
        let alerts = alerts["data"]["alerts"].as_array().into_iter().flatten();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        let firing = firing.map(|alert| labels(&alert["labels"])).collect();
        let alerts = http::json(alertmanager, "/api/v2/alerts").await?;
        let alerts = alerts.as_array().into_iter().flatten();
        let inhibited = alerts.filter(|alert| {
            let by = alert["status"]["inhibitedBy"].as_array();
            by.is_some_and(|by| !by.is_empty())
        });
        Ok(Self {
            at: Instant::now(),
            firing,
            suppressed: inhibited.map(|alert| labels(&alert["labels"])).collect(),
            notes: world.sink.notes(),
        })
    }
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(case: Case, which: Which, world: &World) -> Self {
        let admin = world.rigs.get(&which).map(|rig| rig.admin.to_string());
        let label = match case.on {
            On::Rig => ("instance", admin.unwrap_or_default()),
            On::Gpu(index) => ("UUID", rig::uuid(index)),
            On::Label(name, value) => (name, value.to_owned()),
        };
        Self {
            case,
            label,
            fired: None,
            suppressed: None,
            leaked: false,
            told: BTreeSet::new(),
            told_before: false,
            over: None,
        }
    }

    pub(crate) fn is(&self, labels: &Labels) -> bool {
        let has = |name: &str, value: &str| labels.get(name).is_some_and(|found| found == value);
        has("alertname", self.case.alert)
            && has("severity", self.case.severity())
            && has(self.label.0, &self.label.1)
            && (self.case.window.is_empty() || has("window", self.case.window))
    }

    /// Takes in what is to be seen now, of a fault that began and, perhaps, ended at these times.
    pub(crate) fn look(&mut self, view: &View, began: Instant, ended: Option<Instant>) {
        let firing = view.firing.iter().any(|labels| self.is(labels));
        if firing && self.fired.is_none() {
            self.fired = Some(view.at);
        }
        let hidden = view.suppressed.iter().any(|labels| self.is(labels));
        if hidden && self.suppressed.is_none() {
            self.suppressed = Some(view.at);
        }
        let notes = view.notes.iter();
        let notes: Vec<&Note> = notes
            .filter(|note| note.at >= began && self.is(&note.labels))
            .collect();
        for note in &notes {
            if note.firing {
                self.told.insert(note.receiver.clone());
                self.told_before |= self.suppressed.is_none_or(|at| note.at <= at);
                let since = self.suppressed.map(|at| at + SLACK);
                self.leaked |= since.is_some_and(|at| note.at > at) && ended.is_none();
            }
        }
        // The last that each receiver was told of each alert.
        let mut last = BTreeMap::new();
        for note in &notes {
            last.insert((&note.receiver, &note.labels), note.firing);
        }
        let over = ended.is_some() && !firing && !last.values().any(|firing| *firing);
        match self.over {
            None if over => self.over = Some(view.at),
            // Not for good.
            Some(_) if !over => self.over = None,
            _ => {}
        }
    }

    /// All of it has happened that is to happen while the fault lasts.
    pub(crate) fn satisfied(&self) -> bool {
        if self.case.hidden_by.is_some() {
            return self.fired.is_some() && self.suppressed.is_some();
        }
        self.fired.is_some() && self.told == self.receivers()
    }

    /// Nothing was wrong with it.
    pub(crate) fn passed(&self) -> bool {
        self.satisfied() && self.over.is_some() && !self.leaked
    }

    /// Who is to be told: everything goes to the default channel, and pages to whoever is on call too.
    fn receivers(&self) -> BTreeSet<String> {
        let all: &[&str] = if self.case.critical {
            &["critical", "default"]
        } else {
            &["default"]
        };
        all.iter().map(|name| (*name).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::faults;

    fn watch(name: &str, hidden: bool) -> Watch {
        let faults = faults::all();
        let mut cases = faults.iter().flat_map(|fault| &fault.cases);
        let case = cases.find(|case| case.alert == name && case.hidden_by.is_some() == hidden);
        Watch {
            case: *case.unwrap(),
            label: ("UUID", "1".to_owned()),
            fired: None,
            suppressed: None,
            leaked: false,
            told: BTreeSet::new(),
            told_before: false,
            over: None,
        }
    }

    fn alert(name: &str, severity: &str) -> Labels {
        let labels = [("alertname", name), ("severity", severity), ("UUID", "1")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        labels.into_iter().collect()
    }

    fn view(
        at: Instant,
        firing: &[Labels],
        suppressed: &[Labels],
        notes: &[(bool, Labels)],
    ) -> View {
        let note = |(firing, labels): &(bool, Labels)| Note {
            receiver: "default".to_owned(),
            firing: *firing,
            labels: labels.clone(),
            at,
        };
        View {
            at,
            firing: firing.to_vec(),
            suppressed: suppressed.to_vec(),
            notes: notes.iter().map(note).collect(),
        }
    }

    #[test]
    fn fires_is_told_and_resolves() {
        let (began, lost) = (Instant::now(), alert("GpuMemoryNearlyFull", "warning"));
        let mut watch = watch("GpuMemoryNearlyFull", false);
        watch.look(&view(began, &[], &[], &[]), began, None);
        assert!(watch.fired.is_none() && watch.over.is_none());
        let told = [(true, lost.clone())];
        let all = [lost.clone()];
        watch.look(&view(began, &all, &[], &told), began, None);
        assert!(watch.satisfied() && !watch.passed());
        watch.look(&view(began, &[], &[], &told), began, Some(began));
        assert!(watch.over.is_none(), "the receiver does not know yet");
        let told = [(true, lost.clone()), (false, lost)];
        watch.look(&view(began, &[], &[], &told), began, Some(began));
        assert!(watch.passed());
        watch.look(&view(began, &all, &[], &told), began, Some(began));
        assert!(!watch.passed(), "it has come back");
    }

    #[test]
    fn is_suppressed_and_not_told() {
        let (began, hot) = (Instant::now(), alert("GpuTemperatureHigh", "warning"));
        let mut watch = watch("GpuTemperatureHigh", true);
        let all = [hot.clone()];
        watch.look(&view(began, &all, &all, &[]), began, None);
        assert!(watch.satisfied() && !watch.leaked);
        let later = began + SLACK * 2;
        watch.look(&view(later, &all, &all, &[(true, hot)]), began, None);
        assert!(watch.leaked && !watch.passed());
    }
}
