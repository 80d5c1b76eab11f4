//! Mixed traffic from a bounded number of clients, the same for the same seed.
//!
//! [`run`] keeps a number of requests in flight until a count or a time is reached; [`Steady`] sends at a rate until
//! it is told to stop. Neither ever sends a request twice: an answer that does not come is an outcome, and a retry
//! would hide what is being measured.

mod body;
mod client;
mod record;
mod request;
mod summary;
mod target;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use record::{Cancel, Outcome, Record};
pub use summary::{Percentiles, Summary};
pub use target::{Target, TargetError};

use crate::sim::Dist;
use client::{Pool, perform};
use request::Request;

/// What to send, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub target: Target,
    /// Requests in flight at once.
    pub concurrency: usize,
    /// Stop after this many.
    pub requests: Option<u64>,
    /// Send no more after this long.
    pub duration: Option<Duration>,
    /// What the requests are.
    pub mix: Mix,
    /// `x-sim` headers and the share of requests that carry each.
    pub directives: Vec<(f64, String)>,
    /// Headers that all requests carry.
    pub headers: Vec<(String, String)>,
    /// For everything that is drawn.
    pub seed: u64,
    /// Ids are this, a dash and a number.
    pub id_prefix: String,
    /// Reuse connections.
    pub keep_alive: bool,
    /// Keep a [`Record`] of every request.
    pub keep_records: bool,
    /// With the bytes of its answer.
    pub keep_bodies: bool,
    /// How long a client that leaves before the head waits for it.
    pub cancel_delay: Duration,
    /// When a client gives up on an answer.
    pub timeout: Duration,
}

/// Shares of kinds of requests, each from 0 to 1.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Streams.
    pub stream: f64,
    /// Of the streams, those with `include_usage`.
    pub usage: f64,
    /// Of those, with `continuous_usage_stats` too.
    pub continuous: f64,
    /// `/v1/completions` instead of chat.
    pub completions: f64,
    /// Of the chats, those that offer tools.
    pub tools: f64,
    /// `n` = 2.
    pub n2: f64,
    /// Clients that leave before the head.
    pub cancel_before_head: f64,
    /// Clients that leave before the first token.
    pub cancel_before_token: f64,
    /// Clients that leave in the middle.
    pub cancel_mid_stream: f64,
    /// Clients that leave at `[DONE]`.
    pub cancel_after_done: f64,
    /// Models, equally often.
    pub models: Vec<String>,
    /// `max_tokens`.
    pub max_tokens: Dist,
    /// Bytes of prompt; `None` is some hundred.
    pub prompt_bytes: Option<Dist>,
}

/// Traffic at a rate.
#[derive(Clone, Debug)]
pub struct Steady {
    /// What to send; its `concurrency` bounds what is in flight, its `requests` and `duration` are not looked at.
    pub plan: Plan,
    /// Requests a second, with exponential gaps.
    pub rate: f64,
}

// === impl Plan ===

impl Plan {
    /// 100 requests of the default mix, 8 at once.
    #[must_use]
    pub fn new(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            concurrency: 8,
            requests: Some(100),
            duration: None,
            mix: Mix::default(),
            directives: Vec::new(),
            headers: Vec::new(),
            seed: 1,
            id_prefix: "load".to_owned(),
            keep_alive: true,
            keep_records: true,
            keep_bodies: false,
            cancel_delay: Duration::from_millis(2),
            timeout: Duration::from_secs(60),
        }
    }
}

// === impl Mix ===

impl Default for Mix {
    /// Mostly streams, everything in it, nobody leaves.
    fn default() -> Self {
        Self {
            stream: 0.8,
            usage: 0.5,
            continuous: 0.2,
            completions: 0.2,
            tools: 0.1,
            n2: 0.05,
            cancel_before_head: 0.0,
            cancel_before_token: 0.0,
            cancel_mid_stream: 0.0,
            cancel_after_done: 0.0,
            models: vec!["tiny".to_owned()],
            max_tokens: Dist::Const(16.0),
            prompt_bytes: None,
        }
    }
}

