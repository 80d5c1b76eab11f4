//! tokenglass itself.

use std::time::Duration;

use super::{Act, Case, Fault, Load, On, Stage};
use crate::drill::rig::Which;

const FINE: &str = r#"{"finish_reason":"stop"}"#;

pub(super) fn all() -> Vec<Fault> {
    let fault = |about, rig, act, alert| Fault {
        about,
        stage: Stage::Meta,
        rig,
        act,
        cases: vec![Case::warning(alert, On::Rig)],
    };
    let large = r#"{"tokens_per_frame":20000,"output_tokens":20000,"finish_reason":"stop"}"#;
    let mut large = Load::stream(large, &["drill"]);
    large.max_tokens = 20_000;
    let busy = Load::whole(FINE, &["drill"]).rate(4, 4);
    let mut gone = fault(
        "tokenglass is killed",
        Which::Gone,
        Act::KillProxy,
        "TokenglassDown",
    );
    gone.cases[0].critical = true;
    let mut panics = fault(
        "series played by the drill",
        Which::Meta,
        Act::Panics,
        "TokenglassObserverPanic",
    );
    panics.cases[0].on = On::Label("instance", "drill");
    let mut certificate = fault(
        "series played by the drill",
        Which::Meta,
        Act::BadCertificate,
        "TokenglassInjectorCertificateFailed",
    );
    certificate.cases[0].on = On::Label("instance", "drill");
    let mut silent = fault(
        "a webhook played by the drill",
        Which::Meta,
        Act::NoInjector,
        "TokenglassInjectorDown",
    );
    silent.cases[0].on = On::Label("job", "tokenglass-injector");
    vec![
        gone,
        fault(
            "connects wait for a full backlog",
            Which::Crowded,
            Act::Crowd(busy),
            "TokenglassOverheadHigh",
        ),
        fault(
            "idle connections",
            Which::Descriptors,
            Act::Connections,
            "TokenglassFileDescriptorsLow",
        ),
        fault(
            "a broken file, SIGHUP",
            Which::Meta,
            Act::BadConfig,
            "TokenglassConfigReloadFailed",
        ),
        fault(
            "/metrics hangs",
            Which::Stale,
            Act::Slow("/metrics", Duration::from_secs(600)),
            "TokenglassEngineMetricsStale",
        ),
        fault(
            "NVML hangs",
            Which::Stale,
            Act::GpuHangs,
            "TokenglassGpuSnapshotStale",
        ),
        fault(
            "three models, cap of one",
            Which::Meta,
            Act::Load(Load::whole(FINE, &["drill", "second", "third"])),
            "TokenglassLabelOverflow",
        ),
        panics,
        certificate,
        silent,
        fault(
            "events above max_event",
            Which::Meta,
            Act::Load(large),
            "TokenglassObserverFaults",
        ),
    ]
}
