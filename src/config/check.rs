//! What only shows when all the values are known.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::error::{Errors, Place, Problem, reason};
use super::key::Draft;
use super::keys;
use super::load::Loaded;
use super::origin::{Origin, Origins};
use super::{Config, TlsFiles, UpstreamUrl, default};

/// Completes the draft. `broken` are the keys whose value could not be read: what hangs on them is not checked, since
/// the default that stands in for them would give errors that nobody made.
pub(super) fn whole(
    draft: Draft,
    origins: &Origins,
    broken: &[usize],
    problems: &mut Vec<Problem>,
) -> Config {
    let mut whole = Whole {
        origins,
        broken,
        problems,
    };
    let Draft {
        mut config,
        tls_cert,
        tls_key,
    } = draft;
    if config.server.workers == 0 {
        config.server.workers = default::workers();
    }
    config.server.tls = match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            whole.clash(
                ["server.tls_cert", "server.tls_key"],
                "needs server.tls_key too",
            );
            None
        }
        (None, Some(_)) => {
            whole.clash(
                ["server.tls_key", "server.tls_cert"],
                "needs server.tls_cert too",
            );
            None
        }
    };
    let tenants = &config.tenants;
    if !tenants.labels.is_empty() && tenants.map_file.is_none() && tenants.hash_key.is_none() {
        whole.clash(
            ["tenants.labels", "tenants.map_file"],
            "needs tenants.map_file or tenants.hash_key too: raw values are never shown",
        );
    }
    if !config.gateway.discover.is_empty() && matches!(origins.of("upstream.url"), Origin::Default)
    {
        // The default is for those who say nothing of where their vLLM is.
        config.upstream.urls.clear();
    } else if config.upstream.urls.is_empty() && config.gateway.discover.is_empty() {
        whole.clash(
            ["upstream.url", "gateway.discover"],
            "expected at least one URL, found none",
        );
    }
    if config.gateway.eject_max < config.gateway.eject_for {
        whole.clash(
            ["gateway.eject_max", "gateway.eject_for"],
            "gateway.eject_max must not be shorter than gateway.eject_for",
        );
    }
    let (listen, admin) = (config.server.listen, config.admin.listen);
    if overlap(listen, admin) {
        let message = format!("server.listen ({listen}) and admin.listen ({admin}) overlap");
        whole.clash(["admin.listen", "server.listen"], &message);
    }
    for url in &config.upstream.urls {
        for (key, address) in [("server.listen", listen), ("admin.listen", admin)] {
            if leads_to(url, address) {
                let message = format!("{url} is tokenglass itself ({key} is {address})");
                whole.clash(["upstream.url", key], &message);
            }
        }
    }
    config
}

/// Looks whether the files that the configuration names can be read, and the tokenizers be used. Not part of loading, so that a configuration can
/// be printed on a machine that does not have them.
///
/// # Errors
///
/// One for each file that cannot be read.
pub fn check_files(loaded: &Loaded) -> Result<(), Errors> {
    let tls = loaded.config.server.tls.as_ref();
    let files = [
        ("server.tls_cert", tls.map(|tls| tls.cert.as_path())),
        ("server.tls_key", tls.map(|tls| tls.key.as_path())),
        (
            "upstream.ca_file",
            loaded.config.upstream.ca_file.as_deref(),
        ),
        (
            "tenants.map_file",
            loaded.config.tenants.map_file.as_deref(),
        ),
    ];
    let problems = files.into_iter().filter_map(|(key, path)| {
        let why = unreadable(path?)?;
        Some(Problem::new(
            loaded.origins.of(key).place(),
            format!("{key}: {why}"),
        ))
    });
    let models = loaded.config.tokens.models.iter().filter_map(|model| {
        let why = crate::tokens::check(model).err()?;
        Some(Problem::new(
            loaded.origins.of("tokens.model").place(),
            format!("tokens.model: {why}"),
        ))
    });
    let mut problems: Vec<_> = problems.chain(models).collect();
    if problems.is_empty() {
        problems.extend(usable(loaded));
    }
    Errors::unless_empty(problems)
}

/// Files that are there and cannot be used: what would stop the start is to be said by `validate` as well.
fn usable(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    let problem = |key: &str, error: &dyn std::error::Error| {
        let whole: Vec<_> = std::iter::successors(Some(error), |error| error.source())
            .map(ToString::to_string)
            .collect();
        Problem::new(
            loaded.origins.of(key).place(),
            format!("{key}: {}", whole.join(": ")),
        )
    };
    let mut problems = Vec::new();
    if let Some(Err(error)) = config.server.tls.as_ref().map(crate::listen::tls::acceptor) {
        problems.push(problem("server.tls_cert", &error));
    }
    if let Err(error) = crate::tenants::Tenants::new(&config.tenants) {
        problems.push(problem("tenants.map_file", &error));
    }
    for url in &config.upstream.urls {
        let ca_file = config.upstream.ca_file.as_deref();
        let connector = crate::upstream::Connector::new(
            url.clone(),
            config.upstream.connect_timeout,
            ca_file,
            Default::default(),
        );
        if let Err(error) = connector {
            problems.push(problem("upstream.ca_file", &error));
        }
    }
    problems
}

fn unreadable(path: &Path) -> Option<String> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Some(format!("{} is empty", path.display())),
        Ok(_) => None,
        Err(error) => Some(format!(
            "cannot read {}: {}",
            path.display(),
            reason(&error)
        )),
    }
}

struct Whole<'a> {
    origins: &'a Origins,
    broken: &'a [usize],
    problems: &'a mut Vec<Problem>,
}

// === impl Whole ===

impl Whole<'_> {
    /// Two keys that do not go together. The blame goes to the one that was set last, by the user at any rate if one
    /// of them is a default; between equals to the first.
    fn clash(&mut self, keys: [&str; 2], message: &str) {
        let is_broken = |path: &str| {
            let index = path
                .split_once('.')
                .and_then(|(section, name)| keys::index(section, name));
            index.is_some_and(|index| self.broken.contains(&index))
        };
        if keys.iter().any(|key| is_broken(key)) {
            return;
        }
        let [first, second] = keys;
        let blamed = if rank(self.origins.of(second)) > rank(self.origins.of(first)) {
            second
        } else {
            first
        };
        let place = self.origins.of(blamed).place();
        let message = match place {
            Place::File { .. } | Place::Default => format!("{blamed}: {message}"),
            Place::Environment { .. } | Place::Flag { .. } => message.to_owned(),
        };
        self.problems.push(Problem::new(place, message));
    }
}

fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Default => 0,
        Origin::File { .. } => 1,
        Origin::Environment { .. } => 2,
        Origin::Flag { .. } => 3,
    }
}

/// Cannot both be bound. Port 0 is a new one each time; `[::]` takes IPv4 too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (a_ip, b_ip) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port()
        && a.port() != 0
        && (a_ip == b_ip || a_ip.is_unspecified() || b_ip.is_unspecified())
}

/// Would connect to `listen`, as far as that can be told without asking the resolver.
fn leads_to(url: &UpstreamUrl, listen: SocketAddr) -> bool {
    let (UpstreamUrl::Http { host, port } | UpstreamUrl::Https { host, port }) = url else {
        return false;
    };
    let ip = listen.ip().to_canonical();
    let is_here = match host.parse::<IpAddr>().map(|host| host.to_canonical()) {
        Ok(host) => {
            host == ip || (ip.is_unspecified() && (host.is_loopback() || host.is_unspecified()))
        }
        Err(_) => host == "localhost" && (ip.is_loopback() || ip.is_unspecified()),
    };
    is_here && *port == listen.port()
}
