//! The addresses of a name, again and again.
//!
//! A dual-stack host is two upstreams here: DNS does not say that they are one. Where that matters, give the Service one
//! family, or use the `kubernetes` source, which knows.
//!
//! With a Kubernetes pod's `ndots:5` a name such as `vllm.ai.svc.cluster.local` is first tried with each search domain,
//! which is three times two queries for nothing each round; a dot at its end spares them.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::hold::{GRACE, Hold};
use super::resolve::Resolver;
use super::{Found, Outlet, Servers};
use crate::poll::jitter::jittered;

/// How names are resolved.
#[derive(Clone, Debug)]
pub struct Dns {
    /// From the end of a round to the next, give or take a tenth.
    pub interval: Duration,
    /// For how long "no such name" is not believed of a name that had addresses. 30 s
    pub grace: Duration,
    /// Who is asked. The system's
    pub servers: Servers,
}

impl Dns {
    /// As the system resolves, each `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            grace: GRACE,
            servers: Servers::System,
        }
    }
}

/// Never ends.
pub(super) async fn follow(host: String, port: u16, dns: Rc<Dns>, outlet: Outlet) {
    let mut resolver = Resolver::new(dns.servers.clone());
    let mut hold = Hold::new(dns.grace);
    loop {
        match resolver.resolve(&host).await {
            Ok(answer) => {
                hold.answered(answer, Instant::now());
                let found: Found = hold.addresses().map(|ip| (ip, port).into()).collect();
                if hold.in_doubt() {
                    outlet.doubtful("no such name in DNS; its last addresses are kept for now");
                }
                outlet.found(found);
            }
            Err(error) => outlet.failed(error.failure(), &error),
        }
        tokio::time::sleep(jittered(dns.interval)).await;
    }
}