impl Mix {
    /// As the default, and one client in ten leaves, in each of the four ways.
    #[must_use]
    pub fn with_cancels(self) -> Self {
        Self {
            cancel_before_head: 0.025,
            cancel_before_token: 0.025,
            cancel_mid_stream: 0.025,
            cancel_after_done: 0.025,
            ..self
        }
    }
}

/// Sends as `plan` says and waits for all answers.
pub async fn run(plan: Plan) -> Summary {
    watch(plan, |_| {}).await
}

/// [`run`], with `each` shown what there is after each answer.
pub async fn watch(plan: Plan, mut each: impl FnMut(&Summary)) -> Summary {
    let start = Instant::now();
    let (plan, pool, next) = (
        Arc::new(plan),
        Arc::new(Pool::default()),
        Arc::new(AtomicU64::new(0)),
    );
    let (records, mut done) = tokio::sync::mpsc::channel(1024);
    let mut clients = JoinSet::new();
    for _ in 0..plan.concurrency.max(1) {
        let (plan, pool, next) = (Arc::clone(&plan), Arc::clone(&pool), Arc::clone(&next));
        let records = records.clone();
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let enough = plan.requests.is_some_and(|limit| number >= limit)
                    || plan.duration.is_some_and(|limit| start.elapsed() >= limit);
                if enough {
                    return;
                }
                let request = Request::draw(&plan, number);
                let record = perform(&plan, &pool, &request).await;
                if records.send(record).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(records);
    let mut summary = Summary::new(plan.keep_records);
    while let Some(record) = done.recv().await {
        summary.add(record);
        each(&summary);
    }
    summary.wall = start.elapsed();
    summary
}

// === impl Steady ===

impl Steady {
    /// Sends until `shutdown` resolves, then waits for what is in flight.
    ///
    /// If as many requests are in flight as the plan allows, the next one waits: the rate falls, nothing is lost.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Summary {
        self.watch_until(shutdown, |_| {}).await
    }

    /// [`Self::run_until`], with `each` shown what there is after each answer.
    pub async fn watch_until(
        self,
        shutdown: impl Future<Output = ()>,
        mut each: impl FnMut(&Summary),
    ) -> Summary {
        let start = Instant::now();
        let (plan, pool) = (Arc::new(self.plan), Arc::new(Pool::default()));
        let permits = Arc::new(Semaphore::new(plan.concurrency.max(1)));
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let gap = Dist::Exp(1.0 / self.rate.max(1e-6));
        let mut summary = Summary::new(plan.keep_records);
        let mut flying: JoinSet<Record> = JoinSet::new();
        let mut due = start;
        tokio::pin!(shutdown);
        for number in 0.. {
            due += Duration::try_from_secs_f64(gap.sample(&mut rng)).unwrap_or(Duration::MAX / 4);
            let (at, permits) = (due, Arc::clone(&permits));
            let turn = async move {
                tokio::time::sleep_until(at.into()).await;
                permits.acquire_owned().await
            };
            tokio::pin!(turn);
            let permit = loop {
                tokio::select! {
                    () = &mut shutdown => break None,
                    Some(landed) = flying.join_next() => {
                        if let Ok(record) = landed {
                            summary.add(record);
                            each(&summary);
                        }
                    }
                    permit = &mut turn => break permit.ok(),
                }
            };
            let Some(permit) = permit else { break };
            // Time spent waiting for a permit is not made up for by a burst.
            due = due.max(Instant::now() - Duration::from_millis(100));
            let (plan, pool) = (Arc::clone(&plan), Arc::clone(&pool));
            flying.spawn(async move {
                let request = Request::draw(&plan, number);
                let record = perform(&plan, &pool, &request).await;
                drop(permit);
                record
            });
        }
        while let Some(landed) = flying.join_next().await {
            if let Ok(record) = landed {
                summary.add(record);
            }
        }
        summary.wall = start.elapsed();
        summary
    }
}

#[cfg(test)]
mod tests;
