//! Prometheus and Alertmanager, real ones, with the shipped rules and routing in a hurry.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::act::World;
use super::process::{Process, free_ports};
use super::scale::{Scale, rewrite};
use super::sink::{EXPOSITION, INJECTOR};
use super::{Plan, http, rules};

pub(crate) struct Servers {
    pub(crate) prometheus: SocketAddr,
    pub(crate) alertmanager: SocketAddr,
    processes: [Process; 2],
}

/// How long a start may take on a machine that is busy.
const START: Duration = Duration::from_secs(60);

// === impl Servers ===

impl Servers {
    pub(crate) async fn start(plan: &Plan, world: &World, scratch: &Path) -> anyhow::Result<Self> {
        let [prometheus, alertmanager] = free_ports()?;
        let folder = scratch.join("prometheus");
        fs::create_dir_all(folder.join("rules"))?;
        copy_rules(plan, &folder.join("rules"))?;
        let file = folder.join("prometheus.yml");
        fs::write(&file, scraping(world, alertmanager))?;
        let first = Process::start(
            "prometheus",
            &folder,
            &plan.installed.join("new/bin/prometheus"),
            [
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", folder.join("data").display()),
                format!("--web.listen-address={prometheus}"),
                // After a start Prometheus restores what was pending; there is nothing.
                "--rules.alert.for-grace-period=1s".to_owned(),
                "--rules.alert.resend-delay=5s".to_owned(),
            ],
            &[],
        )?;
        let folder = scratch.join("alertmanager");
        fs::create_dir_all(&folder)?;
        let file = folder.join("alertmanager.yml");
        let shipped = fs::read_to_string(&plan.routing)
            .with_context(|| format!("cannot read {}", plan.routing.display()))?;
        let sink = format!("http://{}", world.sink.addr());
        fs::write(&file, Scale(plan.scale).routing(&shipped, &sink))?;
        let second = Process::start(
            "alertmanager",
            &folder,
            &plan.installed.join("alertmanager-new/bin/alertmanager"),
            [
                format!("--config.file={}", file.display()),
                format!("--storage.path={}", folder.join("data").display()),
                format!("--web.listen-address={alertmanager}"),
                // No cluster: nothing listens but the one port on loopback.
                "--cluster.listen-address=".to_owned(),
            ],
            &[],
        )?;
        let mut servers = Self {
            prometheus,
            alertmanager,
            processes: [first, second],
        };
        let began = Instant::now();
        for addr in [prometheus, alertmanager] {
            while let Err(error) = http::text(addr, "/-/ready").await {
                servers.check()?;
                anyhow::ensure!(began.elapsed() < START, "not ready: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(servers)
    }

    /// Both still run.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }
}

/// Copies of the rules in which nothing but durations differs.
fn copy_rules(plan: &Plan, to: &Path) -> anyhow::Result<()> {
    for (path, text) in rules::files(&plan.rules)? {
        let copy = Scale(plan.scale).rules(&text);
        let bare = |text: &str| rewrite(text, &mut |_, _| "_".to_owned());
        anyhow::ensure!(
            bare(&copy) == bare(&text),
            "more than durations would change in {}",
            path.display()
        );
        fs::write(to.join(path.file_name().unwrap_or_default()), copy)?;
    }
    Ok(())
}

/// Every proxy, and what the drill serves itself.
fn scraping(world: &World, alertmanager: SocketAddr) -> String {
    let proxies: Vec<String> = world
        .rigs
        .values()
        .map(|rig| format!("\"{}\"", rig.admin))
        .collect();
    let sink = world.sink.addr();
    format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n  external_labels:\n    cluster: drill\n\
         rule_files: [\"rules/*.yaml\"]\n\
         alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: [\"{alertmanager}\"]\n\
         scrape_configs:\n  - job_name: tokenglass\n    static_configs:\n      - targets: [{}]\n  \
         - job_name: drill\n    honor_labels: true\n    metrics_path: {EXPOSITION}\n    static_configs:\n      - targets: [\"{sink}\"]\n  \
         - job_name: tokenglass-injector\n    honor_labels: true\n    metrics_path: {INJECTOR}\n    static_configs:\n      - targets: [\"{sink}\"]\n",
        proxies.join(", "),
    )
}
