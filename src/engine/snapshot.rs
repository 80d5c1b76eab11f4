//! What was read last of each upstream, for as long as it may be believed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::alias::complete;
use super::dropped::{Dropped, Reason};
use super::family::Family;
use super::filter::Filter;
use super::labels;
use super::merge::{Part, Taken, merge};
use super::parse::parse;
use crate::config;
use crate::exposition::{Format, Kind, Writer};

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
    /// By their numbers.
    engines: BTreeMap<usize, Engine>,
    /// There may be several, so that a label must tell them apart.
    several: bool,
    /// Rendered when it is asked for: most upstreams are read more often than they are scraped, and hardly anybody scrapes
    /// in both formats.
    shown: Shown,
}

/// What is rendered of the present readings.
#[derive(Debug, Default)]
struct Shown {
    text: Option<Arc<Vec<u8>>>,
    open_metrics: Option<Arc<Vec<u8>>>,
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
    /// Readings since the last rendering, whose lines that could not be shown are still to be counted.
    uncounted: u64,
}

impl Engine {
    fn new(url: String) -> Self {
        Self {
            url,
            families: Vec::new(),
            at: None,
            up: false,
            failures: 0,
            last: None,
            dropped: Dropped::default(),
            uncounted: 0,
        }
    }
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
    /// Nothing is known yet of these upstreams, numbered from 0.
    #[must_use]
    pub fn new(
        settings: Settings,
        taken: Taken,
        upstreams: impl IntoIterator<Item = String>,
    ) -> Self {
        let engines: BTreeMap<_, _> = upstreams.into_iter().map(Engine::new).enumerate().collect();
        Self {
            settings,
            taken,
            state: Mutex::new(State {
                several: engines.len() > 1,
                engines,
                shown: Shown::default(),
            }),
        }
    }

    /// Upstreams come and go: each has its label, also one that is alone.
    #[must_use]
    pub fn changing(self) -> Self {
        self.state().several = true;
        self
    }

    /// There is one more, with a number that no other has.
    pub fn add(&self, upstream: usize, url: String) {
        self.state().engines.insert(upstream, Engine::new(url));
    }

    /// It is gone, and what it had with it.
    pub fn remove(&self, upstream: usize) {
        let mut state = self.state();
        if state.engines.remove(&upstream).is_some() {
            state.shown = Shown::default();
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
            self.failed(upstream);
            self.dropped(upstream, &parsed.dropped);
            return false;
        }
        if self.settings.aliases {
            complete(&mut parsed.families);
        }
        self.settings.filter.apply(&mut parsed.families);
        let mut state = self.state();
        if let Some(engine) = state.engines.get_mut(&upstream) {
            engine.families = parsed.families;
            engine.at = Some(now);
            engine.up = true;
            engine.failures = 0;
            engine.last = Some(SystemTime::now());
            engine.dropped.merge(&parsed.dropped);
            engine.uncounted += 1;
        }
        state.shown = Shown::default();
        true
    }

    /// One upstream could not be read.
    pub fn failed(&self, upstream: usize) {
        let mut state = self.state();
        let Some(engine) = state.engines.get_mut(&upstream) else {
            return;
        };
        engine.up = false;
        engine.failures = engine.failures.saturating_add(1);
        if engine.failures >= FAILURES && engine.at.take().is_some() {
            engine.families = Vec::new();
            state.shown = Shown::default();
        }
    }

    /// Everything of vLLM that is fresh at `now`, and how fresh it is.
    pub fn write(&self, out: &mut Writer, now: Instant) {
        let mut state = self.state();
        self.expire(&mut state, now);
        let shown = self.show(&mut state, out.format());
        write_own(&state.engines, state.several, out);
        drop(state);
        out.raw(&shown);
    }

    fn dropped(&self, upstream: usize, dropped: &Dropped) {
        if let Some(engine) = self.state().engines.get_mut(&upstream) {
            engine.dropped.merge(dropped);
        }
    }

