//! A thousand streams at once through one worker of the real binary: none lost, none altered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadtest::sim;
use loadtest::traffic::{self, Mix, Outcome, Plan, Record};

use crate::child::Child;
use crate::support::runtime;

const STREAMS: usize = 1000;
const FRAMES: f64 = 25.0;

fn plan(target: SocketAddr) -> Plan {
    let mut plan = Plan::new(target);
    plan.concurrency = STREAMS;
    plan.requests = Some(STREAMS as u64);
    plan.mix = Mix {
        stream: 1.0,
        // A tool call's id is made of the time of day.
        tools: 0.0,
        max_tokens: sim::Dist::Const(FRAMES),
        ..Mix::default()
    };
    plan.directives = vec![(
        1.0,
        format!(r#"{{"ttft_ms":1500,"itl_ms":20,"output_tokens":{FRAMES}}}"#),
    )];
    plan.keep_bodies = true;
    plan
}

/// A body without the time of day, which is all that two answers to the same request may differ in.
fn timeless(record: &Record) -> String {
    let body = record.body.as_ref().expect("bodies are kept");
    let body = std::str::from_utf8(body).expect("the simulator speaks UTF-8");
    body.split(r#""created":"#)
        .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()))
        .collect()
}

#[test]
fn a_thousand_streams_through_one_worker_are_all_whole() {
    let _turn = crate::turns::take();
    let runtime = runtime();
    let sim = runtime
        .block_on(async { sim::Server::start(sim::Config::default()) })
        .unwrap();
    // The estimator's vocabulary is a fixed 35 MB or so, which would hide what a stream costs.
    let child = Child::start(sim.addr(), "[tokens]\nestimate = false\n");
    let before = child.resident_kib();

    let through = runtime.spawn(traffic::run(plan(child.addr())));
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut open, mut most) = (0, 0);
    while !through.is_finished() {
        assert!(Instant::now() < deadline, "not done in 20 s");
        let now = child.metrics().count("vllm_requests_in_flight", &[]);
        if now >= open {
            (open, most) = (now, most.max(child.resident_kib()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut through = runtime.block_on(through).unwrap().records;
    let build = match std::env::var("BINARY_UNDER_TEST") {
        Ok(path) => path,
        Err(_) if cfg!(debug_assertions) => "dev build".to_owned(),
        Err(_) => "release build".to_owned(),
    };
    println!(
        "RSS of the proxy ({build}): {before} KiB idle, {most} KiB with {open} streams open, {:.1} KiB a stream",
        (most - before) as f64 / open as f64
    );
    assert_eq!(open, STREAMS as u64, "open at once");

    let mut direct = runtime.block_on(traffic::run(plan(sim.addr()))).records;
    through.sort_by(|a, b| a.id.cmp(&b.id));
    direct.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(through.len(), STREAMS);
    for (through, direct) in through.iter().zip(&direct) {
        assert_eq!(through.outcome, Outcome::Ok, "{}", through.id);
        assert_eq!(timeless(through), timeless(direct), "{}", through.id);
        assert!(timeless(through).ends_with("data: [DONE]\n\n"));
    }
    let metrics = child.metrics();
    assert_eq!(metrics.outcomes(), (STREAMS as u64, 0, 0));
}
