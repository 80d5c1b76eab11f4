//! Counts, compares, tells.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, ensure};

use crate::budget::Budget;
use crate::environment;
use crate::scenario::{self, Scenario};

/// Percent by which a count may differ from the budget.
const TOLERANCE: f64 = 3.0;
const UPDATE: &str = "tests/budget/run --update";

/// Counts everything, and holds it against the budget or makes it the budget.
pub(crate) fn run(update: bool) -> anyhow::Result<ExitCode> {
    let all = scenario::all();
    let counts = count(&all)?;
    let environment = environment::here();
    if update {
        Budget::write(&environment, &counts)?;
        for (name, unit, count) in &counts {
            println!("{name:24} {count:>12} per {unit}");
        }
        println!("written to tests/budget/budget.toml");
        return Ok(ExitCode::SUCCESS);
    }
    let budget = Budget::read()?;
    let (over, under) = table(&counts, &budget);
    let strange = warn(&environment, &budget.environment);
    if under > 0 {
        println!("{under} cost clearly less than budgeted: hold on to it with {UPDATE}");
    }
    if over == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{over} over budget by more than {TOLERANCE}%, or without one. If that is the price of something, and worth it: {UPDATE}"
    );
    if strange {
        println!("not a failure, since the budget was counted elsewhere");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// Prints how each compares. How many are over, and how many well under.
fn table(counts: &[(&str, &str, u64)], budget: &Budget) -> (usize, usize) {
    let (mut over, mut under) = (0, 0);
    println!(
        "{:24} {:>12} {:>12} {:>8}",
        "scenario", "instructions", "budget", "change"
    );
    for (name, unit, count) in counts {
        let Some(allowed) = budget.instructions.get(*name) else {
            println!(
                "{name:24} {count:>12} {:>12} {:>8} per {unit}  NEW",
                "none", ""
            );
            over += 1;
            continue;
        };
        let change = change(*count, *allowed);
        let word = if change > TOLERANCE {
            over += 1;
            "  OVER"
        } else if change < -TOLERANCE {
            under += 1;
            "  less"
        } else {
            ""
        };
        println!("{name:24} {count:>12} {allowed:>12} {change:>+7.2}% per {unit}{word}");
    }
    (over, under)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn change(count: u64, allowed: u64) -> f64 {
    (count as f64 / allowed.max(1) as f64 - 1.0) * 100.0
}

/// Tells what is not as it was where the budget was counted.
fn warn(here: &BTreeMap<String, String>, there: &BTreeMap<String, String>) -> bool {
    let mut strange = false;
    for (name, value) in here {
        if let Some(was) = there.get(name).filter(|was| *was != value) {
            println!("warning: counted with {name} \"{value}\", the budget with \"{was}\"");
            strange = true;
        }
    }
    strange
}

/// Instructions of each, per unit. Two at a time, since they do not disturb each other.
fn count(all: &[Scenario]) -> anyhow::Result<Vec<(&str, &str, u64)>> {
    let mut counts = Vec::new();
    for scenario in all {
        let (few, many) = scenario.sizes;
        let runs = (start(scenario, few)?, start(scenario, many)?);
        let (at_few, at_many) = (collected(runs.0)?, collected(runs.1)?);
        let count = at_many.saturating_sub(at_few) / (many - few) as u64;
        ensure!(count > 0, "{} costs nothing", scenario.name);
        counts.push((scenario.name, scenario.unit, count));
    }
    Ok(counts)
}

fn start(scenario: &Scenario, n: usize) -> anyhow::Result<std::process::Child> {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["replay", scenario.name, &n.to_string()])
        // The allocator gives memory back by the clock.
        .env("MIMALLOC_PURGE_DELAY", "-1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start valgrind")
}

/// What callgrind says at the end.
fn collected(run: std::process::Child) -> anyhow::Result<u64> {
    let output = run.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a replay failed: {said}");
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = count.with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok(count.trim().parse()?)
}
