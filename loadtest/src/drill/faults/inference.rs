//! vLLM and its engine.

use std::time::Duration;

use super::{Act, Case, Fault, Load, On, Stage, model};
use crate::drill::rig::Which;

pub(super) fn all() -> Vec<Fault> {
    let fault = |about, rig, act, cases: Vec<Case>| Fault {
        about,
        stage: Stage::Inference,
        rig,
        act,
        cases,
    };
    let on = On::Rig;
    let hang = Load::stream(r#"{"fault":{"kind":"stall","after":3}}"#, &["drill"]).rate(1, 0);
    let load = Act::Load;
    vec![
        fault(
            "vLLM is killed",
            Which::Down,
            Act::KillUpstream,
            vec![
                Case::critical("VllmServiceDown", on),
                Case::warning("VllmQueueLong", on).hidden("VllmServiceDown"),
            ],
        ),
        fault(
            "no models listed",
            Which::Unloaded,
            Act::Unload,
            vec![Case::critical("VllmModelNotLoaded", on)],
        ),
        fault(
            "a stream hangs",
            Which::Stalled,
            load(hang),
            vec![
                Case::critical("VllmEngineStalled", on),
                Case::warning("RequestsStreamsStalled", on),
            ],
        ),
        fault(
            "/health takes 1.5 s",
            Which::Stale,
            Act::Slow("/health", Duration::from_millis(1500)),
            vec![Case::warning("VllmHealthCheckSlow", on)],
        ),
        fault(
            "kube-state-metrics played by the drill",
            Which::Engine,
            Act::Restarts,
            vec![Case::critical(
                "VllmPodRestarts",
                On::Label("pod", "drill-vllm-0"),
            )],
        ),
        fault(
            "answers take 31 s",
            Which::Requests,
            load(
                Load::whole(
                    r#"{"head_delay_ms":31000,"finish_reason":"stop"}"#,
                    &["long"],
                )
                .rate(1, 2),
            ),
            vec![Case::warning("VllmLatencyP99High", model("long"))],
        ),
        fault(
            "20 wait",
            Which::Engine,
            Act::Value("vllm:num_requests_waiting", 20.0),
            vec![Case::warning("VllmQueueLong", on)],
        ),
        // From what lasts into what is nearly full: the line through it says so before it is.
        fault(
            "usage rises to 0.99",
            Which::Engine,
            Act::Ramp("vllm:kv_cache_usage_perc", 0.5, 0.06, 0.99),
            vec![
                Case::warning("VllmKvCacheFull", on),
                Case::warning("VllmKvCacheExhaustionForecast", on),
            ],
        ),
        fault(
            "2 a second",
            Which::Engine,
            Act::Ramp("vllm:num_preemptions_total", 0.0, 2.0, 1e9),
            vec![Case::warning("VllmPreemptionsHigh", on)],
        ),
    ]
}
