//! A and AAAA of a name, asked strictly: what could not be asked is not taken for "there is none".
//!
//! hickory-resolver's own `lookup_ip` is not used, because it answers with what the last of the search domains said, and
//! with AAAA alone where A failed; to a gateway that would be upstreams gone. Its parts are: reading resolv.conf and
//! hosts, the queries, TCP after a truncated answer, other servers, CNAMEs.
//!
//! Nothing is cached: the server that is asked has a cache (CoreDNS, the node's, systemd-resolved), and the interval says
//! how much older than that the upstreams may be.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;

use super::Failure;
use super::hold::{Answer, Kind};

/// What the system's resolver is set up with, and so when to set it up anew.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Servers {
    /// Whom `/etc/resolv.conf` names, with its search domains and options, after a look into `/etc/hosts`. Both are
    /// read again when they change. What else `nsswitch.conf` may name (LDAP, mDNS) is not asked.
    #[default]
    System,
    /// These.
    These {
        /// Their addresses, for UDP and TCP.
        addresses: Vec<SocketAddr>,
        /// The domains that are tried behind a name without a dot at its end.
        search: Vec<String>,
        /// A name with fewer dots is tried with those domains first.
        ndots: usize,
        /// For a query to one of the servers.
        timeout: std::time::Duration,
        /// Tries after the first.
        attempts: usize,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot be set up: {0}")]
    Setup(Box<NetError>),
    #[error("{name}: {source}")]
    Query {
        name: Box<Name>,
        source: Box<NetError>,
    },
}

/// Asks; made anew when the system's files change.
pub(super) struct Resolver {
    servers: Servers,
    made: Option<Made>,
}

struct Made {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
    stamps: Stamps,
}

type Stamps = [Option<(SystemTime, u64)>; 2];

// === impl Resolver ===

impl Resolver {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            servers,
            made: None,
        }
    }

    /// What is said of `host`.
    ///
    /// # Errors
    /// [`Error`] if nothing is: neither addresses nor that there are none.
    pub(super) async fn resolve(&mut self, host: &str) -> Result<Answer, Error> {
        let made = self.made()?;
        let names = names(host, &made.search, made.ndots);
        let mut trouble = None;
        for name in names {
            let (v4, v6) = tokio::join!(
                made.ask(name.clone(), RecordType::A),
                made.ask(name, RecordType::AAAA),
            );
            let mut kind = |answer| match answer {
                Ok(kind) => kind,
                Err(error) => {
                    trouble = Some(error);
                    Kind::Failed
                }
            };
            let answer = Answer {
                v4: kind(v4),
                v6: kind(v6),
            };
            let found = |kind: &Kind| matches!(kind, Kind::Addresses(_));
            if found(&answer.v4) || found(&answer.v6) {
                if let Some(error) = trouble {
                    tracing::debug!(%error, "not all that was asked of DNS was answered");
                }
                return Ok(answer);
            }
            // As glibc: a server that does not know one of the search domains (SERVFAIL) may know the next name; one
            // that does not answer will not answer then either.
            if trouble.as_ref().is_some_and(Error::is_silence) {
                break;
            }
        }
        match trouble {
            None => Ok(Answer {
                v4: Kind::None,
                v6: Kind::None,
            }),
            Some(error) => Err(error),
        }
    }

    fn made(&mut self) -> Result<&Made, Error> {
        let stamps = match self.servers {
            Servers::System => FILES.map(stamp),
            Servers::These { .. } => [None, None],
        };
        let made = match self.made.take() {
            Some(made) if made.stamps == stamps => made,
            Some(_) | None => Made::new(&self.servers, stamps)?,
        };
        Ok(self.made.insert(made))
    }
}

