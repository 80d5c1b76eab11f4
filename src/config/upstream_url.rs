//! `http://host:port`, `https://host:port` and `unix:/path`, strictly.
//!
//! Not a general URL parser on purpose: a path, query or user would have to be merged into every request, and the
//! request is to go on as the client sent it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::UpstreamUrl;

/// `sun_path` holds 108 bytes with its NUL.
const LONGEST_SOCKET: usize = 107;

/// Why a text is no upstream. The text itself is repeated only where no password can be in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `scheme:`.
    #[error("expected http://host:port, https://host:port or unix:/path, found {0:?}{hint}", hint = hint(.0))]
    NoScheme(String),
    /// A scheme that we do not speak.
    #[error("unknown scheme {0:?}: expected http://host:port, https://host:port or unix:/path")]
    Scheme(String),
    /// `user:password@`.
    #[error("must not contain a user or password: send them as a header from the client")]
    UserInfo,
    /// Anything after the authority but one slash.
    #[error(
        "must not have a path, query or fragment ({0:?}): the client's own is forwarded as it is"
    )]
    Path(String),
    /// Nothing where the host should be.
    #[error("has no host")]
    NoHost,
    /// A host that is neither a name nor an address.
    #[error("{0:?} is no host name or IP address{hint}", hint = bracket_hint(.0))]
    Host(String),
    /// Not 1 to 65535.
    #[error("{0:?} is no port: expected 1 to 65535")]
    Port(String),
    /// Relative, or too long for the kernel.
    #[error("{0:?} is no socket path: expected an absolute path of at most 107 bytes")]
    Socket(String),
}

fn hint(text: &str) -> String {
    match authority(text, 80) {
        Ok(_) => format!(", did you mean \"http://{text}\"?"),
        Err(_) => String::new(),
    }
}

fn bracket_hint(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(_) => format!(": write [{host}]"),
        Err(_) => String::new(),
    }
}

// === impl UpstreamUrl ===

impl FromStr for UpstreamUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(UrlError::NoScheme(text.to_owned()));
        };
        if scheme.eq_ignore_ascii_case("unix") {
            return socket(rest);
        }
        let Some(rest) = rest.strip_prefix("//") else {
            // `user:password@host` and `localhost:8000` have a colon too.
            return if text.contains('@') {
                Err(UrlError::UserInfo)
            } else {
                Err(UrlError::NoScheme(text.to_owned()))
            };
        };
        let https = scheme.eq_ignore_ascii_case("https");
        if !https && !scheme.eq_ignore_ascii_case("http") {
            return Err(UrlError::Scheme(scheme.to_owned()));
        }
        let (host, port) = authority(rest, if https { 443 } else { 80 })?;
        Ok(if https {
            Self::Https { host, port }
        } else {
            Self::Http { host, port }
        })
    }
}

/// The port is always there, brackets where IPv6 needs them.
impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Http { host, port } => ("http", host, port),
            Self::Https { host, port } => ("https", host, port),
            Self::Unix { path } => return write!(f, "unix:{}", path.display()),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// `unix:///path` is what curl's and Docker's users write; the empty authority is dropped.
fn socket(rest: &str) -> Result<UpstreamUrl, UrlError> {
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        _ => rest,
    };
    if !Path::new(path).is_absolute() || path.len() > LONGEST_SOCKET || path.contains('\0') {
        return Err(UrlError::Socket(path.to_owned()));
    }
    Ok(UpstreamUrl::Unix {
        path: PathBuf::from(path),
    })
}

fn authority(rest: &str, default_port: u16) -> Result<(String, u16), UrlError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // A password may hold a slash, so the whole rest is searched before any of it is repeated.
    if rest.contains('@') {
        return Err(UrlError::UserInfo);
    }
    if !matches!(tail, "" | "/") {
        return Err(UrlError::Path(tail.to_owned()));
    }
    let (host, port) = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((v6, after)) => {
            let address: Ipv6Addr = v6.parse().map_err(|_| UrlError::Host(v6.to_owned()))?;
            let port = match after {
                "" => None,
                _ => Some(
                    after
                        .strip_prefix(':')
                        .ok_or_else(|| UrlError::Port(after.to_owned()))?,
                ),
            };
            (address.to_string(), port)
        }
        None if authority.parse::<Ipv6Addr>().is_ok() => {
            return Err(UrlError::Host(authority.to_owned()));
        }
        None => {
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            if host.is_empty() {
                return Err(UrlError::NoHost);
            }
            if !is_host(host) {
                return Err(UrlError::Host(host.to_owned()));
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port {
        None => default_port,
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| *port > 0 && text.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| UrlError::Port(text.to_owned()))?,
    };
    Ok((host, port))
}

/// RFC 1123 with underscores, which compose and Kubernetes users have, and one trailing dot.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let labels_are_fine = name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    // What ends in a number is an address (WHATWG URL): `10.0.0.256` must not become a DNS query.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    name.len() <= 253 && labels_are_fine && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}
