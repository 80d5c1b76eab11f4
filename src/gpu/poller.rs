//! The thread that talks to NVML. It loads the library, polls for as long as that goes well (a generation), and begins anew
//! when the driver was reloaded, a GPU is lost or nothing answers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;

use crate::config;
use crate::gpu::filter::Filter;
use crate::gpu::lifecycle::{Backoff, Class, Fault, Reason};
use crate::gpu::load;
use crate::gpu::nvml::Gpus;
use crate::gpu::read::{Gpu, Plan, Reading};
use crate::gpu::source::{Call, Identity, Source as _};
use crate::gpu::state::{Shared, Snapshot};
use crate::gpu::xid::Listener;

/// After the first samples of a generation, so that its first poll has rates already. GPM wants 100 ms.
const WARM_UP: Duration = Duration::from_millis(120);

/// How often it is looked whether the listener has ended.
const JOIN: Duration = Duration::from_millis(20);

/// The poller.
pub(super) struct Poller {
    pub(super) config: config::Gpu,
    pub(super) filter: Filter,
    pub(super) shared: Arc<Shared>,
    /// Closed when nobody wants to know any more.
    pub(super) stop: Receiver<Infallible>,
    pub(super) backoff: Backoff,
    pub(super) listener: Listener,
}

/// How a generation ends.
#[derive(Clone, Copy)]
enum End {
    /// Nobody wants to know any more.
    Stop,
    /// Nothing can be shown until it goes better.
    Failed(Reason),
    /// Some GPUs are lost, or others have come: look again, and show what there is meanwhile.
    Again,
}

impl Poller {
    /// Until nobody wants to know any more.
    pub(super) fn run(mut self) {
        loop {
            self.shared.begin_start();
            let end = match load::open(self.config.library.as_deref()) {
                Ok(nvml) => {
                    self.shared.started();
                    self.generation(&Arc::new(nvml))
                    // The library is shut down and unloaded here, unless the listener hangs in it: an upgraded one can take
                    // its place.
                }
                Err(fault) => {
                    self.shared.error(Call::Init, fault);
                    End::Failed(fault.reason())
                }
            };
            match end {
                End::Stop => return,
                End::Again => {}
                End::Failed(reason) => {
                    self.shared.fail(reason);
                    let wait = self.backoff.wait();
                    if self.stopped_within(wait) {
                        return;
                    }
                }
            }
        }
    }

    fn generation(&mut self, nvml: &Arc<Nvml>) -> End {
        let mut gpus = Gpus::new(nvml);
        let mut found = match self.find(&mut gpus) {
            Ok(found) => found,
            Err(reason) => return End::Failed(reason),
        };
        let driver = nvml.sys_driver_version().unwrap_or_default();
        self.listen(nvml, &found);
        let end = self.poll(nvml, &mut gpus, &mut found, &driver);
        if let End::Failed(reason) = end {
            // Before the listener has ended, which may take a while.
            self.shared.fail(reason);
        }
        while !self.listener.end() {
            std::thread::sleep(JOIN);
        }
        end
    }

    fn listen(&mut self, nvml: &Arc<Nvml>, found: &Found) {
        let gpus = found
            .gpus
            .iter()
            .map(|gpu| (gpu.identity.uuid.clone(), gpu.identity.index));
        self.listener.start(nvml, gpus, &self.shared);
    }

    /// The GPUs that are ours.
    fn find(&self, gpus: &mut Gpus<'_>) -> Result<Found, Reason> {
        let count = gpus.count().map_err(|fault| {
            self.shared.error(Call::Count, fault);
            fault.reason()
        })?;
        let mut found = Found {
            count,
            gpus: Vec::new(),
            lost: false,
        };
        let mut worst = None;
        for index in 0..count {
            let identity = match gpus.identify(index) {
                Ok(identity) => identity,
                Err(fault) => {
                    self.shared.error(Call::Identity, fault);
                    if fault.class() == Class::Over {
                        return Err(fault.reason());
                    }
                    found.lost |= may_come_back(fault);
                    worst = worst.or(Some(fault.reason()));
                    continue;
                }
            };
            let ours = self.filter.has(index, &identity.uuid)
                || self.has_instance(gpus, index).unwrap_or_else(|fault| {
                    self.shared.error(Call::MigInstances, fault);
                    found.lost |= may_come_back(fault);
                    false
                });
            if ours {
                found.gpus.push(Gpu::new(identity));
            }
        }
        if found.gpus.is_empty() {
            return Err(worst.unwrap_or(Reason::NoDevices));
        }
        let present: BTreeSet<_> = found
            .gpus
            .iter()
            .map(|gpu| gpu.identity.uuid.clone())
            .collect();
        found.lost |= !self
            .shared
            .view(Instant::now())
            .known
            .keys()
            .all(|uuid| present.contains(uuid));
        Ok(found)
    }

