//! Whether one vLLM is there, ready, and moving.
//!
//! A round asks `/health`, then what it serves and how it is. `/health` itself is asked in each round, whatever came
//! before, so that an end and a return both show within two intervals; what is not to be had is asked less often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::jitter::jittered;
use super::pace::Pace;
use super::{Client, Model, ProbeError, Reply, models};
use crate::config::{Config, Secret};
use crate::gateway::Member;
use crate::metrics::Metrics;
use crate::metrics::polled::{self, Listing, Polled, ProbeFailure, Upstream};
use crate::upstream::Error;

/// Of `/v1/models`: hundreds of adapters, each with its permissions.
const LONG: usize = 4 << 20;
/// Of the others.
const SHORT: usize = 64 << 10;

/// Versions change with a restart, which shows otherwise too, unless it was quick.
const VERSION_EVERY: u32 = 10;

/// Answers in a row that are late, until an upstream counts as down.
const LATE: u32 = 2;

/// Asks one upstream.
#[derive(Debug)]
pub(super) struct Health {
    upstream: Arc<Upstream>,
    /// Where there are several.
    member: Option<Member>,
    /// Times in a row that it has said nothing in time.
    late: u32,
    client: Client,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    state: State,
    stalled: bool,
    version: Pace,
    load: Pace,
}

/// What was last logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Up,
    Unhealthy(StatusCode),
    Down,
}

