//! A comparison as tables.

use std::fmt;

use super::goals::{GOALS, Of};
use super::measure::median;
use super::peers::Peer;
use super::report::{Outcome, Report, Row};

/// What the price of the measuring is said of.
const OWN: [Peer; 3] = [
    Peer::Tokenglass,
    Peer::TokenglassScraped,
    Peer::TokenglassOther,
];

/// A column: its title, and what stands in it.
type Column<'a> = (String, Box<dyn Fn(&Row) -> String + 'a>);

// === impl Report ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.machine)?;
        let rounds = self.rounds;
        writeln!(
            f,
            "Medians of {rounds} interleaved rounds. CPU is the proxy's own, memory its PSS; added is over direct."
        )?;
        for scenario in &self.scenarios {
            scenario.fmt(f)?;
        }
        let mut workers: Vec<usize> = self.scenarios.iter().map(|s| s.workers).collect();
        workers.dedup();
        workers
            .into_iter()
            .try_for_each(|workers| self.summary(f, workers))
    }
}

impl Report {
    /// All goals of which the scenario was run, side by side.
    fn summary(&self, f: &mut fmt::Formatter<'_>, workers: usize) -> fmt::Result {
        let scenarios = || self.scenarios.iter().filter(|s| s.workers == workers);
        let is_goal = |outcome: &&Outcome| GOALS.iter().any(|goal| goal.scenario == outcome.name);
        let Some(first) = scenarios().find(is_goal) else {
            return Ok(());
        };
        let names: Vec<&str> = first.rows.iter().skip(1).map(|row| row.name).collect();
        writeln!(f, "\n### Summary ({})\n", count(workers))?;
        writeln!(f, "| figure | {} | goal |", names.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(names.len() + 1))?;
        for goal in &GOALS {
            let Some(scenario) = scenarios().find(|s| s.name == goal.scenario) else {
                continue;
            };
            let raw = |name: &str| {
                let row = scenario.rows.iter().find(|row| row.name == name)?;
                (goal.value)(row)
            };
            let (of, limit, bound) = match goal.of {
                Of::Nothing => (None, None, String::new()),
                Of::Value(most) => (None, Some(most), format!("≤ {most}")),
                Of::Peer(most, peer) => {
                    let limit = raw(peer.title()).map(|other| other * most);
                    (None, limit, format!("≤ {most:.1} × {}", peer.title()))
                }
                Of::Share(most, peer) => {
                    let Some(whole) = raw(peer.title()).filter(|whole| *whole > 0.0) else {
                        continue;
                    };
                    (Some(whole), Some(most), format!("≤ {most}"))
                }
            };
            let value = |name: &str| match of {
                // Of others it would say nothing.
                Some(_) if !OWN.map(Peer::title).contains(&name) => None,
                Some(whole) => raw(name).map(|own| own / whole),
                None => raw(name),
            };
            let cells: Vec<String> = names.iter().map(|name| show(value(name))).collect();
            let met = match (value(Peer::Tokenglass.title()), limit) {
                (Some(own), Some(limit)) if own <= limit => ": met",
                (Some(_), Some(_)) => ": missed",
                _ => "",
            };
            let (title, cells) = (goal.title, cells.join(" | "));
            writeln!(f, "| {title} | {cells} | {bound}{met} |")?;
        }
        Ok(())
    }
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = count(self.workers);
        writeln!(f, "\n### {}: {} ({workers})\n", self.name, self.about)?;
        let mut columns = self.columns();
        // What a scenario does not measure has no column.
        columns.retain(|(_, cell)| self.rows.iter().any(|row| !cell(row).is_empty()));
        let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
        writeln!(f, "| | {} |", titles.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(columns.len()))?;
        for row in &self.rows {
            let cells: Vec<String> = columns.iter().map(|(_, cell)| cell(row)).collect();
            writeln!(f, "| {} | {} |", row.name, cells.join(" | "))?;
        }
        writeln!(f)?;
        self.rows.iter().try_for_each(|row| notes(f, row))
    }
}

impl Outcome {
    fn columns(&self) -> Vec<Column<'_>> {
        let figure = self.figure.title();
        let column = |title: &str, cell: fn(&Row) -> String| -> Column<'_> {
            (title.to_owned(), Box::new(cell))
        };
        vec![
            column("CPU a frame, µs", |row| show(row.cpu_us_per_frame)),
            column("CPU a request, µs", |row| show(row.cpu_us_per_request)),
            column("added TTFT p50 / p99, µs", |row| pair(row.added_ttft_us)),
            column("added frame delay p50 / p99, µs", |row| {
                pair(row.added_delay_us)
            }),
            column("frames/s", |row| {
                show(row.frames_per_s.filter(|n| *n > 0.0))
            }),
            column("requests/s", |row| {
                show(row.requests_per_s.filter(|n| *n > 0.0))
            }),
            column("memory a stream, KiB", |row| show(row.kib_per_stream)),
            column("resident at start / idle, MiB", |row| pair(row.rss_mib)),
            column("lost / altered", |row| {
                format!("{} / {}", row.lost, row.altered)
            }),
            column(&format!("{figure}: × nginx"), |row| ratio(row.of_nginx)),
            column("× HAProxy", |row| ratio(row.of_haproxy)),
        ]
    }
}

/// What a reader of a row's figures must know.
fn notes(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let (name, failed, busiest) = (row.name, row.failed_rounds, row.busiest());
    if let Some(trouble) = &row.trouble {
        writeln!(f, "{name}: {trouble} ({failed} rounds failed)")?;
    }
    if row.altered > 0 {
        writeln!(
            f,
            "{name}: what comes are not the origin's bytes, so its frames are counted by length"
        )?;
    }
    let scrapes = || {
        let rounds = row.rounds.iter().flatten();
        rounds.filter_map(|round| round.scrape.as_ref())
    };
    if let Some(scrape) = scrapes().next_back() {
        let (times, longest) = (scrape.scrapes, scrape.longest_ms);
        let (lines, bytes, packed) = (scrape.lines, scrape.bytes, scrape.gzip_bytes);
        writeln!(
            f,
            "{name}: {times} scrapes in the last round, the longest {longest:.1} ms; {lines} lines, {bytes} bytes, {packed} in gzip"
        )?;
        let with: Vec<f64> = scrapes().flat_map(|s| s.with.iter().copied()).collect();
        let without: Vec<f64> = scrapes().flat_map(|s| s.without.iter().copied()).collect();
        let seconds = [with.len(), without.len()];
        if let (Some(with), Some(without)) = (median(with), median(without)) {
            writeln!(
                f,
                "{name}: a second's frame delay p99 is {with:.0} µs with a scrape and {without:.0} without ({:+.1}%; medians of {} and {} seconds)",
                (with / without - 1.0) * 100.0,
                seconds[0],
                seconds[1],
            )?;
        }
    }
    if busiest > 0.95 {
        writeln!(
            f,
            "{name}: origin or client used {busiest:.2} of a core, so this throughput may be theirs"
        )?;
    }
    Ok(())
}

fn count(workers: usize) -> String {
    match workers {
        1 => "1 worker".to_owned(),
        _ => format!("{workers} workers"),
    }
}

fn pair([a, b]: [Option<f64>; 2]) -> String {
    match (a, b) {
        (None, None) => String::new(),
        _ => format!("{} / {}", show(a), show(b)),
    }
}

fn ratio(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.2}"))
}

/// Three digits that say something.
fn show(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
