//! What clients see.

use super::{Act, Case, Fault, Load, On, Stage, model};
use crate::drill::rig::Which;

const FINE: &str = r#"{"finish_reason":"stop"}"#;
/// Tokens that come one by one: of those in one read the time per token is not measured.
const STEADY: &str = r#"{"itl_ms":20,"finish_reason":"stop"}"#;
const BROKEN: &str = r#"{"fault":{"kind":"http","status":500,"message":"Internal Server Error"}}"#;
const DEAD: &str = r#"{"fault":{"kind":"http","status":500,"message":"EngineCore encountered an issue. See stack trace (above) for the root cause."}}"#;
const TOO_LONG: &str = r#"{"fault":{"kind":"http","status":400,"message":"This model's maximum context length is 2048 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in the completion)."}}"#;
const LATE: &str = r#"{"ttft_ms":3000,"finish_reason":"stop"}"#;
const SLOW: &str = r#"{"itl_ms":300,"finish_reason":"stop"}"#;

pub(super) fn all() -> Vec<Fault> {
    let fault = |about, load, cases: Vec<Case>| Fault {
        about,
        stage: Stage::Business,
        rig: Which::Requests,
        act: Act::Load(load),
        cases,
    };
    let one = |about, load: Load, alert| {
        let case = Case::warning(alert, model(load.models[0]));
        fault(about, load, vec![case])
    };
    let mut dead = one(
        "500 EngineCore",
        Load::whole(DEAD, &["dead"]),
        "RequestsEngineDead",
    );
    dead.cases[0].critical = true;
    let burns = |alert, name| {
        vec![
            Case::critical(alert, model(name)).window("1h"),
            Case::critical(alert, model(name)).window("6h"),
            Case::warning(alert, model(name))
                .window("3d")
                .hidden("critical"),
        ]
    };
    let ticket = |about, load: Load, alert| {
        let case = Case::warning(alert, model(load.models[0])).window("3d");
        fault(about, load, vec![case])
    };
    let (availability, ttft, tpot) = (
        "RequestsAvailabilityBudgetBurn",
        "RequestsTtftBudgetBurn",
        "RequestsTpotBudgetBurn",
    );
    let mut broken = burns(availability, "broken");
    broken.push(Case::warning("RequestsSuccessRateLow", model("broken")));
    let mut late = burns(ttft, "late");
    late.push(Case::warning("VllmTtftP95High", model("late")));
    let mut slow = burns(tpot, "slow");
    slow.push(Case::warning("VllmInterTokenLatencyHigh", model("slow")));
    let frames = Load::stream(
        r#"{"fault":{"kind":"error_frame","after":2,"message":"CUDA error: out of memory"}}"#,
        &["error-frames"],
    );
    let patient = r#"{"itl_ms":200,"output_tokens":6}"#;
    let mut bypass = one(
        "requests past the proxy",
        Load::whole(FINE, &["drill"]),
        "RequestsUnaccountedTokens",
    );
    bypass.rig = Which::Engine;
    bypass.act = Act::Bypass(Load::whole(FINE, &["drill"]));
    bypass.cases[0].on = On::Rig;
    vec![
        fault(
            "all requests fail",
            Load::whole(BROKEN, &["broken"]).rate(2, 1),
            broken,
        ),
        ticket(
            "1.7 % fail",
            Load::whole(FINE, &["broken-a-little"])
                .rate(6, 1)
                .odd(60, BROKEN),
            availability,
        ),
        fault("first token after 3 s", Load::stream(LATE, &["late"]), late),
        ticket(
            "that of one in 7",
            Load::stream(FINE, &["late-a-little"]).odd(7, LATE),
            ttft,
        ),
        fault("0.3 s a token", Load::stream(SLOW, &["slow"]), slow),
        ticket(
            "those of one in 7",
            Load::stream(STEADY, &["slow-a-little"]).odd(7, SLOW),
            tpot,
        ),
        dead,
        one(
            "streams are cut",
            Load::stream(r#"{"fault":{"kind":"truncate","after":3}}"#, &["cut"]),
            "RequestsTruncated",
        ),
        one("errors within streams", frames, "RequestsStreamErrors"),
        one(
            "prompts too long",
            Load::whole(TOO_LONG, &["too-long"]),
            "RequestsContextLengthStorm",
        ),
        one(
            "clients leave",
            Load::stream(patient, &["left"]).leave(400),
            "RequestsCancelRateHigh",
        ),
        one(
            "finish_reason length",
            Load::whole("{}", &["limited"]),
            "RequestsLengthLimited",
        ),
        bypass,
    ]
}