/// What is known of the models after asking.
enum Known {
    /// As they are listed, too.
    Models(Vec<Model>, Bytes),
    Withheld,
    Failed,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Load {
    server_load: f64,
}

impl Health {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        member: Option<Member>,
        client: Client,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            upstream,
            member,
            late: 0,
            client,
            config,
            metrics,
            state: State::Unknown,
            stalled: false,
            version: Pace::new(VERSION_EVERY),
            load: Pace::new(1),
        }
    }

    /// Round after round. Never returns.
    pub(super) async fn run(mut self) {
        loop {
            let next = tokio::time::Instant::now() + jittered(self.config.health.interval);
            self.round().await;
            self.judge();
            tokio::time::sleep_until(next).await;
        }
    }

    async fn round(&mut self) {
        let started = Instant::now();
        let (health, took) = self
            .probe(polled::Endpoint::Health, "/health", None, SHORT)
            .await;
        let ok = health.as_ref().is_ok_and(|reply| reply.status.is_success());
        self.polled()
            .scraped(&self.upstream, polled::Endpoint::Health, took, ok);
        let reply = match health {
            Ok(reply) => reply,
            Err(error) => {
                self.polled().down(&self.upstream);
                self.not_there(&error);
                // What comes back may be another version.
                self.version.reset();
                self.load.reset();
                self.log(State::Down, Some(&error));
                return;
            }
        };
        self.polled().answered(&self.upstream, took);
        let known = self.models().await;
        self.polled().up(
            &self.upstream,
            ok,
            match &known {
                Known::Models(models, _) => Listing::Models(models),
                Known::Withheld => Listing::Withheld,
                Known::Failed => Listing::Failed,
            },
        );
        if let Known::Models(models, _) = &known {
            // Names stay known while upstream is down: its failures are then those of its models.
            let names = models.iter().map(|model| &*model.id);
            self.metrics.models.list(self.upstream.id(), names);
        }
        self.late = 0;
        if let Some(member) = &self.member {
            match &known {
                Known::Models(models, body) => member.lists(models, body),
                Known::Withheld => member.withholds(),
                Known::Failed => {}
            }
            member.healthy(ok);
        }
        self.log(
            if ok {
                State::Up
            } else {
                State::Unhealthy(reply.status)
            },
            None,
        );
        // A slow upstream must not delay the next look at its health.
        if started.elapsed() < self.config.health.interval && self.version.due() {
            let version = self.read("/version").await;
            let version = version.map(|Version { version }| version);
            self.version.asked(version.is_some());
            self.polled().version(&self.upstream, version.as_deref());
        }
        if started.elapsed() < self.config.health.interval && self.load.due() {
            let load = self.read("/load").await;
            let load = load.map(|Load { server_load }| server_load);
            self.load.asked(load.is_some());
            self.polled().load(&self.upstream, load);
        }
    }

    /// Requests go elsewhere. Not because of one answer that is late: vLLM's server is busy at times.
    fn not_there(&mut self, error: &ProbeError) {
        self.late += 1;
        let late = matches!(error, ProbeError::Timeout(_));
        if let Some(member) = &self.member
            && (!late || self.late >= LATE)
        {
            member.healthy(false);
        }
    }

    async fn models(&self) -> Known {
        let key = self.config.health.api_key.as_ref();
        let (result, took) = self
            .probe(polled::Endpoint::Models, "/v1/models", key, LONG)
            .await;
        let known = match result {
            Ok(reply) if reply.status.is_success() => models::read(&reply.body)
                .map_or(Known::Failed, |models| Known::Models(models, reply.body)),
            Ok(reply) => match reply.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Known::Withheld,
                _ => Known::Failed,
            },
            Err(_) => Known::Failed,
        };
        let ok = matches!(known, Known::Models(..));
        self.polled()
            .scraped(&self.upstream, polled::Endpoint::Models, took, ok);
        known
    }

    /// Asks what counts as a probe.
    async fn probe(
        &self,
        endpoint: polled::Endpoint,
        path: &'static str,
        key: Option<&Secret>,
        max_bytes: usize,
    ) -> (Result<Reply, ProbeError>, Duration) {
        let started = Instant::now();
        let limit = self.config.health.timeout;
        let get = self.client.get(path, "*/*", key, limit, max_bytes);
        let result = get.await;
        let took = started.elapsed();
        self.polled().probed(&self.upstream, outcome(&result));
        if let Err(error) = &result {
            tracing::debug!(upstream = %self.client.url(), endpoint = endpoint.as_label(), %error, "no answer");
        }
        (result, took)
    }

    /// Reads what is nice to have.
    async fn read<T: for<'a> Deserialize<'a>>(&self, path: &'static str) -> Option<T> {
        let limit = self.config.health.timeout;
        let reply = self
            .client
            .get(path, "*/*", None, limit, SHORT)
            .await
            .ok()?;
        if !reply.status.is_success() {
            return None;
        }
        serde_json::from_slice(&reply.body).ok()
    }

    fn judge(&mut self) {
        let after = self.config.health.stalled_after;
        let stalled = self.polled().judge(&self.upstream, Instant::now(), after);
        if stalled == std::mem::replace(&mut self.stalled, stalled) {
            return;
        }
        let upstream = self.client.url();
        if stalled {
            tracing::warn!(%upstream, ?after, "the engine is stuck: it has requests, and nothing has moved");
        } else {
            tracing::info!(%upstream, "the engine is not stuck any more");
        }
    }

    fn polled(&self) -> &Polled {
        &self.metrics.polled
    }

    /// One line when it changes, none for a poll.
    fn log(&mut self, state: State, error: Option<&ProbeError>) {
        if state == std::mem::replace(&mut self.state, state) {
            return;
        }
        let upstream = self.client.url();
        match state {
            State::Unknown => {}
            State::Up => tracing::info!(%upstream, "vLLM is up"),
            State::Unhealthy(status) => {
                tracing::warn!(%upstream, %status, "vLLM answers, and is not healthy");
            }
            State::Down => {
                let reason = error.map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%upstream, reason, "vLLM is down");
            }
        }
    }
}

fn outcome(result: &Result<Reply, ProbeError>) -> Result<(), ProbeFailure> {
    match result {
        Ok(reply) if reply.status.is_success() => Ok(()),
        Ok(_) => Err(ProbeFailure::Status),
        Err(ProbeError::Timeout(_) | ProbeError::Upstream(Error::ConnectTimeout { .. })) => {
            Err(ProbeFailure::Timeout)
        }
        Err(
            ProbeError::Upstream(_)
            | ProbeError::TooLong(_)
            | ProbeError::Request(_)
            | ProbeError::Body(_),
        ) => Err(ProbeFailure::Connection),
    }
}
