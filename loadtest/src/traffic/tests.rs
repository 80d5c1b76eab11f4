//! Traffic against the simulator: what the client counts is what the ground truth says.

use std::time::Duration;

use super::*;
use crate::sim::{Behaviour, Config, Server, TruthEnd};

const FAULTS: [(&str, &str); 8] = [
    (r#"{"kind":"http","status":503}"#, "http_503"),
    (r#"{"kind":"error_frame","after":2}"#, "error_frame"),
    (r#"{"kind":"cut_mid_frame","after":2}"#, "cut"),
    (r#"{"kind":"cut_no_done","after":2}"#, "no_done"),
    (r#"{"kind":"truncate","after":2}"#, "cut"),
    (r#"{"kind":"reset"}"#, "cut"),
    (r#"{"kind":"bad_chunk","after":2}"#, "malformed"),
    (r#"{"kind":"short_body"}"#, "cut"),
];

fn sim() -> Server {
    let behaviour: Behaviour =
        serde_json::from_str(r#"{"ttft_ms":3,"itl_ms":{"dist":"exp","mean":0.5}}"#).unwrap();
    Server::start(Config {
        behaviour,
        ..Config::default()
    })
    .unwrap()
}

#[tokio::test]
async fn two_thousand_mixed_requests_agree_with_the_truth() {
    let server = sim();
    let mut plan = Plan::new(server.addr());
    plan.requests = Some(2000);
    plan.concurrency = 64;
    plan.mix = Mix::default().with_cancels();
    for (fault, _) in FAULTS {
        plan.directives
            .push((0.02, format!(r#"{{"fault":{fault}}}"#)));
    }
    let summary = run(plan).await;
    assert_eq!(summary.requests(), 2000);
    assert!(server.truth().wait_for(2000, Duration::from_secs(5)).await);
    for record in &summary.records {
        let entry = server.truth().find(&record.id).unwrap();
        match record.outcome {
            Outcome::Ok => {
                assert_eq!(entry.end, TruthEnd::Complete);
                assert_eq!(record.token_frames, entry.token_frames, "{}", record.id);
            }
            Outcome::ErrorFrame => assert_eq!(entry.end, TruthEnd::ErrorFrame),
            Outcome::HttpError(_) => assert_eq!(entry.end, TruthEnd::HttpError),
            // What was sent may be on its way still when the client leaves.
            Outcome::Cancelled(_) => assert!(entry.token_frames >= record.token_frames),
            _ => assert_ne!(entry.end, TruthEnd::Complete, "{}", record.id),
        }
    }
    for label in [
        "cancelled_before_head",
        "cancelled_before_first_token",
        "cancelled_mid_stream",
        "cancelled_after_done",
    ] {
        assert!(summary.count(label) > 0, "no {label} in {summary}");
    }
    assert!(
        summary.count("ok") > 1400 && summary.ttft().p50 >= 3.0,
        "{summary}"
    );
}

#[tokio::test]
async fn every_fault_has_its_outcome() {
    let server = sim();
    for (fault, outcome) in FAULTS {
        let mut plan = Plan::new(server.addr());
        plan.requests = Some(4);
        plan.mix.stream = 1.0;
        plan.directives = vec![(1.0, format!(r#"{{"fault":{fault}}}"#))];
        let summary = run(plan).await;
        assert_eq!(summary.count(outcome), 4, "{fault}: {summary}");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bodies() {
    let run = async || {
        let server = sim();
        let mut plan = Plan::new(server.addr());
        plan.requests = Some(20);
        plan.concurrency = 1;
        plan.keep_bodies = true;
        let mut records = super::run(plan).await.records;
        records.sort_by(|a, b| a.id.cmp(&b.id));
        // A clock's second may pass in between, and `created` says so.
        let body = |r: Record| {
            let body = String::from_utf8_lossy(&r.body.unwrap()).into_owned();
            let at = body.find("\"created\"").unwrap();
            (r.id, body.len(), body[..at].to_owned())
        };
        records.into_iter().map(body).collect::<Vec<_>>()
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test]
async fn steady_traffic_keeps_its_rate_and_connections() {
    let server = sim();
    let steady = Steady {
        plan: Plan::new(server.addr()),
        rate: 200.0,
    };
    let summary = steady
        .run_until(tokio::time::sleep(Duration::from_millis(500)))
        .await;
    assert!((20..160).contains(&summary.requests()), "{summary}");
    assert_eq!(summary.count("ok"), summary.requests(), "{summary}");
    assert!(
        server.connections_seen() <= 8,
        "{}",
        server.connections_seen()
    );
}

#[tokio::test]
async fn nobody_there() {
    let mut plan = Plan::new("http://127.0.0.1:9".parse::<Target>().unwrap());
    plan.requests = Some(2);
    let summary = run(plan).await;
    assert_eq!(summary.count("connect_failed"), 2);
    assert!("ftp://x".parse::<Target>().is_err());
}
