//! The integration tests: one binary, real sockets, a proxy in this process.

// Helpers outside `#[test]` functions may fail a test as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::large_futures,
    missing_docs,
    unreachable_pub
)]

#[path = "it/bugs.rs"]
mod bugs;
#[path = "it/captures.rs"]
mod captures;
#[path = "it/catalogue.rs"]
mod catalogue;
#[path = "it/child.rs"]
mod child;
#[path = "it/cli.rs"]
mod cli;
#[path = "it/containment.rs"]
mod containment;
#[path = "it/discover.rs"]
mod discover;
#[path = "it/drain.rs"]
mod drain;
#[path = "it/endpoints.rs"]
mod endpoints;
#[path = "it/engine.rs"]
mod engine;
#[path = "it/exposition.rs"]
mod exposition;
#[path = "it/exposition_parser.rs"]
mod exposition_parser;
#[path = "it/forwarding.rs"]
mod forwarding;
#[path = "it/gateway.rs"]
mod gateway;
#[path = "it/gateway_changing.rs"]
mod gateway_changing;
#[path = "it/gateway_failing.rs"]
mod gateway_failing;
#[path = "it/gpu.rs"]
mod gpu;
#[path = "it/gpu_devices.rs"]
mod gpu_devices;
#[path = "it/gpu_faults.rs"]
mod gpu_faults;
#[path = "it/gpus.rs"]
mod gpus;
#[path = "it/guarded.rs"]
mod guarded;
#[path = "it/handed_over.rs"]
mod handed_over;
#[path = "it/health.rs"]
mod health;
#[path = "it/held_back.rs"]
mod held_back;
#[path = "it/hook.rs"]
mod hook;
#[path = "it/http2.rs"]
mod http2;
#[path = "it/inject.rs"]
mod inject;
#[path = "it/injector.rs"]
mod injector;
#[path = "it/injector_webhook.rs"]
mod injector_webhook;
#[path = "it/labels.rs"]
mod labels;
#[path = "it/large.rs"]
mod large;
#[path = "it/leaving.rs"]
mod leaving;
#[path = "it/many.rs"]
mod many;
#[path = "it/nodes.rs"]
mod nodes;
#[path = "it/notify.rs"]
mod notify;
#[path = "it/origin.rs"]
mod origin;
#[path = "it/pipelining.rs"]
mod pipelining;
#[path = "it/pool.rs"]
mod pool;
#[path = "it/slow.rs"]
mod slow;
#[path = "it/smuggling.rs"]
mod smuggling;
#[path = "it/smuggling_cases.rs"]
mod smuggling_cases;
#[path = "it/smuggling_hosts.rs"]
mod smuggling_hosts;
#[path = "it/stalled.rs"]
mod stalled;
#[path = "it/strict.rs"]
mod strict;
#[path = "it/stub.rs"]
mod stub;
#[path = "it/support.rs"]
mod support;
#[path = "it/tenants.rs"]
mod tenants;
#[path = "it/timeouts.rs"]
mod timeouts;
#[path = "it/transparency.rs"]
mod transparency;
#[path = "it/transports.rs"]
mod transports;
#[path = "it/truth.rs"]
mod truth;
#[path = "it/turns.rs"]
mod turns;
#[path = "it/unaccounted.rs"]
mod unaccounted;
#[path = "it/upstream_leg.rs"]
mod upstream_leg;
