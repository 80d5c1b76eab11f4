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
    // Seldom enough that the two are not left alone at the same time: that would be another alert.
    let failing = Load::whole(r#"{"fault":{"kind":"http","status":500}}"#, &["drill"]).rate(1, 3);
    vec![
        fault(
            "all upstreams are killed",
            Which::Alone,
            Act::KillUpstream,
            vec![Case::critical("GatewayNoUpstreamHealthy", on)],
        ),
        fault(
            "each request is a 500",
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