    /// A container that was given MIG instances only: their GPU is ours as far as they are.
    fn has_instance(&self, gpus: &mut Gpus<'_>, index: u32) -> Result<bool, Fault> {
        if !self.filter.names_instances() {
            return Ok(false);
        }
        match gpus.instances(index) {
            Ok(instances) => Ok(instances
                .iter()
                .any(|instance| self.filter.has_instance(&instance.uuids))),
            Err(fault) if fault.class() == Class::Never => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn poll(
        &mut self,
        nvml: &Arc<Nvml>,
        gpus: &mut Gpus<'_>,
        found: &mut Found,
        driver: &str,
    ) -> End {
        // What the first poll says of rates is only the beginning of them.
        if let Err(reason) = self.poll_once(gpus, found) {
            return End::Failed(reason);
        }
        if self.stopped_within(WARM_UP) {
            return End::Stop;
        }
        let mut again_at = None;
        let mut again = false;
        loop {
            let began = Instant::now();
            self.shared.watch(began);
            self.shared.begin_poll();
            let read = match self.poll_once(gpus, found) {
                Ok(read) => read,
                Err(reason) => return End::Failed(reason),
            };
            let taken = Instant::now();
            self.shared.publish(
                Snapshot {
                    taken,
                    driver: driver.to_owned(),
                    gpus: read,
                },
                taken.saturating_duration_since(began),
            );
            if self.listener.is_missing() {
                self.listen(nvml, found);
            }
            // What there is to show stays fresh while the listener ends.
            if found.lost {
                let at = *again_at.get_or_insert_with(|| taken + self.backoff.wait());
                again |= taken >= at;
            } else {
                self.backoff.reset();
            }
            match gpus.count() {
                Ok(count) => again |= count != found.count,
                Err(fault) => {
                    self.shared.error(Call::Count, fault);
                    if fault.class() != Class::NotNow {
                        return End::Failed(fault.reason());
                    }
                }
            }
            // Once it is told to end there is no way back.
            if again && self.listener.end() {
                return End::Again;
            }
            let left = self.config.interval.saturating_sub(began.elapsed());
            if self.stopped_within(left) {
                return End::Stop;
            }
        }
    }

    /// All GPUs once. A lost one is left out from then on.
    fn poll_once(
        &self,
        gpus: &mut Gpus<'_>,
        found: &mut Found,
    ) -> Result<Vec<(Identity, Reading)>, Reason> {
        let plan = Plan {
            slow_every: self.config.interval.saturating_mul(12),
            processes: self.config.processes,
        };
        let mut readings = Vec::new();
        let mut lost = BTreeSet::new();
        let mut last = None;
        for gpu in &mut found.gpus {
            let uuid = gpu.identity.uuid.clone();
            let mut failed = |call: Call, fault: Fault| {
                last = Some(fault);
                self.shared.error(call, fault);
                tracing::debug!(
                    call = call.label(),
                    error = fault.label(),
                    uuid,
                    "an NVML call failed"
                );
            };
            match gpu.read(gpus, plan, Instant::now(), &mut failed) {
                Ok(mut reading) => {
                    reading
                        .instances
                        .retain(|instance| self.filter.has_instance(&instance.uuids));
                    readings.push((gpu.identity.clone(), reading));
                }
                Err(fault) if fault.class() == Class::Lost => {
                    tracing::warn!(
                        uuid,
                        error = fault.label(),
                        "a GPU is lost; its series are gone until it is back"
                    );
                    lost.insert(uuid);
                }
                Err(fault) => return Err(fault.reason()),
            }
        }
        found.lost |= !lost.is_empty();
        found.gpus.retain(|gpu| !lost.contains(&gpu.identity.uuid));
        if found.gpus.is_empty() {
            return Err(Reason::GpuLost);
        }
        // Nothing at all from anyone: a container that has lost its devices looks like this.
        if let Some(fault) = last
            && readings
                .iter()
                .all(|(_, reading)| reading.values.is_empty())
        {
            return Err(fault.reason());
        }
        Ok(readings)
    }

    fn stopped_within(&self, wait: Duration) -> bool {
        matches!(
            self.stop.recv_timeout(wait),
            Err(RecvTimeoutError::Disconnected)
        )
    }
}

/// Whether a GPU that cannot be found now may be found later. One that we may not touch, or whose driver cannot say who it
/// is, will not.
fn may_come_back(fault: Fault) -> bool {
    matches!(fault.class(), Class::Lost | Class::NotNow) && fault != Fault::NoPermission
}

/// What a generation has begun with, and what is left of it.
struct Found {
    count: u32,
    gpus: Vec<Gpu>,
    /// One that was there before, or that the driver counts, is not there now.
    lost: bool,
}
