//! XIDs, the driver's error reports: waited for on a thread of their own, since waiting blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};

use crate::gpu::ffi;
use crate::gpu::lifecycle::{Class, Fault};
use crate::gpu::source::Call;
use crate::gpu::state::{DEAF, Shared};
use crate::log_limit::LogLimit;

/// How long one wait takes at most, ms: so long a generation's end waits for this thread.
const WAIT_MS: u32 = 1000;
/// Between two waits that fail at once.
const PAUSE: Duration = Duration::from_millis(500);
/// NVML's code for an XID that it does not know.
const UNKNOWN_XID: u64 = 999;

/// A GPU to listen to.
struct Listened<'n> {
    uuid: String,
    device: Device<'n>,
}

/// The thread that listens. One that does not come back from the driver is left behind, with its hold on the library; no
/// second one is started beside it.
#[derive(Debug, Default)]
pub(super) struct Listener {
    thread: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    ending: Option<Instant>,
    /// This generation has none, since that of an earlier one still hangs.
    missing: bool,
}

impl Listener {
    /// Listens to these: UUID and index.
    pub(super) fn start(
        &mut self,
        nvml: &Arc<Nvml>,
        gpus: impl IntoIterator<Item = (String, u32)>,
        shared: &Arc<Shared>,
    ) {
        self.missing = self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        if self.missing {
            return;
        }
        self.over = Arc::default();
        self.ending = None;
        let (nvml, shared, over) = (Arc::clone(nvml), Arc::clone(shared), Arc::clone(&self.over));
        let gpus: Vec<_> = gpus.into_iter().collect();
        let thread = std::thread::Builder::new()
            .name("gpu-xid".to_owned())
            .spawn(move || {
                let gpus = gpus.into_iter().filter_map(|(uuid, index)| {
                    let device = nvml.device_by_index(index).ok()?;
                    Some(Listened { uuid, device })
                });
                listen(&nvml, gpus.collect(), &shared, &over);
                shared.listens_no_more();
            });
        self.thread = thread
            .inspect_err(|error| tracing::warn!(%error, "no thread for XIDs"))
            .ok();
    }

    /// Whether this generation has none, and should have one as soon as that can be.
    pub(super) fn is_missing(&self) -> bool {
        self.missing
    }

    /// Ends it and says whether it has ended. It may be in the middle of a wait; after [`DEAF`] it is not waited for any more.
    pub(super) fn end(&mut self) -> bool {
        self.over.store(true, Ordering::Release);
        self.missing = false;
        let since = *self.ending.get_or_insert_with(Instant::now);
        self.thread.as_ref().is_none_or(JoinHandle::is_finished) || since.elapsed() > DEAF
    }
}

/// Listens until `over`. Also looks after the poller, which may hang.
fn listen(nvml: &Nvml, gpus: Vec<Listened<'_>>, shared: &Shared, over: &AtomicBool) {
    shared.listens(Instant::now());
    let registered = register(nvml, gpus, shared);
    if over.load(Ordering::Acquire) {
        return;
    }
    if let Some((_, gpus)) = &registered {
        shared.hears(gpus.iter().map(|gpu| gpu.uuid.clone()));
    }
    let mut quiet = false;
    let limit = LogLimit::default();
    while !over.load(Ordering::Acquire) {
        let now = Instant::now();
        shared.listens(now);
        shared.watch(now);
        let Some((events, gpus)) = &registered else {
            std::thread::sleep(PAUSE);
            continue;
        };
        match events.wait(WAIT_MS) {
            Ok(event) => {
                quiet = false;
                let gpu = gpus
                    .iter()
                    .find(|gpu| ffi::same(&gpu.device, &event.device));
                if let (Some(gpu), Some(xid)) = (gpu, event.event_data) {
                    let code = match xid {
                        XidError::Value(code) => code,
                        XidError::Unknown => UNKNOWN_XID,
                    };
                    // A GPU that goes down can report thousands a second; the counters have them all.
                    if let Some(suppressed) = limit.permit() {
                        tracing::warn!(
                            xid = code,
                            uuid = gpu.uuid,
                            suppressed,
                            "a GPU reports an XID"
                        );
                    }
                    shared.xid(&gpu.uuid, code);
                }
            }
            Err(NvmlError::Timeout) => quiet = false,
            Err(error) => {
                let fault = Fault::from(error);
                shared.error(Call::EventSetWait, fault);
                if !std::mem::replace(&mut quiet, true) {
                    tracing::warn!(error = fault.label(), "cannot wait for XIDs");
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// One set for all GPUs that can. The set is lost with each that cannot, so that it is begun again without that one.
fn register<'n>(
    nvml: &'n Nvml,
    mut gpus: Vec<Listened<'n>>,
    shared: &Shared,
) -> Option<(EventSet<'n>, Vec<Listened<'n>>)> {
    // The wrapper's destructor of a set would panic without it.
    if nvml.lib().nvmlEventSetFree.is_err() {
        return None;
    }
    'again: while !gpus.is_empty() {
        let mut set = match nvml.create_event_set() {
            Ok(set) => set,
            Err(error) => {
                shared.error(Call::RegisterEvents, error.into());
                return None;
            }
        };
        for (at, gpu) in gpus.iter().enumerate() {
            match gpu
                .device
                .register_events(EventTypes::CRITICAL_XID_ERROR, set)
            {
                Ok(registered) => set = registered,
                Err(error) => {
                    let fault = Fault::from(error.error);
                    shared.error(Call::RegisterEvents, fault);
                    if fault.class() != Class::Never {
                        tracing::warn!(
                            error = fault.label(),
                            uuid = gpu.uuid,
                            "no XIDs of this GPU"
                        );
                    }
                    gpus.remove(at);
                    continue 'again;
                }
            }
        }
        return Some((set, gpus));
    }
    None
}

/// As dcgm-exporter's label `err_msg` has it for the codes that matter to us.
pub(super) fn text(code: u64) -> &'static str {
    match code {
        0 => "No Error",
        13 => "Graphics Engine Exception",
        31 => "GPU memory page fault",
        32 => "Invalid or corrupted push buffer stream",
        43 => "GPU stopped processing",
        45 => "Preemptive cleanup, due to previous errors",
        46 => "GPU stopped processing",
        48 => "Double Bit ECC Error",
        62 => "Internal micro-controller halt",
        63 => "ECC page retirement or row remapping recording event",
        64 => "ECC page retirement or row remapper recording failure",
        68 => "NVDEC0 Exception",
        74 => "NVLINK Error",
        79 => "GPU has fallen off the bus",
        92 => "High single-bit ECC error rate",
        94 => "Contained ECC error",
        95 => "Uncontained ECC error",
        109 => "Context Switch Timeout Error",
        119 => "GSP RPC Timeout",
        120 => "GSP Error",
        140 => "ECC Unrecovered Error",
        143 => "GPU Initialization Error",
        149 => "NVLINK Error",
        154 => "GPU Recovery Action Changed",
        _ => "Unknown Error",
    }
}