fn stamp(path: &str) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// In the order in which they are tried.
fn names(host: &str, search: &[Name], ndots: usize) -> Vec<Name> {
    let Ok(name) = Name::from_ascii(host) else {
        return Vec::new();
    };
    if name.is_fqdn() {
        return vec![name];
    }
    let mut whole = name.clone();
    whole.set_fqdn(true);
    let tried = search.iter().filter_map(|domain| {
        let mut name = name.clone().append_domain(domain).ok()?;
        name.set_fqdn(true);
        Some(name)
    });
    let mut names: Vec<_> = tried.collect();
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    let place = if dots >= ndots { 0 } else { names.len() };
    names.insert(place, whole);
    names
}

// === impl Made ===

impl Made {
    fn new(servers: &Servers, stamps: Stamps) -> Result<Self, Error> {
        let (config, mut options) = match servers {
            Servers::System => read_system_conf().unwrap_or_else(|error| {
                // As glibc: /etc/hosts may still know.
                tracing::debug!(%error, "/etc/resolv.conf names no server; this machine is asked");
                let here = server((Ipv4Addr::LOCALHOST, 53).into());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![here]);
                (config, ResolverOpts::default())
            }),
            Servers::These {
                addresses,
                search,
                ndots,
                timeout,
                attempts,
            } => {
                let search = search
                    .iter()
                    .map(Name::from_ascii)
                    .collect::<Result<_, _>>()
                    .map_err(|error| setup(error.into()))?;
                let servers = addresses.iter().map(|address| server(*address)).collect();
                let mut options = ResolverOpts::default();
                options.ndots = *ndots;
                options.timeout = *timeout;
                options.attempts = *attempts;
                options.use_hosts_file = ResolveHosts::Never;
                (ResolverConfig::from_parts(None, search, servers), options)
            }
        };
        options.cache_size = 0;
        let ndots = options.ndots;
        let mut search = config.search.clone();
        if search.is_empty() {
            search.extend(config.domain.clone());
        }
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Ok(Self {
            resolver: builder.build().map_err(setup)?,
            search,
            ndots,
            stamps,
        })
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Kind, Error> {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                let addresses = lookup
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr());
                // What blocks names answers so.
                let addresses: BTreeSet<IpAddr> = addresses
                    .filter(|address| !address.is_unspecified())
                    .collect();
                Ok(if addresses.is_empty() {
                    Kind::None
                } else {
                    Kind::Addresses(addresses)
                })
            }
            Err(error) if error.is_no_records_found() => Ok(Kind::None),
            Err(source) => Err(Error::Query {
                name: name.into(),
                source: source.into(),
            }),
        }
    }
}

fn setup(error: NetError) -> Error {
    Error::Setup(error.into())
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].into();
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

// === impl Error ===

impl Error {
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Setup(_) => Failure::Setup,
            Self::Query { source, .. } => match source.as_ref() {
                NetError::Timeout => Failure::Timeout,
                NetError::Io(_) | NetError::NoConnections | NetError::Busy => Failure::Unreachable,
                NetError::Dns(DnsError::ResponseCode(_)) => Failure::Server,
                _ => Failure::Answer,
            },
        }
    }

    fn is_silence(&self) -> bool {
        matches!(self.failure(), Failure::Timeout | Failure::Unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(host: &str, search: &[&str], ndots: usize) -> Vec<String> {
        let search: Vec<_> = search
            .iter()
            .map(|name| Name::from_ascii(name).unwrap())
            .collect();
        let names = names(host, &search, ndots);
        names.iter().map(|name| name.to_ascii()).collect()
    }

    #[test]
    fn search_domains_come_first_for_names_with_few_dots() {
        let search = ["ai.svc.cluster.local", "svc.cluster.local."];
        assert_eq!(
            tried("vllm", &search, 5),
            [
                "vllm.ai.svc.cluster.local.",
                "vllm.svc.cluster.local.",
                "vllm."
            ]
        );
        assert_eq!(
            tried("a.b.c", &search, 2),
            [
                "a.b.c.",
                "a.b.c.ai.svc.cluster.local.",
                "a.b.c.svc.cluster.local."
            ]
        );
        assert_eq!(tried("vllm.ai.", &search, 5), ["vllm.ai."]);
        assert_eq!(tried("my_vllm", &[], 1), ["my_vllm."]);
    }
}
