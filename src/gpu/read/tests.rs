use super::*;

#[derive(Default)]
struct Fake {
    asked: Vec<Call>,
    faults: Vec<(Call, Fault)>,
    counters: Counters,
    gpm: Option<(f64, f64)>,
    mig: f64,
}

impl Source for Fake {
    fn count(&self) -> Result<u32, Fault> {
        Ok(1)
    }

    fn ask(&mut self, _gpu: u32, call: Call) -> Result<Answer, Fault> {
        self.asked.push(call);
        if let Some((_, fault)) = self.faults.iter().find(|(faulty, _)| *faulty == call) {
            return Err(*fault);
        }
        Ok(match call {
            Call::Power => Answer::of(Field::Power, 1.0),
            Call::MigMode => Answer::of(Field::MigMode, self.mig),
            Call::PowerLimit => Answer::of(Field::PowerLimit, 2.0),
            Call::Fields => Answer {
                values: Vec::new(),
                counters: self.counters,
            },
            Call::Gpm => match self.gpm {
                Some((out, into)) => Answer {
                    values: vec![(Field::PcieTx, out), (Field::PcieRx, into)],
                    ..Answer::default()
                },
                None => return Err(Fault::NotSupported),
            },
            Call::PcieThroughput => Answer {
                values: vec![(Field::PcieTx, 7.0), (Field::PcieRx, 8.0)],
                ..Answer::default()
            },
            _ => Answer::default(),
        })
    }

    fn instances(&mut self, _gpu: u32) -> Result<Vec<Instance>, Fault> {
        Ok(Vec::new())
    }

    fn processes(&mut self, _gpu: u32) -> Result<Vec<(u32, u64)>, Fault> {
        Ok(vec![(1, 2), (3, 4), (1, 5)])
    }
}

const PLAN: Plan = Plan {
    slow_every: Duration::from_secs(60),
    processes: false,
};

fn gpu() -> Gpu {
    Gpu::new(Identity {
        index: 0,
        uuid: "GPU-0".to_owned(),
        model: String::new(),
        pci_bus_id: String::new(),
        minor: None,
    })
}

fn read(gpu: &mut Gpu, source: &mut Fake, now: Instant) -> Result<Reading, Fault> {
    source.asked.clear();
    gpu.read(source, PLAN, now, &mut |_, _| {})
}

#[test]
fn what_is_not_supported_is_asked_once_and_what_fails_is_asked_again() {
    let mut source = Fake {
        faults: vec![
            (Call::Fan, Fault::NotSupported),
            (Call::PState, Fault::Unknown),
        ],
        ..Fake::default()
    };
    let (mut gpu, now) = (gpu(), Instant::now());
    read(&mut gpu, &mut source, now).unwrap();
    assert!(source.asked.contains(&Call::Fan) && source.asked.contains(&Call::PState));
    read(&mut gpu, &mut source, now).unwrap();
    assert!(!source.asked.contains(&Call::Fan) && source.asked.contains(&Call::PState));
}

#[test]
fn slow_values_are_kept_between_slow_polls() {
    let (mut gpu, mut source, now) = (gpu(), Fake::default(), Instant::now());
    read(&mut gpu, &mut source, now).unwrap();
    assert!(source.asked.contains(&Call::PowerLimit));
    let reading = read(&mut gpu, &mut source, now + Duration::from_secs(59)).unwrap();
    assert!(!source.asked.contains(&Call::PowerLimit));
    assert_eq!(reading.get(Field::PowerLimit), Some(2.0));
    read(&mut gpu, &mut source, now + Duration::from_secs(60)).unwrap();
    assert!(source.asked.contains(&Call::PowerLimit));
}

#[test]
fn a_lost_gpu_ends_the_reading() {
    let mut source = Fake {
        faults: vec![(Call::Power, Fault::GpuLost)],
        ..Fake::default()
    };
    assert_eq!(
        read(&mut gpu(), &mut source, Instant::now()),
        Err(Fault::GpuLost)
    );
}

#[test]
fn the_call_that_blocks_is_the_last_resort() {
    let rate = |reading: &Reading| (reading.get(Field::PcieTx), reading.get(Field::PcieRx));
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    // Wide counters first.
    let mut source = Fake {
        gpm: Some((5.0, 6.0)),
        ..Fake::default()
    };
    let mut one = gpu();
    source.counters.pcie = Some((1 << 40, 0));
    read(&mut one, &mut source, start).unwrap();
    source.counters.pcie = Some(((1 << 40) + 3, 4));
    assert_eq!(
        rate(&read(&mut one, &mut source, start + second).unwrap()),
        (Some(3.0), Some(4.0))
    );
    // Then GPM, when they may have wrapped unseen.
    let mut one = gpu();
    for (at, count) in [(start, 10), (start + second, 13)] {
        source.counters.pcie = Some((count, count));
        assert_eq!(
            rate(&read(&mut one, &mut source, at).unwrap()),
            (Some(5.0), Some(6.0))
        );
    }
    // Then narrow counters.
    source.gpm = None;
    let mut one = gpu();
    read(&mut one, &mut source, start).unwrap();
    source.counters.pcie = Some((20, 15));
    assert_eq!(
        rate(&read(&mut one, &mut source, start + second).unwrap()),
        (Some(7.0), Some(2.0))
    );
    assert!(!source.asked.contains(&Call::PcieThroughput));
    // Then the call that blocks.
    source.counters.pcie = None;
    assert_eq!(
        rate(&read(&mut gpu(), &mut source, start).unwrap()),
        (Some(7.0), Some(8.0))
    );
}

#[test]
fn a_process_that_is_listed_twice_has_the_sum() {
    let plan = Plan {
        processes: true,
        ..PLAN
    };
    let reading = gpu()
        .read(&mut Fake::default(), plan, Instant::now(), &mut |_, _| {})
        .unwrap();
    assert_eq!(reading.processes, [(1, 7), (3, 4)]);
}

#[test]
fn with_mig_turned_off_everything_is_asked_again() {
    let mut source = Fake {
        faults: vec![
            (Call::Utilization, Fault::NotSupported),
            (Call::PowerLimit, Fault::NotSupported),
        ],
        mig: 1.0,
        ..Fake::default()
    };
    let (mut gpu, now) = (gpu(), Instant::now());
    for _ in 0..2 {
        read(&mut gpu, &mut source, now).unwrap();
    }
    assert!(!source.asked.contains(&Call::Utilization));
    source.mig = 0.0;
    read(&mut gpu, &mut source, now).unwrap();
    assert!(source.asked.contains(&Call::PowerLimit));
    read(&mut gpu, &mut source, now).unwrap();
    assert!(source.asked.contains(&Call::Utilization));
    read(&mut gpu, &mut source, now).unwrap();
    assert!(!source.asked.contains(&Call::Utilization), "and once only");
}
