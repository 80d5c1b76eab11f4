//! The medians of a comparison.

use serde::Serialize;

use super::machine::Machine;
use super::measure::{Sample, median};
use super::peers::Peer;
use super::scenario::{Figure, Scenario};

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) scenarios: Vec<Outcome>,
}

/// One scenario with one number of workers.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) workers: usize,
    #[serde(skip)]
    pub(crate) figure: Figure,
    pub(crate) rows: Vec<Row>,
}

/// One contestant: medians over rounds. What was added is added to direct's of the same round.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) cpu_us_per_frame: Option<f64>,
    pub(crate) cpu_us_per_request: Option<f64>,
    pub(crate) added_ttft_us: [Option<f64>; 2],
    pub(crate) added_delay_us: [Option<f64>; 2],
    pub(crate) frames_per_s: Option<f64>,
    pub(crate) requests_per_s: Option<f64>,
    pub(crate) kib_per_stream: Option<f64>,
    /// When it listens, and behind its first answer.
    pub(crate) rss_mib: [Option<f64>; 2],
    /// Sums over all rounds.
    pub(crate) lost: u64,
    pub(crate) altered: u64,
    /// Rounds in which it could not be measured at all, and the first thing that went wrong in any.
    pub(crate) failed_rounds: usize,
    pub(crate) trouble: Option<String>,
    /// The scenario's figure over that of nginx and of HAProxy.
    pub(crate) of_nginx: Option<f64>,
    pub(crate) of_haproxy: Option<f64>,
    pub(crate) rounds: Vec<Option<Sample>>,
}

/// Of fewer streams the memory is less than what a process's own varies by.
const ENOUGH: usize = 100;

// === impl Outcome ===

impl Outcome {
    /// `rounds` has each contestant's samples, `None` where it did not start; `trouble` says why.
    pub(crate) fn new(
        scenario: &Scenario,
        workers: usize,
        contestants: Vec<(Peer, Vec<Result<Sample, String>>)>,
    ) -> Self {
        let direct: Vec<Option<Sample>> = contestants
            .iter()
            .find(|(peer, _)| *peer == Peer::Direct)
            .map(|(_, rounds)| rounds.iter().map(|sample| sample.clone().ok()).collect())
            .unwrap_or_default();
        let figure = scenario.figure;
        let mut rows: Vec<Row> = contestants
            .into_iter()
            .map(|(peer, rounds)| Row::new(peer, rounds, &direct, scenario.held))
            .collect();
        let of = |peer: Peer| {
            rows.iter()
                .find(|row| row.name == peer.title())
                .and_then(|row| row.figure(figure))
        };
        let (nginx, haproxy) = (of(Peer::Nginx), of(Peer::Haproxy));
        for row in &mut rows {
            let ratio = |other: Option<f64>| {
                Some(row.figure(figure)? / other.filter(|other| *other > 0.0)?)
            };
            (row.of_nginx, row.of_haproxy) = (ratio(nginx), ratio(haproxy));
        }
        Self {
            name: scenario.name,
            about: scenario.about,
            workers,
            figure,
            rows,
        }
    }
}

// === impl Row ===

impl Row {
    fn new(
        peer: Peer,
        rounds: Vec<Result<Sample, String>>,
        direct: &[Option<Sample>],
        held: bool,
    ) -> Self {
        let is_proxy = peer != Peer::Direct;
        let mut trouble = None;
        let rounds: Vec<Option<Sample>> = rounds
            .into_iter()
            .map(|sample| {
                sample
                    .map_err(|error| trouble.get_or_insert(error).clone())
                    .ok()
            })
            .collect();
        let good = || rounds.iter().flatten();
        if trouble.is_none() {
            trouble = good().find_map(|sample| sample.trouble.clone());
        }
        let of =
            |value: &dyn Fn(&Sample) -> Option<f64>| median(good().filter_map(value).collect());
        let per = |count: u64, sample: &Sample| {
            (is_proxy && count > 0).then(|| sample.cpu_us / count as f64)
        };
        let added = |value: &dyn Fn(&Sample) -> f64| {
            let pairs = rounds.iter().zip(direct).filter(|_| is_proxy);
            // None was seen: there is nothing to subtract from.
            let both = pairs
                .filter_map(|(own, direct)| Some((value(own.as_ref()?), value(direct.as_ref()?))));
            median(
                both.filter(|(own, _)| *own > 0.0)
                    .map(|(own, direct)| own - direct)
                    .collect(),
            )
        };
        Self {
            name: peer.title(),
            cpu_us_per_frame: of(&|s| per(s.frames, s)),
            cpu_us_per_request: of(&|s| per(s.requests, s)),
            added_ttft_us: [0, 1].map(|q| added(&|s| s.ttft_us[q])),
            added_delay_us: [0, 1].map(|q| added(&|s| s.delay_us[q])),
            frames_per_s: of(&|s| Some(s.frames as f64 / s.seconds)),
            requests_per_s: of(&|s| Some(s.requests as f64 / s.seconds)),
            kib_per_stream: of(&|s| {
                let grown = s.pss_loaded_kib as f64 - s.pss_idle_kib as f64;
                // What scrapes took and gave back is used again, so that the rest would say nothing.
                let measured = held && is_proxy && s.open >= ENOUGH && s.scrape.is_none();
                measured.then(|| grown / s.open as f64)
            }),
            rss_mib: [0, 1].map(|at| {
                of(&|s| {
                    let kib = [s.rss_at_start_kib, s.rss_idle_kib][at];
                    is_proxy.then(|| kib as f64 / 1024.0)
                })
            }),
            lost: good().map(|sample| sample.lost).sum(),
            altered: good().map(|sample| sample.altered).sum(),
            failed_rounds: rounds.iter().filter(|sample| sample.is_none()).count(),
            trouble,
            of_nginx: None,
            of_haproxy: None,
            rounds,
        }
    }

