//! What was read last of each upstream, for as long as it may be believed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::alias::complete;
use super::dropped::{Dropped, Reason};
use super::family::Family;
use super::filter::Filter;
use super::labels;
use super::merge::{Part, Shown, Taken, merge};
use super::parse::parse;
use crate::config;
use crate::exposition::{Kind, Writer};

/// Series of one upstream: above that something is wrong there, and a scraper would refuse it.
const MAX_SERIES: usize = 200_000;
/// A single failure may be a moment's load, the second in a row is none.
const FAILURES: u32 = 2;

/// What is shown, and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which families.
    pub filter: Filter,
    /// Add the names of vLLM's other versions.
    pub aliases: bool,
    /// What was read longer ago is not shown.
    pub fresh: Duration,
}

/// All upstreams.
#[derive(Debug)]
pub struct Snapshots {
    settings: Settings,
    taken: Taken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    engines: Vec<Engine>,
    shown: Arc<Shown>,
    /// When the first of what is shown gets stale.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Engine {
    url: String,
    families: Vec<Family>,
    /// When they were read; `None` if there is nothing to show.
    at: Option<Instant>,
    up: bool,
    failures: u32,
    last: Option<SystemTime>,
    dropped: Dropped,
}

impl From<&config::Engine> for Settings {
    fn from(engine: &config::Engine) -> Self {
        Self {
            filter: Filter {
                include: engine.include.clone(),
                exclude: engine.exclude.clone(),
            },
            aliases: engine.aliases,
            fresh: engine.interval.saturating_mul(2) + engine.timeout,
        }
    }
}

impl Snapshots {
    /// Nothing is known yet of these upstreams.
    #[must_use]
    pub fn new(
        settings: Settings,
        taken: Taken,
        upstreams: impl IntoIterator<Item = String>,
    ) -> Self {
        let engines = upstreams
            .into_iter()
            .map(|url| Engine {
                url,
                families: Vec::new(),
                at: None,
                up: false,
                failures: 0,
                last: None,
                dropped: Dropped::default(),
            })
            .collect();
        Self {
            settings,
            taken,
            state: Mutex::new(State {
                engines,
                shown: Arc::default(),
                until: None,
            }),
        }
    }

    /// The exposition of one upstream, read at `now`. False if there is not one sample in it: then it is none.
    pub fn update(&self, upstream: usize, text: &[u8], now: Instant) -> bool {
        // Before the lock: a scrape does not wait for this.
        let mut parsed = parse(text, MAX_SERIES);
        if parsed
            .families
            .iter()
            .all(|family| family.samples.is_empty())
        {
            self.failed(upstream, now);
            self.dropped(upstream, &parsed.dropped);
            return false;
        }
        if self.settings.aliases {
            complete(&mut parsed.families);
        }
        self.settings.filter.apply(&mut parsed.families);
        let mut state = self.state();
        if let Some(engine) = state.engines.get_mut(upstream) {
            engine.families = parsed.families;
            engine.at = Some(now);
            engine.up = true;
            engine.failures = 0;
            engine.last = Some(SystemTime::now());
            engine.dropped.merge(&parsed.dropped);
        }
        let merged = self.show(&mut state, now);
        drop(state);
        if let Some(dropped) = merged.get(upstream) {
            self.dropped(upstream, dropped);
        }
        true
    }

    /// One upstream could not be read.
    pub fn failed(&self, upstream: usize, now: Instant) {
        let mut state = self.state();
        let Some(engine) = state.engines.get_mut(upstream) else {
            return;
        };
        engine.up = false;
        engine.failures = engine.failures.saturating_add(1);
        if engine.failures >= FAILURES && engine.at.take().is_some() {
            engine.families = Vec::new();
            self.show(&mut state, now);
        }
    }

    /// Everything of vLLM that is fresh at `now`, and how fresh it is.
    pub fn write(&self, out: &mut Writer, now: Instant) {
        let mut state = self.state();
        if state.until.is_some_and(|until| until < now) {
            self.show(&mut state, now);
        }
        let shown = Arc::clone(&state.shown);
        write_own(&state.engines, out);
        drop(state);
        out.raw(shown.get(out.format()));
    }

    fn dropped(&self, upstream: usize, dropped: &Dropped) {
        if let Some(engine) = self.state().engines.get_mut(upstream) {
            engine.dropped.merge(dropped);
        }
    }

    /// Renders what is fresh. What could not be shown of each upstream comes back.
    fn show(&self, state: &mut State, now: Instant) -> Vec<Dropped> {
        let several = state.engines.len() > 1;
        let mut until = None;
        for engine in &mut state.engines {
            let stale = engine.at.map(|at| at + self.settings.fresh);
            if stale.is_some_and(|stale| stale < now) {
                // Nobody has said so: whoever asks it has died.
                engine.up = false;
                engine.at = None;
                engine.families = Vec::new();
            } else if let Some(stale) = stale {
                until = Some(until.map_or(stale, |until: Instant| until.min(stale)));
            }
        }
        let parts: Vec<_> = state
            .engines
            .iter()
            .map(|engine| Part {
                upstream: several.then_some(engine.url.as_str()),
                families: &engine.families,
            })
            .collect();
        let (shown, dropped) = merge(&parts, &self.taken);
        state.shown = Arc::new(shown);
        state.until = until;
        dropped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The families about the others. With one upstream they have no `upstream` label, as vLLM's have none.
fn write_own(engines: &[Engine], out: &mut Writer) {
    let label = |engine: &Engine, more: &[(&str, &str)]| {
        let upstream = labels::escape(&engine.url);
        let upstream = (engines.len() > 1).then_some(("upstream", &*upstream));
        labels::write(upstream.into_iter().chain(more.iter().copied()))
    };
    let name = "tokenglass_engine_up";
    out.family(
        name,
        Kind::Gauge,
        "Whether vLLM's own metrics could be read last time.",
    );
    for engine in engines {
        out.sample(name, &label(engine, &[]), f64::from(u8::from(engine.up)));
    }
    let name = "tokenglass_engine_last_scrape_timestamp_seconds";
    out.family(name, Kind::Gauge, "When vLLM's own metrics were read last.");
    for engine in engines {
        let since = engine
            .last
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(since) = since {
            out.sample(name, &label(engine, &[]), since.as_secs_f64());
        }
    }
    let name = "tokenglass_engine_lines_dropped_total";
    out.family(
        name,
        Kind::Counter,
        "Lines of vLLM's own metrics that are not shown, over all readings, by why.",
    );
    for engine in engines {
        for reason in Reason::ALL {
            #[expect(clippy::cast_precision_loss, reason = "nobody drops 2^53 lines")]
            let lines = engine.dropped.get(*reason) as f64;
            out.sample(
                name,
                &label(engine, &[("reason", reason.as_label())]),
                lines,
            );
        }
    }
}
