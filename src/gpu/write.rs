//! What there is to show, as families.

use std::collections::BTreeSet;

use crate::config::GpuNaming;
use crate::exposition::{Kind, Writer};
use crate::gpu::labels::{self, Labels};
use crate::gpu::lifecycle::Reason;
use crate::gpu::names::{self, FAMILIES, Field};
use crate::gpu::own;
use crate::gpu::source::{Identity, Instance};
use crate::gpu::state::{OTHER_XID, Snapshot, View};
use crate::gpu::xid;

/// Writes everything.
pub(super) fn write(view: &View, labels: &Labels, naming: GpuNaming, out: &mut Writer) {
    state(view, out);
    own_gpus(view, out);
    if let Some(snapshot) = &view.snapshot {
        dcgm(snapshot, labels, naming, out);
        last_xid(view, snapshot, labels, naming, out);
        own_values(snapshot, out);
    }
}

fn gauge(out: &mut Writer, family: own::Family, samples: impl IntoIterator<Item = (String, f64)>) {
    let mut begun = false;
    let mut once = Once::default();
    for (labels, value) in samples {
        if !once.first(&labels) {
            continue;
        }
        if !std::mem::replace(&mut begun, true) {
            out.family(family.name, family.kind, family.help);
        }
        out.sample(family.name, &labels, value);
    }
}

/// A series that is there twice costs the whole scrape: whatever a driver lists twice is written once.
#[derive(Default)]
struct Once(BTreeSet<String>);

impl Once {
    /// Whether these labels come for the first time.
    fn first(&mut self, labels: &str) -> bool {
        self.0.insert(labels.to_owned())
    }
}

fn one(label: &str, value: &str) -> String {
    let mut out = String::new();
    labels::push(&mut out, label, value);
    out
}

/// How NVML is.
fn state(view: &View, out: &mut Writer) {
    let truth = |yes: bool| f64::from(u8::from(yes));
    gauge(
        out,
        own::UP,
        [(String::new(), truth(view.reason == Reason::Ok))],
    );
    let states =
        Reason::ALL.map(|reason| (one("reason", reason.label()), truth(reason == view.reason)));
    gauge(out, own::STATE, states);
    gauge(
        out,
        own::GENERATION,
        [(String::new(), view.generation as f64)],
    );
    gauge(out, own::STUCK, [(String::new(), view.stuck_total as f64)]);
    gauge(
        out,
        own::POLL,
        view.poll_seconds.map(|seconds| (String::new(), seconds)),
    );
    gauge(
        out,
        own::SUCCESS,
        view.last_success.map(|at| (String::new(), at)),
    );
    // Several questions are one function of NVML's.
    let mut errors = std::collections::BTreeMap::<_, u64>::new();
    for ((call, fault), count) in &view.errors {
        *errors.entry((call.label(), fault.label())).or_default() += count;
    }
    let errors = errors.into_iter().map(|((call, fault), count)| {
        let mut labels = one("call", call);
        labels::push(&mut labels, "error", fault);
        (labels, count as f64)
    });
    gauge(out, own::ERRORS, errors);
}

/// What outlives a GPU: that it is gone, and the XIDs that it went with.
fn own_gpus(view: &View, out: &mut Writer) {
    let up = view.known.iter().map(|(uuid, index)| {
        let here = view
            .snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.gpus.iter().any(|(gpu, _)| gpu.uuid == *uuid));
        (labels::short(*index, uuid), f64::from(u8::from(here)))
    });
    gauge(out, own::GPU_UP, up);
    let seen = || {
        view.xids.iter().flat_map(|(uuid, xids)| {
            let index = view.known.get(uuid).copied().unwrap_or_default();
            xids.seen.iter().map(move |(code, seen)| {
                let mut labels = labels::short(index, uuid);
                let code = if *code == OTHER_XID {
                    "other".to_owned()
                } else {
                    code.to_string()
                };
                labels::push(&mut labels, "xid", &code);
                (labels, *seen)
            })
        })
    };
    gauge(
        out,
        own::XIDS,
        seen().map(|(labels, (count, _))| (labels, count as f64)),
    );
    gauge(
        out,
        own::XID_TIME,
        seen().map(|(labels, (_, at))| (labels, at)),
    );
}

