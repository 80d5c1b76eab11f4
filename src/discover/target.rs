//! `dns:http://host:port` and `kubernetes:NAMESPACE/SERVICE:PORT`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::config::{UpstreamUrl, UrlError};

/// Where upstreams are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `dns:http://host:port` or `dns:https://host:port`: every address that the name has is an upstream.
    Dns {
        /// What is spoken to those addresses.
        scheme: Scheme,
        /// A host name, which is no address. With a dot at its end no search domain is tried.
        host: String,
        /// 80 or 443 unless said.
        port: u16,
    },
    /// `kubernetes:NAMESPACE/SERVICE:PORT`: every ready endpoint in the Service's EndpointSlices is one.
    Kubernetes {
        /// The Service's namespace.
        namespace: String,
        /// Its name.
        service: String,
        /// Which of its ports.
        port: ServicePort,
    },
}

/// What is spoken to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS. Certificates are for the name, see [`Target::tls_name`].
    Https,
}

/// A port as EndpointSlices have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServicePort {
    /// The number that the pods listen on (`targetPort`): EndpointSlices do not know the Service's own.
    Number(u16),
    /// Its name in the Service.
    Name(String),
}

/// Why a text says no such place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither of the two.
    #[error("expected dns:http://host:port or kubernetes:NAMESPACE/SERVICE:PORT, found {0:?}")]
    Kind(String),
    /// No URL behind `dns:`.
    #[error("dns: {0}")]
    Url(#[from] UrlError),
    /// A socket has no addresses.
    #[error("dns: a Unix socket has no name to resolve: it belongs into upstream.url")]
    Socket,
    /// There is nothing to resolve.
    #[error("dns: {0} is an address: it belongs into upstream.url")]
    Address(String),
    /// Not `NAMESPACE/SERVICE:PORT`.
    #[error("expected kubernetes:NAMESPACE/SERVICE:PORT, found {text:?}: {reason}")]
    Kubernetes {
        /// What was found.
        text: String,
        /// What is wrong with it.
        reason: KubernetesError,
    },
    /// Built without the feature.
    #[error("this tokenglass was built without Kubernetes (cargo feature \"kubernetes\")")]
    NotBuilt,
}

/// What is wrong behind `kubernetes:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubernetesError {
    /// No slash.
    #[error("the namespace is missing")]
    NoNamespace,
    /// No colon.
    #[error("the port is missing")]
    NoPort,
    /// No object in Kubernetes is called so.
    #[error("a namespace is 1 to 63 of a-z, 0-9 and -")]
    Namespace,
    /// Nor so.
    #[error("a Service's name is 1 to 63 of a-z, 0-9 and -")]
    Service,
    /// Neither number nor name.
    #[error("a port is 1 to 65535, or a name of at most 15 of a-z, 0-9 and - with a letter in it")]
    Port,
}

// === impl Target ===

impl Target {
    /// The name that certificates of what is found are for; `None` where TLS is not spoken. What is found has an
    /// address where its host should be, and hardly a certificate is for an address.
    #[must_use]
    pub fn tls_name(&self) -> Option<&str> {
        match self {
            Self::Dns {
                scheme: Scheme::Https,
                host,
                ..
            } => Some(host.strip_suffix('.').unwrap_or(host)),
            Self::Dns { .. } | Self::Kubernetes { .. } => None,
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.split_once(':') {
            Some(("dns", url)) => dns(url),
            Some(("kubernetes", _)) if cfg!(not(feature = "kubernetes")) => {
                Err(TargetError::NotBuilt)
            }
            Some(("kubernetes", rest)) => {
                kubernetes(rest).map_err(|reason| TargetError::Kubernetes {
                    text: text.to_owned(),
                    reason,
                })
            }
            // A password may be in what was meant as a URL.
            _ if text.contains('@') => Err(TargetError::Url(UrlError::UserInfo)),
            _ => Err(TargetError::Kind(text.to_owned())),
        }
    }
}

fn dns(url: &str) -> Result<Target, TargetError> {
    let (scheme, host, port) = match url.parse()? {
        UpstreamUrl::Http { host, port } => (Scheme::Http, host, port),
        UpstreamUrl::Https { host, port } => (Scheme::Https, host, port),
        UpstreamUrl::Unix { .. } => return Err(TargetError::Socket),
    };
    if host.parse::<IpAddr>().is_ok() {
        return Err(TargetError::Address(host));
    }
    Ok(Target::Dns { scheme, host, port })
}

fn kubernetes(rest: &str) -> Result<Target, KubernetesError> {
    let (namespace, rest) = rest.split_once('/').ok_or(KubernetesError::NoNamespace)?;
    let (service, port) = rest.split_once(':').ok_or(KubernetesError::NoPort)?;
    let name = |text: &str, error| {
        if is_label(text) {
            Ok(text.to_owned())
        } else {
            Err(error)
        }
    };
    Ok(Target::Kubernetes {
        namespace: name(namespace, KubernetesError::Namespace)?,
        service: name(service, KubernetesError::Service)?,
        port: port.parse()?,
    })
}

/// RFC 1123, as Kubernetes names its objects.
fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { scheme, host, port } => {
                write!(f, "dns:{}", scheme.url(host.clone(), *port))
            }
            Self::Kubernetes {
                namespace,
                service,
                port,
            } => write!(f, "kubernetes:{namespace}/{service}:{port}"),
        }
    }
}