    /// Forgets what is not fresh any more.
    fn expire(&self, state: &mut State, now: Instant) {
        for engine in state.engines.values_mut() {
            if engine.at.is_some_and(|at| at + self.settings.fresh < now) {
                // Nobody has said so: whoever asks it has died.
                engine.up = false;
                engine.at = None;
                engine.families = Vec::new();
                state.shown = Shown::default();
            }
        }
    }

    /// What is there in this format, rendered if it has not been.
    fn show(&self, state: &mut State, format: Format) -> Arc<Vec<u8>> {
        let shown = match format {
            Format::Text => &mut state.shown.text,
            Format::OpenMetrics => &mut state.shown.open_metrics,
        };
        if let Some(shown) = shown {
            return Arc::clone(shown);
        }
        let several = state.several;
        let parts: Vec<_> = state
            .engines
            .values()
            .map(|engine| Part {
                upstream: several.then_some(engine.url.as_str()),
                families: &engine.families,
            })
            .collect();
        let (text, dropped) = merge(&parts, &self.taken, format);
        for (engine, dropped) in state.engines.values_mut().zip(&dropped) {
            // Those in between are taken to have been like the last one.
            engine
                .dropped
                .merge_times(dropped, std::mem::take(&mut engine.uncounted));
        }
        Arc::clone(shown.insert(Arc::new(text)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The families about the others. With one upstream they have no `upstream` label, as vLLM's have none.
fn write_own(engines: &BTreeMap<usize, Engine>, several: bool, out: &mut Writer) {
    let label = |engine: &Engine, more: &[(&str, &str)]| {
        let upstream = labels::escape(&engine.url);
        let upstream = several.then_some(("upstream", &*upstream));
        labels::write(upstream.into_iter().chain(more.iter().copied()))
    };
    let name = "tokenglass_engine_up";
    out.family(
        name,
        Kind::Gauge,
        "Whether vLLM's own metrics could be read last time.",
    );
    for engine in engines.values() {
        out.sample(name, &label(engine, &[]), f64::from(u8::from(engine.up)));
    }
    let name = "tokenglass_engine_last_scrape_timestamp_seconds";
    out.family(name, Kind::Gauge, "When vLLM's own metrics were read last.");
    for engine in engines.values() {
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
    for engine in engines.values() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_scraped_is_rendered() {
        let settings = Settings {
            filter: Filter::default(),
            aliases: false,
            fresh: Duration::from_secs(1),
        };
        let taken = Taken::new([("ours", Kind::Gauge)]);
        let urls = ["http://a", "http://b"].map(str::to_owned);
        let snapshots = Snapshots::new(settings, taken, urls);
        let now = Instant::now();
        let rendered = || {
            let state = snapshots.state();
            let shown = &state.shown;
            (shown.text.clone(), shown.open_metrics.clone())
        };
        let name_taken = || snapshots.state().engines[&0].dropped.get(Reason::NameTaken);
        let scrape = |format, now| {
            let mut out = Writer::new(format, 0);
            snapshots.write(&mut out, now);
            String::from_utf8(out.finish()).unwrap()
        };
        for _ in 0..3 {
            snapshots.update(0, b"a 1\nours 1\n", now);
            snapshots.update(1, b"a 2\n", now);
        }
        assert_eq!(rendered(), (None, None));
        scrape(Format::Text, now);
        let (text, open_metrics) = rendered();
        assert!(text.is_some() && open_metrics.is_none());
        scrape(Format::Text, now);
        assert!(Arc::ptr_eq(&text.unwrap(), &rendered().0.unwrap()));
        assert!(scrape(Format::OpenMetrics, now).contains("a{upstream=\"http://b\"} 2\n"));
        assert_eq!(name_taken(), 3, "each reading's, once");
        snapshots.update(1, b"a 3\n", now);
        assert_eq!(rendered(), (None, None));
        assert!(scrape(Format::Text, now).contains("a{upstream=\"http://b\"} 3\n"));
        assert_eq!(name_taken(), 3);
        let late = now + Duration::from_millis(1001);
        assert!(!scrape(Format::Text, late).contains("\na{"));
    }
}
