//! `dns:http://host:port` and `kubernetes:NAMESPACE/SERVICE:PORT`.

use std::fmt;
use std::str::FromStr;

use super::{UpstreamUrl, UrlError};

/// Where upstreams are found at run time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Discover {
    /// `dns:http://host:port`: every address that the name has is an upstream.
    Dns {
        /// A host name, which is no address.
        host: String,
        /// 80 unless said.
        port: u16,
    },
    /// `kubernetes:NAMESPACE/SERVICE:PORT`: every endpoint in the Service's EndpointSlices is one.
    Kubernetes {
        /// The Service's namespace.
        namespace: String,
        /// Its name.
        service: String,
        /// Which of its ports.
        port: ServicePort,
    },
}

/// A port as EndpointSlices have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServicePort {
    /// The number that the pods listen on (`targetPort`).
    Number(u16),
    /// Its name in the Service.
    Name(String),
}

/// Why a text says no such place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// Neither of the two.
    #[error("expected dns:http://host:port or kubernetes:NAMESPACE/SERVICE:PORT, found {0:?}")]
    Kind(String),
    /// No URL behind `dns:`.
    #[error("dns: {0}")]
    Url(#[from] UrlError),
    /// A certificate is for a name, while what is found are addresses.
    #[error("dns: only http:// can be discovered by its addresses")]
    NotHttp,
    /// There is nothing to resolve.
    #[error("dns: {0} is an address: it belongs into upstream.url")]
    Address(String),
    /// Not `NAMESPACE/SERVICE:PORT`.
    #[error("expected kubernetes:NAMESPACE/SERVICE:PORT, found {0:?}")]
    Kubernetes(String),
}

impl FromStr for Discover {
    type Err = DiscoverError;

    fn from_str(text: &str) -> Result<Self, DiscoverError> {
        match text.split_once(':') {
            Some(("dns", url)) => match url.parse()? {
                UpstreamUrl::Http { host, .. } if is_address(&host) => {
                    Err(DiscoverError::Address(host))
                }
                UpstreamUrl::Http { host, port } => Ok(Self::Dns { host, port }),
                UpstreamUrl::Https { .. } | UpstreamUrl::Unix { .. } => Err(DiscoverError::NotHttp),
            },
            Some(("kubernetes", rest)) => {
                kubernetes(rest).ok_or_else(|| DiscoverError::Kubernetes(text.to_owned()))
            }
            // A password may be in what was meant as a URL.
            _ if text.contains('@') => Err(DiscoverError::Url(UrlError::UserInfo)),
            _ => Err(DiscoverError::Kind(text.to_owned())),
        }
    }
}

fn is_address(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok()
}

fn kubernetes(rest: &str) -> Option<Discover> {
    let (namespace, rest) = rest.split_once('/')?;
    let (service, port) = rest.split_once(':')?;
    let port = if port.bytes().all(|byte| byte.is_ascii_digit()) {
        ServicePort::Number(port.parse().ok().filter(|port| *port > 0)?)
    } else {
        ServicePort::Name(Some(port).filter(|port| is_label(port))?.to_owned())
    };
    (is_label(namespace) && is_label(service)).then(|| Discover::Kubernetes {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        port,
    })
}

/// RFC 1123, as Kubernetes names its objects and ports.
fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl fmt::Display for Discover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { host, port } => write!(f, "dns:http://{host}:{port}"),
            Self::Kubernetes {
                namespace,
                service,
                port,
            } => write!(f, "kubernetes:{namespace}/{service}:{port}"),
        }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_the_same() {
        for (text, shown) in [
            ("dns:http://vllm.ai.svc", "dns:http://vllm.ai.svc:80"),
            ("dns:http://vLLM:8000/", "dns:http://vllm:8000"),
            ("kubernetes:ai/vllm:8000", "kubernetes:ai/vllm:8000"),
            ("kubernetes:ai/vllm:http", "kubernetes:ai/vllm:http"),
        ] {
            let source: Discover = text.parse().unwrap();
            assert_eq!(source.to_string(), shown);
            assert_eq!(shown.parse(), Ok(source));
        }
    }

    #[test]
    fn what_is_none_says_why() {
        for (text, part) in [
            ("", "expected dns:"),
            ("http://a:80", "expected dns:"),
            ("dns:a:80", "did you mean"),
            ("dns:https://a", "only http://"),
            ("dns:http://10.0.0.1:80", "belongs into upstream.url"),
            ("dns:http://[::1]:80", "belongs into upstream.url"),
            ("dns:http://me:hunter2@a", "must not contain"),
            ("http://me:hunter2@a", "must not contain"),
            ("kubernetes:vllm:80", "NAMESPACE/SERVICE:PORT"),
            ("kubernetes:ai/vllm", "NAMESPACE/SERVICE:PORT"),
            ("kubernetes:ai/vllm:0", "NAMESPACE/SERVICE:PORT"),
            ("kubernetes:ai/vllm:65536", "NAMESPACE/SERVICE:PORT"),
            ("kubernetes:ai/VLLM:80", "NAMESPACE/SERVICE:PORT"),
            ("kubernetes:/vllm:80", "NAMESPACE/SERVICE:PORT"),
            ("kubernetes:ai/vllm:", "NAMESPACE/SERVICE:PORT"),
        ] {
            let error = text.parse::<Discover>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }
}
