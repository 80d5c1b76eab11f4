//! What the drill has shown.

use std::fmt;
use std::time::Instant;

use serde_json::{Value, json};

use super::watch::Watch;

/// The outcome of a drill.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    /// What is wrong and belongs to no row.
    pub(super) wrong: Vec<String>,
    /// Alerts of models and rigs that they were not meant for, which is no fault of theirs: a killed vLLM is stalled too.
    pub(super) also: Vec<String>,
    pub(super) seconds: f64,
    pub(super) scale: f64,
}

#[derive(Debug)]
struct Row {
    alert: String,
    severity: &'static str,
    fault: &'static str,
    fired: Option<f64>,
    routed: Vec<String>,
    inhibited: String,
    resolved: Option<f64>,
    passed: bool,
}

// === impl Report ===

impl Report {
    /// Takes in an alert of a fault that began and ended then.
    pub(super) fn add(
        &mut self,
        watch: &Watch,
        fault: &'static str,
        began: Instant,
        ended: Instant,
    ) {
        let case = &watch.case;
        let since = |at: Instant, start: Instant| at.saturating_duration_since(start).as_secs_f64();
        let inhibited = match (case.hidden_by, watch.suppressed) {
            (None, _) => "-".to_owned(),
            (Some(_), None) => "NOT SUPPRESSED".to_owned(),
            (Some(_), Some(_)) if watch.leaked => "TOLD ALL THE SAME".to_owned(),
            (Some(by), Some(_)) if watch.told.is_empty() => format!("by {by}, never told"),
            (Some(by), Some(_)) if watch.told_before => format!("by {by}, told before"),
            (Some(by), Some(_)) => format!("by {by}, told after it"),
        };
        let window = match case.window {
            "" => String::new(),
            window => format!(" {window}"),
        };
        self.rows.push(Row {
            alert: format!("{}{window}", case.alert),
            severity: case.severity(),
            fault,
            fired: watch.fired.map(|at| since(at, began)),
            routed: watch.told.iter().cloned().collect(),
            inhibited,
            resolved: watch.over.map(|at| since(at, ended)),
            passed: watch.passed(),
        });
    }

    /// Whether every alert did what it should, and no other thing was wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.wrong.is_empty() && self.rows.iter().all(|row| row.passed)
    }

    /// The same for machines.
    #[must_use]
    pub fn to_json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let document = json!({
            "passed": self.passed(), "seconds": self.seconds, "scale": self.scale,
            "alerts": rows, "wrong": self.wrong, "also_fired": self.also,
        });
        format!("{document:#}\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "alert",
            "severity",
            "fault",
            "fired after",
            "routed to",
            "inhibited?",
            "resolved after",
            "",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = lines.iter().filter_map(|line| line.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for line in &lines {
            let cells = line.iter().zip(&widths);
            let cells: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        let failed = self.rows.iter().filter(|row| !row.passed).count();
        let (rows, seconds, scale) = (self.rows.len(), self.seconds, self.scale);
        writeln!(
            f,
            "\n{rows} alerts, {failed} failed; {seconds:.0} s with durations divided by {scale}"
        )?;
        if !self.also.is_empty() {
            writeln!(
                f,
                "fired beside them, as the faults have more than one sign: {}",
                self.also.join(", ")
            )?;
        }
        for wrong in &self.wrong {
            writeln!(f, "WRONG: {wrong}")?;
        }
        Ok(())
    }
}

// === impl Row ===

impl Row {
    fn cells(&self) -> [String; 8] {
        let seconds =
            |value: Option<f64>| value.map_or("NEVER".to_owned(), |s| format!("{s:.1} s"));
        let routed = match self.routed.join(", ") {
            none if none.is_empty() => "-".to_owned(),
            all => all,
        };
        // One that is to be suppressed may have to fire first.
        let fired = match self.fired {
            Some(0.0) => "before".to_owned(),
            after => seconds(after),
        };
        [
            self.alert.clone(),
            self.severity.to_owned(),
            self.fault.to_owned(),
            fired,
            routed,
            self.inhibited.clone(),
            seconds(self.resolved),
            if self.passed { "ok" } else { "FAILED" }.to_owned(),
        ]
    }

    fn to_json(&self) -> Value {
        json!({
            "alert": self.alert, "severity": self.severity, "fault": self.fault, "fired_after_s": self.fired,
            "routed_to": self.routed, "inhibited": self.inhibited, "resolved_after_s": self.resolved,
            "passed": self.passed,
        })
    }
}
