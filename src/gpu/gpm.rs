//! GPU performance monitoring, Hopper and later: what DCGM calls PROF. A value is what happened between two samples.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::{Device, GpmSample};

use crate::gpu::lifecycle::Fault;
use crate::gpu::names::Field;

/// NVML wants samples at least this far apart.
const APART: Duration = Duration::from_millis(100);
/// NVML's header and DCGM agree on the unit of its rates: MiB/s.
const MIB: f64 = 1_048_576.0;

const METRICS: [(GpmMetricId, Field, f64); 9] = [
    (GpmMetricId::GraphicsUtil, Field::ProfGraphics, 1.0),
    (GpmMetricId::SmUtil, Field::ProfSm, 1.0),
    (GpmMetricId::SmOccupancy, Field::ProfOccupancy, 1.0),
    (GpmMetricId::AnyTensorUtil, Field::ProfTensor, 1.0),
    (GpmMetricId::DramBwUtil, Field::ProfDram, 1.0),
    (GpmMetricId::PcieTxPerSec, Field::PcieTx, MIB),
    (GpmMetricId::PcieRxPerSec, Field::PcieRx, MIB),
    (GpmMetricId::NvlinkTotalTxPerSec, Field::NvlinkTx, MIB),
    (GpmMetricId::NvlinkTotalRxPerSec, Field::NvlinkRx, MIB),
];

/// The last sample of each GPU, and of each GPU instance.
#[derive(Debug, Default)]
pub(super) struct Gpm<'n> {
    last: BTreeMap<(u32, Option<u32>), (GpmSample<'n>, Instant)>,
}

impl<'n> Gpm<'n> {
    /// Forgets instances of a GPU that are not there any more: another one may get the same id.
    pub(super) fn keep(&mut self, gpu: u32, instances: &BTreeSet<u32>) {
        self.last.retain(|(of, instance), _| {
            *of != gpu || instance.is_none_or(|id| instances.contains(&id))
        });
    }

    /// What happened since the last time; nothing the first time.
    pub(super) fn read(
        &mut self,
        device: &Device<'n>,
        gpu: u32,
        instance: Option<u32>,
    ) -> Result<Vec<(Field, f64)>, Fault> {
        let nvml = device.nvml();
        if nvml.lib().nvmlGpmSampleFree.is_err() || !device.gpm_support()? {
            return Err(Fault::NotSupported);
        }
        let key = (gpu, instance);
        let now = Instant::now();
        if self
            .last
            .get(&key)
            .is_some_and(|(_, at)| now.duration_since(*at) < APART)
        {
            return Ok(Vec::new());
        }
        let sample = match instance {
            Some(id) => device.gpm_mig_sample(id)?,
            None => device.gpm_sample()?,
        };
        let mut values = Vec::new();
        if let Some((last, _)) = self.last.get(&key) {
            let ids = METRICS.map(|(id, ..)| id);
            let results = gpm_metrics_get(nvml, last, &sample, &ids)?;
            for ((_, field, scale), result) in METRICS.iter().zip(results) {
                if let Ok(metric) = result
                    && metric.value.is_finite()
                {
                    values.push((*field, metric.value * scale));
                }
            }
        }
        self.last.insert(key, (sample, now));
        Ok(values)
    }
}