/// Each GPU's values and those of its instances.
fn everyone(
    snapshot: &Snapshot,
) -> impl Iterator<Item = (&Identity, Option<&Instance>, &[(Field, f64)])> {
    snapshot.gpus.iter().flat_map(|(gpu, reading)| {
        let whole = std::iter::once((gpu, None, reading.values.as_slice()));
        whole.chain(
            reading
                .instances
                .iter()
                .map(move |part| (gpu, Some(part), part.values.as_slice())),
        )
    })
}

fn value(values: &[(Field, f64)], wanted: Field) -> Option<f64> {
    values
        .iter()
        .find_map(|(field, value)| (*field == wanted).then_some(*value))
}

fn dcgm(snapshot: &Snapshot, labels: &Labels, naming: GpuNaming, out: &mut Writer) {
    let mut once = Once::default();
    let everyone: Vec<_> = everyone(snapshot)
        .map(|(gpu, part, values)| (labels.write(gpu, part, &snapshot.driver, &[]), values))
        .filter(|(labels, _)| once.first(labels))
        .collect();
    for family in FAMILIES {
        let Some(name) = family.name(naming) else {
            continue;
        };
        let mut begun = false;
        for (labels, values) in &everyone {
            let Some(raw) = value(values, family.field) else {
                continue;
            };
            if !std::mem::replace(&mut begun, true) {
                let help = match name.unit.text() {
                    "" => format!("{}.", family.help),
                    unit => format!("{} (in {unit}).", family.help),
                };
                out.family(name.name, family.kind, &help);
            }
            out.sample(name.name, labels, name.unit.convert(raw));
        }
    }
}

/// 0 from the start, wherever XIDs are heard: an alert on it must not be an alert on nothing.
fn last_xid(
    view: &View,
    snapshot: &Snapshot,
    labels: &Labels,
    naming: GpuNaming,
    out: &mut Writer,
) {
    let name = names::xid(naming);
    let mut begun = false;
    let mut once = Once::default();
    for (gpu, _) in &snapshot.gpus {
        if !view.heard.contains(&gpu.uuid) || !once.first(&labels::short(gpu.index, &gpu.uuid)) {
            continue;
        }
        if !std::mem::replace(&mut begun, true) {
            out.family(
                name,
                Kind::Gauge,
                "Value of the last XID error encountered; 0 if there was none.",
            );
        }
        let code = view.xids.get(&gpu.uuid).map_or(0, |xids| xids.last);
        let more = [
            ("err_code", &*code.to_string()),
            ("err_msg", xid::text(code)),
        ];
        out.sample(
            name,
            &labels.write(gpu, None, &snapshot.driver, &more),
            code as f64,
        );
    }
}

/// NVML's bits of `clocksEventReasons`, named as dcgm-exporter names its clock events.
const CLOCK_EVENTS: [(u32, &str); 9] = [
    (0, "gpu_idle"),
    (1, "clocks_setting"),
    (2, "power_cap"),
    (3, "hw_slowdown"),
    (4, "sync_boost"),
    (5, "sw_thermal"),
    (6, "hw_thermal"),
    (7, "hw_power_brake"),
    (8, "display_clocks"),
];

fn own_values(snapshot: &Snapshot, out: &mut Writer) {
    let each = |field, label: Option<(&'static str, &'static str)>| {
        snapshot.gpus.iter().filter_map(move |(gpu, reading)| {
            let mut labels = labels::short(gpu.index, &gpu.uuid);
            if let Some((name, value)) = label {
                labels::push(&mut labels, name, value);
            }
            Some((labels, reading.get(field)?))
        })
    };
    gauge(out, own::RECOVERY, each(Field::RecoveryAction, None));
    let events = CLOCK_EVENTS.iter().flat_map(|(bit, event)| {
        each(Field::ClocksEventReasons, Some(("reason", event)))
            .map(move |(labels, mask)| (labels, f64::from(u8::from((mask as u64 >> bit) & 1 == 1))))
    });
    gauge(out, own::CLOCKS_EVENT, events);
    let thresholds = each(Field::ThresholdSlowdown, Some(("threshold", "slowdown"))).chain(each(
        Field::ThresholdShutdown,
        Some(("threshold", "shutdown")),
    ));
    gauge(out, own::THRESHOLD, thresholds);
    let processes = snapshot.gpus.iter().flat_map(|(gpu, reading)| {
        reading.processes.iter().map(|(pid, bytes)| {
            let mut labels = labels::short(gpu.index, &gpu.uuid);
            labels::push(&mut labels, "pid", &pid.to_string());
            (labels, *bytes as f64)
        })
    });
    gauge(out, own::PROCESS, processes);
}

#[cfg(test)]
mod tests;
