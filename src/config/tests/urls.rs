use crate::config::{UpstreamUrl, UrlError};

fn http(host: &str, port: u16) -> UpstreamUrl {
    UpstreamUrl::Http {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn upstreams() {
    for (text, want, shown) in [
        (
            "http://127.0.0.1:8000",
            http("127.0.0.1", 8000),
            "http://127.0.0.1:8000",
        ),
        ("http://vllm", http("vllm", 80), "http://vllm:80"),
        (
            "HTTP://vLLM-0.vllm.ai_ns.svc.:8000/",
            http("vllm-0.vllm.ai_ns.svc.", 8000),
            "http://vllm-0.vllm.ai_ns.svc.:8000",
        ),
        ("http://[::1]:8000", http("::1", 8000), "http://[::1]:8000"),
        (
            "http://[2001:DB8::1]",
            http("2001:db8::1", 80),
            "http://[2001:db8::1]:80",
        ),
        (
            "https://gpu.example",
            UpstreamUrl::Https {
                host: "gpu.example".into(),
                port: 443,
            },
            "https://gpu.example:443",
        ),
        (
            "unix:/run/vllm.sock",
            UpstreamUrl::Unix {
                path: "/run/vllm.sock".into(),
            },
            "unix:/run/vllm.sock",
        ),
        (
            "unix:///run/vllm.sock",
            UpstreamUrl::Unix {
                path: "/run/vllm.sock".into(),
            },
            "unix:/run/vllm.sock",
        ),
    ] {
        let url: UpstreamUrl = text.parse().unwrap();
        assert_eq!(url, want, "{text}");
        assert_eq!(url.to_string(), shown);
        assert_eq!(shown.parse(), Ok(url));
    }
}

#[test]
fn not_upstreams() {
    use UrlError as E;
    let long = format!("unix:/{}", "x".repeat(107));
    for (text, want) in [
        ("", E::NoScheme("".into())),
        ("vllm", E::NoScheme("vllm".into())),
        ("localhost:8000", E::NoScheme("localhost:8000".into())),
        ("http:/a", E::NoScheme("http:/a".into())),
        ("ftp://a", E::Scheme("ftp".into())),
        ("h2c://a", E::Scheme("h2c".into())),
        ("http://user:pw@a", E::UserInfo),
        ("http://user@a", E::UserInfo),
        ("http://a/v1", E::Path("/v1".into())),
        ("http://a?x=1", E::Path("?x=1".into())),
        ("http://a/#f", E::Path("/#f".into())),
        ("http://", E::NoHost),
        ("http://:80", E::NoHost),
        ("http://a b", E::Host("a b".into())),
        ("http://a,b", E::Host("a,b".into())),
        ("http://-a", E::Host("-a".into())),
        ("http://a..b", E::Host("a..b".into())),
        ("http://10.0.0.256", E::Host("10.0.0.256".into())),
        ("http://::1", E::Host("::1".into())),
        ("http://[::1", E::Host("[:".into())),
        ("http://[fe80::1%eth0]", E::Host("fe80::1%eth0".into())),
        ("http://[a]", E::Host("a".into())),
        ("http://[::1]8000", E::Port("8000".into())),
        ("http://a:", E::Port("".into())),
        ("http://a:0", E::Port("0".into())),
        ("http://a:+80", E::Port("+80".into())),
        ("http://a:65536", E::Port("65536".into())),
        ("unix:run/vllm.sock", E::Socket("run/vllm.sock".into())),
        ("unix:", E::Socket("".into())),
        (long.as_str(), E::Socket(long["unix:".len()..].into())),
    ] {
        assert_eq!(text.parse::<UpstreamUrl>(), Err(want), "{text}");
    }
    for (text, hint) in [
        ("localhost:8000", "did you mean \"http://localhost:8000\"?"),
        ("10.0.0.1:8000", "did you mean \"http://10.0.0.1:8000\"?"),
        ("http://2001:db8::1", "write [2001:db8::1]"),
        ("http://a/v1", "the client's own is forwarded"),
    ] {
        let error = text.parse::<UpstreamUrl>().unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    }
}
