//! Several upstreams.

use super::{Act, Case, Fault, Load, On, Stage};
use crate::drill::rig::Which;

pub(super) fn all() -> Vec<Fault> {
    let fault = |about, rig, act, cases| Fault {
        about,
        stage: Stage::Gateway,
        rig,
        act,
        cases,
    };
    let on = On::Rig;
    let slow = Load::whole(r#"{"head_delay_ms":3000}"#, &["drill"]).rate(1, 2);
    // What succeeds in between has an upstream back. With none that would be another alert.
    let failing = Load::whole(r#"{"finish_reason":"stop"}"#, &["drill"])
        .odd(4, r#"{"fault":{"kind":"http","status":500}}"#);
    vec![
        fault(
            "all upstreams are killed",
            Which::Alone,
            Act::KillUpstream,
            vec![Case::critical("GatewayNoUpstreamHealthy", on)],
        ),
        fault(
            "one request in four is a 500",
            Which::Ejecting,
            Act::Load(failing),
            vec![Case::warning("GatewayUpstreamEjected", on)],
        ),
        fault(
            "2 a second take 3 s, and 2 may run",
            Which::Full,
            Act::Load(slow),
            vec![
                Case::warning("GatewayRequestsRejected", on),
                Case::warning("GatewayQueueLong", on),
            ],
        ),
    ]
}
