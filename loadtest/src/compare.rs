//! What a proxy costs, side by side with others, in one run on one machine.
//!
//! Three processes at a time: the origin, one proxy, and this one with the client, so that a proxy's CPU is its own. Each
//! measurement starts its proxy anew. Rounds are interleaved, because machines have moods that last for minutes: what
//! a contestant is compared with was measured seconds before or after it.

mod check;
mod client;
mod goals;
mod grid;
mod launch;
mod machine;
mod measure;
mod origin;
mod peers;
mod process;
mod relay;
mod report;
mod scenario;
mod scrape;
mod script;
mod table;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;

pub use origin::{Common, Origin, Pace};
pub use peers::Peer;
pub use relay::relay;
pub use report::Report;

use machine::Machine;
use measure::{Contest, Sample, Times};
use peers::Places;
use process::Tree;
use report::Outcome;
use scenario::Scenario;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often each is measured.
    pub rounds: usize,
    /// Names of scenarios; none is all but those that only come when asked for.
    pub scenarios: Vec<String>,
    /// Contestants; none is all but those that only come when asked for.
    pub peers: Vec<Peer>,
    /// Numbers of workers, one after the other.
    pub workers: Vec<usize>,
    /// tokenglass.
    pub binary: PathBuf,
    /// Another build of it, as a contestant of its own.
    pub other: Option<PathBuf>,
    /// Where peers were installed.
    pub installed: PathBuf,
    /// A fraction of the time and of the open streams: to see that it works.
    pub quick: bool,
}

/// The origin's process, which ends when its standard input does: even if this process is killed.
struct OriginProcess {
    child: Child,
    addr: SocketAddr,
}

/// A folder for configurations and logs, gone with the value.
struct Scratch(PathBuf);

// === impl Plan ===

impl Plan {
    /// The names of all scenarios with what they are, and whether they only come when asked for.
    #[must_use]
    pub fn scenarios() -> Vec<(&'static str, &'static str, bool)> {
        let all = Scenario::all(false);
        all.iter()
            .map(|scenario| (scenario.name, scenario.about, scenario.asked))
            .collect()
    }

    /// Measures all of it; `progress` is told before each step. Needs a current-thread runtime.
    ///
    /// # Errors
    /// If a scenario is unknown or the origin does not start. A contestant that fails is a row that says so.
    pub async fn run(&self, mut progress: impl FnMut(&str)) -> anyhow::Result<Report> {
        let mut scenarios = Scenario::all(self.quick);
        let names: Vec<&str> = Self::scenarios()
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        if let Some(unknown) = self
            .scenarios
            .iter()
            .find(|name| !names.contains(&name.as_str()))
        {
            anyhow::bail!("no scenario `{unknown}`: there are {}", names.join(", "));
        }
        scenarios.retain(|s| {
            let named = self.scenarios.iter().any(|name| name == s.name);
            named || self.scenarios.is_empty() && !s.asked
        });
        let scratch = Scratch::new()?;
        let places = Places {
            peers: self.installed.clone(),
            tokenglass: std::path::absolute(&self.binary)?,
            other: self.other.as_ref().map(std::path::absolute).transpose()?,
            scratch: scratch.0.clone(),
        };
        let peers = self.contestants(&places, &mut progress);
        let mut report = Report {
            machine: Machine::look(&peers, &places),
            rounds: self.rounds,
            scenarios: Vec::new(),
        };
        for workers in &self.workers {
            for scenario in &scenarios {
                let scenario = Rc::new(scenario.clone());
                let outcome = self
                    .scenario(&scenario, *workers, &peers, &places, &mut progress)
                    .await?;
                report.scenarios.push(outcome);
            }
        }
        Ok(report)
    }

    fn contestants(&self, places: &Places, progress: &mut impl FnMut(&str)) -> Vec<Peer> {
        let mut peers = self.peers.clone();
        if peers.is_empty() {
            peers.extend(Peer::ALL.into_iter().filter(|peer| !peer.asked()));
        }
        if self.other.is_some() {
            peers.push(Peer::TokenglassOther);
        }
        // Without it there would be nothing to subtract.
        peers.push(Peer::Direct);
        peers.sort_unstable();
        peers.dedup();
        peers.retain(|peer| {
            let found = *peer == Peer::Direct || peer.program(places).is_some();
            if !found {
                progress(&format!("skipped, not installed: {}", peer.title()));
            }
            found
        });
        peers
    }

    async fn scenario(
        &self,
        scenario: &Rc<Scenario>,
        workers: usize,
        peers: &[Peer],
        places: &Places,
        progress: &mut impl FnMut(&str),
    ) -> anyhow::Result<Outcome> {
        // Further models are further work for whoever asks for the list, so only where they are used.
        let scraped = peers.contains(&Peer::TokenglassScraped);
        let models = if scraped { scrape::MODELS } else { 0 };
        let origin = OriginProcess::start(scenario, workers, models)?;
        let mut samples: Vec<Vec<Result<Sample, String>>> = vec![Vec::new(); peers.len()];
        for round in 0..self.rounds {
            for turn in 0..peers.len() {
                // Nobody is always first, when the machine is still cool.
                let at = (turn + round) % peers.len();
                let contest = Contest {
                    peer: peers[at],
                    workers,
                    places,
                    origin: (origin.addr, Tree(origin.child.id())),
                };
                let sample = contest.measure(scenario, self.times()).await;
                let said = match &sample {
                    Ok(sample) => format!(
                        "{} frames, {} requests in {:.1} s, proxy {:.2} origin {:.2} client {:.2} cores",
                        sample.frames,
                        sample.requests,
                        sample.seconds,
                        sample.cpu_us / 1e6 / sample.seconds,
                        sample.origin_busy,
                        sample.client_busy
                    ),
                    Err(error) => format!("{error:#}"),
                };
                let (name, peer, round) = (scenario.name, peers[at].title(), round + 1);
                progress(&format!(
                    "{name}, {workers} worker(s), round {round}, {peer}: {said}"
                ));
                samples[at].push(sample.map_err(|error| format!("{error:#}")));
            }
        }
        let contestants = peers.iter().copied().zip(samples).collect();
        Ok(Outcome::new(scenario, workers, contestants))
    }

    fn times(&self) -> Times {
        let ms = Duration::from_millis;
        if self.quick {
            Times {
                warm: ms(200),
                window: ms(600),
                settle: ms(100),
            }
        } else {
            Times {
                warm: ms(1000),
                window: ms(4000),
                settle: ms(250),
            }
        }
    }
}

// === impl Scratch ===

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let name = format!("tokenglass-compare-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// === impl OriginProcess ===

impl OriginProcess {
    fn start(scenario: &Scenario, workers: usize, models: usize) -> anyhow::Result<Self> {
        let us = |duration: Duration| duration.as_micros().to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "origin",
            "--first-us",
            &us(scenario.first),
            "--gap-us",
            &us(scenario.gap),
        ]);
        command.args(scenario.eager.then_some("--eager"));
        command.args([
            "--threads",
            &workers.to_string(),
            "--streams",
            &scenario.connections.to_string(),
            "--models",
            &models.to_string(),
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let addr = line
            .trim()
            .parse()
            .context("the origin did not say where it listens")?;
        Ok(Self { child, addr })
    }
}

impl Drop for OriginProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