// === impl Scheme ===

impl Scheme {
    pub(super) fn url(self, host: String, port: u16) -> UpstreamUrl {
        match self {
            Self::Http => UpstreamUrl::Http { host, port },
            Self::Https => UpstreamUrl::Https { host, port },
        }
    }
}

// === impl ServicePort ===

impl FromStr for ServicePort {
    type Err = KubernetesError;

    /// A name has a letter in it (RFC 6335), so that no number is one.
    fn from_str(text: &str) -> Result<Self, KubernetesError> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|port| *port > 0);
            return number.map(Self::Number).ok_or(KubernetesError::Port);
        }
        let letter = text.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_label(text) && letter && text.len() <= 15 {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(KubernetesError::Port)
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
            (
                "dns:http://vllm.ai.svc.:8000",
                "dns:http://vllm.ai.svc.:8000",
            ),
            ("dns:http://vLLM:8000/", "dns:http://vllm:8000"),
            ("dns:https://vllm", "dns:https://vllm:443"),
            #[cfg(feature = "kubernetes")]
            ("kubernetes:ai/vllm:8000", "kubernetes:ai/vllm:8000"),
            #[cfg(feature = "kubernetes")]
            ("kubernetes:ai/vllm:http", "kubernetes:ai/vllm:http"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse(), Ok(target));
        }
    }

    #[test]
    fn what_is_none_says_why() {
        for (text, part) in [
            ("", "expected dns:"),
            ("http://a:80", "expected dns:"),
            ("DNS:http://a:80", "expected dns:"),
            ("dns:a:80", "did you mean \"http://a:80\""),
            ("dns:ftp://a:80", "unknown scheme"),
            ("dns:unix:/run/vllm", "belongs into upstream.url"),
            ("dns:http://10.0.0.1:80", "belongs into upstream.url"),
            ("dns:http://[::1]:80", "belongs into upstream.url"),
            ("dns:http://a/v1", "must not have a path"),
            ("dns:http://a:0", "is no port"),
            ("dns:http://me:hunter2@a", "must not contain"),
            ("http://me:hunter2@a", "must not contain"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    #[cfg(feature = "kubernetes")]
    fn what_is_no_service_says_why() {
        for (text, part) in [
            ("kubernetes:", "namespace is missing"),
            ("kubernetes:vllm:80", "namespace is missing"),
            ("kubernetes:ai/vllm", "port is missing"),
            ("kubernetes:/vllm:80", "a namespace is"),
            ("kubernetes:ai/VLLM:80", "Service's name is"),
            ("kubernetes:ai/:80", "Service's name is"),
            ("kubernetes:ai/a/b:80", "Service's name is"),
            ("kubernetes:ai/vllm:", "a port is"),
            ("kubernetes:ai/vllm:0", "a port is"),
            ("kubernetes:ai/vllm:65536", "a port is"),
            ("kubernetes:ai/vllm:-http", "a port is"),
            ("kubernetes:ai/vllm:Http", "a port is"),
            ("kubernetes:ai/vllm:1-2", "a port is"),
            ("kubernetes:ai/vllm:sixteen-letters-", "a port is"),
            ("kubernetes:ai/vllm:sixteen-letters1", "a port is"),
            ("kubernetes:ai/vllm:80:81", "a port is"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("NAMESPACE/SERVICE:PORT"), "{text}: {error}");
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    #[cfg(not(feature = "kubernetes"))]
    fn what_is_not_built_in_is_refused() {
        let error = "kubernetes:ai/vllm:80".parse::<Target>().unwrap_err();
        assert_eq!(error, TargetError::NotBuilt);
    }

    #[test]
    fn certificates_are_for_the_name() {
        let name = |text: &str| {
            let target: Target = text.parse().unwrap();
            target.tls_name().map(str::to_owned)
        };
        assert_eq!(name("dns:https://vllm.ai."), Some("vllm.ai".to_owned()));
        assert_eq!(name("dns:http://vllm.ai"), None);
    }
}