    pub(crate) fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::CpuPerFrame => self.cpu_us_per_frame,
            Figure::CpuPerRequest => self.cpu_us_per_request,
            Figure::AddedTtft => self.added_ttft_us[0],
            Figure::MemoryPerStream => self.kib_per_stream,
        }
    }

    /// The highest load on the origin or the client in a round.
    pub(crate) fn busiest(&self) -> f64 {
        let samples = self.rounds.iter().flatten();
        let busy = samples.map(|sample| sample.origin_busy.max(sample.client_busy));
        busy.fold(0.0, f64::max)
    }
}

// === impl Report ===

impl Report {
    /// All of it, the rounds included.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Answers that tokenglass has lost or changed: there must be none.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        let rows = self.scenarios.iter().flat_map(|scenario| &scenario.rows);
        let own = [
            Peer::Tokenglass,
            Peer::TokenglassBlind,
            Peer::TokenglassScraped,
            Peer::TokenglassOther,
        ]
        .map(Peer::title);
        rows.filter(|row| own.contains(&row.name))
            .map(|row| row.lost + row.altered)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::scrape::Scrape;
    use super::*;

    fn sample(frames: u64, cpu_us: f64, ttft: f64) -> Sample {
        Sample {
            seconds: 2.0,
            frames,
            requests: frames / 10,
            cpu_us,
            ttft_us: [ttft, 2.0 * ttft],
            ..Sample::default()
        }
    }

    #[test]
    fn rows_are_medians_over_direct_and_ratios_to_the_peers() {
        let scenario = &Scenario::all(true)[0];
        let rounds = |cpu: f64, ttft: f64| {
            [0.9, 5.0, 1.0]
                .map(|noise| Ok(sample(1000, cpu * noise, ttft)))
                .to_vec()
        };
        let outcome = Outcome::new(
            scenario,
            1,
            vec![
                (Peer::Direct, rounds(0.0, 10.0)),
                (Peer::Tokenglass, rounds(500.0, 30.0)),
                (Peer::Nginx, rounds(1000.0, 50.0)),
                (Peer::Envoy, vec![Err("gone".to_owned()); 3]),
            ],
        );
        let row = &outcome.rows[1];
        assert_eq!(row.cpu_us_per_frame, Some(0.5));
        assert_eq!(row.added_ttft_us, [Some(20.0), Some(40.0)]);
        assert_eq!(row.added_delay_us, [None, None]);
        assert_eq!((row.of_nginx, row.of_haproxy), (Some(0.5), None));
        assert_eq!(row.frames_per_s, Some(500.0));
        assert_eq!(outcome.rows[0].cpu_us_per_frame, None);
        assert_eq!(outcome.rows[3].failed_rounds, 3);
        let text = outcome.to_string();
        assert!(
            text.contains("| tokenglass | 0.50 | 5.00 | 20.0 / 40.0 |"),
            "{text}"
        );
        assert!(text.contains("Envoy: gone (3 rounds failed)"), "{text}");
    }

    fn summary(contestants: &[(Peer, f64)]) -> String {
        let all = Scenario::all(true);
        let paced = all
            .iter()
            .find(|scenario| scenario.name == "paced")
            .unwrap();
        let contestants = contestants
            .iter()
            .map(|(peer, cpu)| {
                let mut sample = sample(1000, *cpu, 0.0);
                sample.delay_us = [100.0 + cpu / 10.0, 200.0 + cpu / 5.0];
                sample.scrape = (*peer == Peer::TokenglassScraped).then_some(Scrape {
                    scrapes: 4,
                    longest_ms: 2.5,
                    lines: 30,
                    bytes: 2000,
                    gzip_bytes: 300,
                    with: vec![220.0, 200.0, 240.0],
                    without: vec![200.0, 150.0],
                });
                (*peer, vec![Ok(sample)])
            })
            .collect();
        let report = Report {
            machine: Machine::default(),
            rounds: 1,
            scenarios: vec![Outcome::new(paced, 1, contestants)],
        };
        report.to_string()
    }

    #[test]
    fn the_price_of_measuring_is_shown_when_both_ran() {
        let three = [
            (Peer::Direct, 0.0),
            (Peer::Tokenglass, 1100.0),
            (Peer::TokenglassBlind, 1000.0),
            (Peer::TokenglassScraped, 1200.0),
        ];
        let text = summary(&three);
        for line in [
            "| the same, × observer off | 1.10 |  | 1.20 | ≤ 1.15: met |",
            "tokenglass, scraped: 4 scrapes in the last round, the longest 2.5 ms; 30 lines, 2000 bytes, 300 in gzip",
            "tokenglass, scraped: a second's frame delay p99 is 220 µs with a scrape and 175 without (+25.7%; medians of 3 and 2 seconds)",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let text = summary(&three[..2]);
        assert!(!text.contains("observer off"), "{text}");
    }
}
