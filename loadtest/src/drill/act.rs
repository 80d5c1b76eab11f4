//! A fault that is happening.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::faults::{Act, Load};
use super::http;
use super::rig::{self, Rig, Which};
use super::sink::Sink;

/// What a fault may reach.
pub(crate) struct World {
    pub(crate) rigs: BTreeMap<Which, Rig>,
    pub(crate) sink: Sink,
}

/// A fault while it lasts.
pub(crate) struct Acting {
    act: Act,
    rig: Which,
    ticks: u64,
    sent: u64,
    /// Requests under way.
    requests: JoinSet<()>,
    held: Vec<TcpStream>,
    /// When it went wrong.
    pub(crate) began: Instant,
}

/// How often [`Acting::tick`] is called.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// In this share of a proxy's descriptors its alert has to fire; a few are left for the scrapes.
const FULL: f64 = 0.95;
/// Connections are accepted once in so long: more than health checks and half of the requests need.
const CROWD_MS: u64 = 40;
/// Ticks from a queue to the end of vLLM: its metrics are to be read before, which that rig does each 6 s.
const QUEUE_TICKS: u64 = 72;

// === impl Acting ===

impl Acting {
    pub(crate) fn new(act: Act, rig: Which) -> Self {
        Self {
            act,
            rig,
            ticks: 0,
            sent: 0,
            requests: JoinSet::new(),
            held: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Keeps it going.
    pub(crate) async fn tick(&mut self, world: &mut World) -> anyhow::Result<()> {
        let tick = self.ticks;
        self.ticks += 1;
        let played = world.sink.played();
        let rig = world.rigs.get_mut(&self.rig).context("no such rig")?;
        let first = tick == 0;
        match self.act {
            Act::Load(load) => self.load(rig.data, &load, tick),
            Act::Bypass(load) => self.load(rig.upstream, &load, tick),
            Act::Crowd(load) => {
                rig.sim()?.set_crowded(CROWD_MS);
                self.load(rig.data, &load, tick);
            }
            Act::Ramp(family, from, a_second, to) => {
                let value = from + a_second * TICK.as_secs_f64() * tick as f64;
                rig.sim()?.set_value(family, value.min(to));
            }
            Act::Xid(gpu) if tick.is_multiple_of(8) => {
                let xid = json!({"id": tick + 1, "gpu": gpu, "xid": 79});
                rig.set_gpus(|state| state["xids"] = json!([xid]))?;
            }
            Act::Restarts if tick.is_multiple_of(4) => {
                played.restarts.fetch_add(1, Ordering::Relaxed);
            }
            Act::Panics if tick.is_multiple_of(4) => {
                played.panics.fetch_add(1, Ordering::Relaxed);
            }
            Act::BadCertificate if tick.is_multiple_of(4) => {
                played.bad_certificates.fetch_add(1, Ordering::Relaxed);
            }
            Act::KillUpstream if tick == QUEUE_TICKS => {
                rig.stop_upstream().await;
                self.began = Instant::now();
            }
            _ if !first => {}
            Act::KillUpstream => rig.sim()?.set_value("vllm:num_requests_waiting", 20.0),
            Act::Gpu(gpu, change) => rig.set_gpus(|state| change(&mut state["gpus"][gpu]))?,
            Act::GpuHangs => rig.set_gpus(|state| {
                state["delays_ms"] = json!({"nvmlDeviceGetPowerUsage": 600_000});
            })?,
            Act::Value(family, value) => rig.sim()?.set_value(family, value),
            Act::Slow(path, delay) => rig.sim()?.set_delay(path, delay),
            Act::Unload => rig.sim()?.set_loaded(false),
            Act::KillProxy => rig.kill_proxy(),
            Act::Connections => self.connect(rig).await?,
            Act::BadConfig => rig.configure("[server]\nlisten = 7\n")?,
            Act::NoInjector => played.injector_silent.store(true, Ordering::Relaxed),
            Act::Xid(_) | Act::Restarts | Act::Panics | Act::BadCertificate => {}
        }
        while self.requests.try_join_next().is_some() {}
        Ok(())
    }

    /// Puts right what was wrong.
    pub(crate) async fn end(&mut self, world: &mut World) -> anyhow::Result<()> {
        self.requests.shutdown().await;
        self.held.clear();
        let played = world.sink.played();
        let rig = world.rigs.get_mut(&self.rig).context("no such rig")?;
        match self.act {
            Act::Gpu(gpu, _) => rig.set_gpus(|state| state["gpus"][gpu] = rig::gpu(gpu))?,
            Act::GpuHangs => rig.set_gpus(|state| state["delays_ms"] = json!({}))?,
            Act::Value(family, _) | Act::Ramp(family, ..) if !family.ends_with("_total") => {
                rig.sim()?.set_value(family, 0.0);
            }
            Act::Slow(path, _) => rig.sim()?.set_delay(path, Duration::ZERO),
            Act::Unload => rig.sim()?.set_loaded(true),
            Act::Crowd(_) => rig.sim()?.set_crowded(0),
            Act::KillUpstream => rig.start_upstream()?,
            Act::KillProxy => rig.start_proxy()?,
            Act::BadConfig => rig.configure("")?,
            Act::NoInjector => played.injector_silent.store(false, Ordering::Relaxed),
            Act::Value(..)
            | Act::Ramp(..)
            | Act::Xid(_)
            | Act::Load(_)
            | Act::Bypass(_)
            | Act::Connections
            | Act::Restarts
            | Act::Panics
            | Act::BadCertificate => {}
        }
        Ok(())
    }

    fn load(&mut self, to: SocketAddr, load: &Load, tick: u64) {
        let due = tick.checked_rem(load.every).unwrap_or(tick) == 0;
        for _ in 0..if due { load.at_once } else { 0 } {
            // In the middle of its turns: the first window, which is not full yet, is no worse than the others.
            let odd = load.odd.filter(|(of, _)| self.sent % of == of / 2);
            let sim = odd.map_or(load.sim, |(_, sim)| sim);
            let turn = usize::try_from(self.sent).unwrap_or(0) % load.models.len();
            let model = load.models.get(turn).copied().unwrap_or_default();
            let request = http::chat(model, load.stream, load.max_tokens, sim);
            self.requests.spawn(http::send(to, request, load.leave));
            self.sent += 1;
        }
    }

    /// As many connections as fill the proxy's descriptors.
    async fn connect(&mut self, rig: &Rig) -> anyhow::Result<()> {
        let metrics = http::text(rig.admin, "/metrics").await?;
        let open = metrics
            .lines()
            .find_map(|line| line.strip_prefix("process_open_fds "));
        let open: f64 = open.context("no process_open_fds")?.trim().parse()?;
        let missing = (rig::DESCRIPTORS as f64 * FULL - open).max(0.0).ceil();
        for _ in 0..missing as u32 {
            self.held.push(TcpStream::connect(rig.data).await?);
        }
        Ok(())
    }
}
