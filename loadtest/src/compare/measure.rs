//! One contestant under one load.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::{Load, Tally};
use super::peers::{Peer, Places};
use super::process::{Cpu, Memory, Tree};
use super::scenario::Scenario;
use super::scrape::{self, Scrape, Scraper};

/// How long the parts take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) warm: Duration,
    pub(crate) window: Duration,
    /// Between two looks at the memory of a program that has just started.
    pub(crate) settle: Duration,
}

/// What a window gave.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) frames: u64,
    pub(crate) requests: u64,
    /// Of the proxy; 0 without one.
    pub(crate) cpu_us: f64,
    /// Of the origin and of the client, in shares of a core: near 1 they are the bottleneck.
    pub(crate) origin_busy: f64,
    pub(crate) client_busy: f64,
    pub(crate) ttft_us: [f64; 2],
    pub(crate) delay_us: [f64; 2],
    /// When it listens.
    pub(crate) rss_at_start_kib: u64,
    /// Behind its first answer, for which some load what they need only then.
    pub(crate) rss_idle_kib: u64,
    pub(crate) pss_idle_kib: u64,
    pub(crate) pss_loaded_kib: u64,
    /// Streams open when memory was read.
    pub(crate) open: usize,
    pub(crate) lost: u64,
    pub(crate) altered: u64,
    /// If it was scraped.
    pub(crate) scrape: Option<Scrape>,
    pub(crate) trouble: Option<String>,
}

/// Who is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contest<'a> {
    pub(crate) peer: Peer,
    pub(crate) workers: usize,
    pub(crate) places: &'a Places,
    pub(crate) origin: (SocketAddr, Tree),
}

/// Looks at a memory that grows, at most.
const SETTLING: usize = 12;
const SETTLED_KIB: u64 = 64;
/// For 9 000 connections, one after the other, through a slow proxy.
const OPENING: Duration = Duration::from_secs(60);
/// For streams at the end of a window to come to theirs.
const ENDING: Duration = Duration::from_secs(20);

// === impl Contest ===

impl Contest<'_> {
    /// Starts the proxy, loads it, and ends it.
    pub(crate) async fn measure(
        self,
        scenario: &Rc<Scenario>,
        times: Times,
    ) -> anyhow::Result<Sample> {
        let (origin, origin_tree) = self.origin;
        let mut running = match self.peer {
            Peer::Direct => None,
            peer => Some(peer.start(self.places, origin, self.workers)?),
        };
        let (mut at_start, mut idle) = (Memory::default(), Memory::default());
        let mut scraper = None;
        if let Some(running) = &mut running {
            at_start = settled(running.tree(), times.settle).await;
            running.wait_until_it_answers()?;
            if self.peer == Peer::TokenglassScraped {
                scraper = Some(Scraper::prepare(running.addr, running.admin).await?);
            }
            idle = settled(running.tree(), times.settle).await;
        }
        let load = Load::start(
            scenario,
            running.as_ref().map_or(origin, |running| running.addr),
        );
        if let Some(scraper) = &scraper {
            load.beside(Rc::clone(scraper).run(Rc::clone(&load.tally)));
        }
        if scenario.held {
            let all = scenario.connections;
            if !load.work(OPENING, |tally| tally.open.get() >= all).await {
                let open = load.tally.open.get();
                load.tally
                    .fail(&format!("{open} of {all} streams could be opened"));
            }
        }
        load.work(times.warm, |_| false).await;
        let cpu = || {
            let proxy = running
                .as_ref()
                .map_or(Cpu::default(), |running| running.tree().cpu());
            [proxy, origin_tree.cpu(), Tree::own_cpu()]
        };
        let (before, start, counts) = (cpu(), Instant::now(), counts(&load.tally));
        load.tally.keep.set(true);
        let mut window = scenario.window(times.window);
        if scraper.is_some() {
            // With whole seconds of either kind, and enough of them: one second's percentile says little.
            window = (window * 5).max(scrape::EVERY * 4);
        }
        load.work(window, |_| false).await;
        load.tally.keep.set(false);
        let (seconds, after) = (start.elapsed().as_secs_f64(), cpu());
        let now = self::counts(&load.tally);
        let [proxy, origin, client] =
            [0, 1, 2].map(|at| after[at].since(&before[at]).as_secs_f64());
        let open = load.tally.open.get();
        let loaded = running
            .as_ref()
            .map_or(Memory::default(), |running| running.tree().memory());
        load.tally.stop.set(true);
        if !scenario.held && !load.work(ENDING, |_| load.done()).await {
            load.tally.fail("streams without an end");
        }
        let tally = load.end();
        let trouble = tally.trouble.take();
        // The streams are gone, what is known of them is not.
        let scrape = match &scraper {
            Some(scraper) => {
                let delays = tally.delay.borrow().clone();
                Some(scraper.seen(&delays).await?)
            }
            None => None,
        };
        Ok(Sample {
            seconds,
            frames: now.0 - counts.0,
            requests: now.1 - counts.1,
            cpu_us: proxy * 1e6,
            origin_busy: origin / seconds,
            client_busy: client / seconds,
            ttft_us: [0.5, 0.99].map(|q| percentile(&mut tally.ttft.borrow_mut(), q)),
            delay_us: [0.5, 0.99].map(|q| percentile(&mut tally.delay.borrow_mut(), q)),
            rss_at_start_kib: at_start.rss,
            rss_idle_kib: idle.rss,
            pss_idle_kib: idle.pss,
            pss_loaded_kib: loaded.pss,
            open,
            lost: tally.lost.get(),
            altered: tally.altered.get(),
            scrape,
            trouble,
        })
    }
}

/// Memory once it has stopped to grow by itself.
async fn settled(tree: Tree, interval: Duration) -> Memory {
    let mut last = Memory::default();
    for _ in 0..SETTLING {
        tokio::time::sleep(interval).await;
        let now = tree.memory();
        if now.pss.abs_diff(last.pss) < SETTLED_KIB {
            return now;
        }
        last = now;
    }
    last
}

fn counts(tally: &Tally) -> (u64, u64) {
    (tally.frames.get(), tally.requests.get())
}

/// By nearest rank; 0 of nothing.
pub(crate) fn percentile(values: &mut [f32], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let rank = (q * values.len() as f64).ceil() as usize;
    let (_, value, _) = values.select_nth_unstable_by(rank.saturating_sub(1), f32::total_cmp);
    f64::from(*value)
}

/// The middle one, or the mean of the two middle ones; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 {
        values.get(half).copied()
    } else {
        Some(f64::midpoint(
            *values.get(half.checked_sub(1)?)?,
            *values.get(half)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_medians() {
        let mut values: Vec<f32> = (1..=200).rev().map(|value| value as f32).collect();
        assert_eq!(percentile(&mut values, 0.5), 100.0);
        assert_eq!(percentile(&mut values, 0.99), 198.0);
        assert_eq!(percentile(&mut values, 1.0), 200.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
