use std::time::{Duration, Instant};

use super::*;
use crate::config::{Config, GpuMode};
use crate::exposition::Format;
use crate::gpu::read::Reading;
use crate::gpu::state::Shared;

#[test]
fn no_series_is_written_twice() {
    let config = Config::default().gpu;
    let gpu = Identity {
        index: 0,
        uuid: "GPU-0".to_owned(),
        model: String::new(),
        pci_bus_id: String::new(),
        minor: None,
    };
    let part = Instance {
        id: 2,
        profile: "3g.40gb".to_owned(),
        uuids: Vec::new(),
        values: vec![(Field::MemoryUsed, 1.0)],
    };
    let reading = Reading {
        values: vec![(Field::Power, 1.0), (Field::ThresholdSlowdown, 1.0)],
        instances: vec![part.clone(), part],
        processes: vec![(1, 2), (1, 2)],
    };
    let shared = Shared::new(Duration::from_secs(5), GpuMode::Auto);
    shared.hears([gpu.uuid.clone()]);
    let snapshot = Snapshot {
        taken: Instant::now(),
        driver: String::new(),
        gpus: vec![(gpu.clone(), reading.clone()), (gpu, reading)],
    };
    shared.publish(snapshot, Duration::ZERO);
    let mut out = Writer::new(Format::Text, 0);
    let labels = Labels::new(&config, "node-1");
    write(
        &shared.view(Instant::now()),
        &labels,
        config.naming,
        &mut out,
    );
    let text = String::from_utf8(out.finish()).unwrap();
    let mut once = Once::default();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    for line in samples {
        let (series, _) = line.rsplit_once(' ').unwrap();
        assert!(once.first(series), "{series} twice");
    }
    for name in [
        "DCGM_FI_DEV_FB_USED{",
        "DCGM_FI_DEV_XID_ERRORS{",
        "tokenglass_gpu_process_memory_bytes{",
    ] {
        assert!(text.contains(name), "{name}");
    }
}
