//! The GPUs, by NVML, in DCGM's names.
//!
//! A thread of its own polls and publishes a snapshot; a scrape writes that and never calls NVML, so that a driver that hangs
//! holds up nothing. What a GPU cannot say is absent, never 0; what is old is not shown.

mod ffi;
mod filter;
mod gpm;
mod labels;
pub mod lifecycle;
mod load;
pub mod names;
mod nvml;
pub mod own;
mod poller;
mod rates;
pub mod read;
pub mod source;
mod state;
pub mod unit;
mod write;
mod xid;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;
use std::{env, fs, io};

use crate::beside;
use crate::config::{self, GpuMode, GpuNaming};
use crate::exposition::Writer;
use crate::gpu::filter::Filter;
use crate::gpu::labels::Labels;
use crate::gpu::lifecycle::Backoff;
use crate::gpu::poller::Poller;
use crate::gpu::state::Shared;
use crate::gpu::xid::Listener;

/// Where this process runs.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Value of the label `Hostname`.
    pub hostname: String,
    /// NVIDIA_VISIBLE_DEVICES: what this container was given.
    pub visible_devices: Option<String>,
}

impl Place {
    /// Asks the environment: the host is NODE_NAME, as Kubernetes can set it, or else the system's name.
    #[must_use]
    pub fn here() -> Self {
        let node = env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
        Self {
            hostname: node.unwrap_or_else(|| {
                let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
                name.trim().to_owned()
            }),
            visible_devices: env::var("NVIDIA_VISIBLE_DEVICES").ok(),
        }
    }
}

/// The handle. The poller ends when the last one is gone, at the end of what it is doing.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// `None`: `gpu.mode = "off"`.
    on: Option<On>,
}

#[derive(Clone, Debug)]
struct On {
    shared: Arc<Shared>,
    labels: Arc<Labels>,
    naming: GpuNaming,
    _alive: Sender<Infallible>,
}

impl Gpu {
    /// Starts the poller. It never makes anything else wait, and nobody waits for its end.
    ///
    /// # Errors
    /// If the thread cannot be had.
    pub fn start(config: &config::Gpu, place: &Place) -> io::Result<Self> {
        if config.mode == GpuMode::Off {
            return Ok(Self { on: None });
        }
        let shared = Arc::new(Shared::new(config.interval, config.mode));
        let (alive, stop) = channel();
        let on = On {
            shared: Arc::clone(&shared),
            labels: Arc::new(Labels::new(config, &place.hostname)),
            naming: config.naming,
            _alive: alive,
        };
        let config = config.clone();
        let filter = Filter::new(&config.devices, place.visible_devices.as_deref());
        beside::spawn("gpu", move || {
            let backoff = Backoff::default();
            Poller {
                config,
                filter,
                shared,
                stop,
                backoff,
                listener: Listener::default(),
            }
            .run();
        })?;
        Ok(Self { on: Some(on) })
    }

    /// Writes the families as they are now.
    pub fn write(&self, out: &mut Writer) {
        if let Some(on) = &self.on {
            let view = on.shared.view(Instant::now());
            write::write(&view, &on.labels, on.naming, out);
        }
    }

    /// Every family name that [`Gpu::write`] may ever write.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let Some(on) = &self.on else {
            return Vec::new();
        };
        let dcgm = names::FAMILIES
            .iter()
            .filter_map(|family| family.name(on.naming));
        dcgm.map(|name| name.name)
            .chain([names::xid(on.naming)])
            .chain(own::FAMILIES.iter().map(|family| family.name))
            .collect()
    }
}
