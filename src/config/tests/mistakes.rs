use super::{lines, load, mistakes, sources};

#[test]
fn an_unknown_key_is_named_with_its_place_and_what_was_meant() {
    for (text, want) in [
        (
            "\n\nupstraem = 3",
            "x.toml:3:1: unknown key \"upstraem\", did you mean \"upstream\"?",
        ),
        (
            "[server]\n  lisen = \"0.0.0.0:1\"",
            "x.toml:2:3: unknown key \"server.lisen\", did you mean \"server.listen\"?",
        ),
        (
            "[server]\nconnect_timeout = \"1s\"",
            "x.toml:2:1: unknown key \"server.connect_timeout\", did you mean \"upstream.connect_timeout\"?",
        ),
        (
            "listen = \"0.0.0.0:1\"",
            "x.toml:1:1: unknown key \"listen\", did you mean \"server.listen\" or \"admin.listen\"?",
        ),
        ("[zzz]\na = 1\nb = 2", "x.toml:1:2: unknown key \"zzz\""),
        (
            "[server]\r\nqqqq = 1",
            "x.toml:2:1: unknown key \"server.qqqq\"",
        ),
        ("\u{feff}zzz = 1", "x.toml:1:1: unknown key \"zzz\""),
    ] {
        assert_eq!(mistakes(text), [want], "{text:?}");
    }
}

#[test]
fn a_wrong_type_says_what_was_expected_and_what_was_found() {
    for (text, want) in [
        (
            "[server]\nworkers = \"four\"",
            "x.toml:2:11: server.workers: expected a whole number from 0 to 1024, found string \"four\"",
        ),
        (
            "server.workers = 1025",
            "x.toml:1:18: server.workers: expected a whole number from 0 to 1024, found integer 1025",
        ),
        (
            "server.workers = 1.5",
            "x.toml:1:18: server.workers: expected a whole number from 0 to 1024, found a number with a fraction",
        ),
        (
            "server = 3",
            "x.toml:1:10: server: expected a section [server], found integer 3",
        ),
        (
            "[server]\nlisten = \"localhost:80\"",
            "x.toml:2:10: server.listen: expected an IP address and port such as \"0.0.0.0:8080\", found string \"localhost:80\"",
        ),
        (
            "observe.enabled = \"true\"",
            "x.toml:1:19: observe.enabled: expected true or false, found string \"true\"",
        ),
        (
            "upstream.connect_timeout = 3",
            "x.toml:1:28: upstream.connect_timeout: expected a duration such as \"3s\" or \"10m\" (a number alone has no unit), found integer 3",
        ),
        (
            "upstream.pool_idle_timeout = \"0s\"",
            "x.toml:1:30: upstream.pool_idle_timeout: expected a duration above 0, found string \"0s\"",
        ),
        (
            "observe.max_event = \"1M\"",
            "x.toml:1:21: observe.max_event: expected a size such as \"64KiB\", \"4MiB\" or a number of bytes, found string \"1M\"",
        ),
        (
            "server.max_header_bytes = 100",
            "x.toml:1:27: server.max_header_bytes: expected a size from 8KiB to 16MiB, found integer 100",
        ),
        (
            "[upstream]\nurl = [\n  \"http://a\",\n  7,\n]",
            "x.toml:4:3: upstream.url: expected a URL such as \"http://127.0.0.1:8000\", found integer 7",
        ),
        (
            "log.level = \"inof\"",
            "x.toml:1:13: log.level: unknown level \"inof\", did you mean \"info\"?",
        ),
        (
            "log.format = \"jason\"",
            "x.toml:1:14: log.format: expected \"auto\", \"text\" or \"json\", found string \"jason\", did you mean \"json\"?",
        ),
    ] {
        assert_eq!(mistakes(text), [want], "{text:?}");
    }
}

#[test]
fn all_mistakes_of_all_layers_are_told_from_the_top() {
    let file = "[upstream]\nurl = \"ftp://a\"\n\n[server]\nworkrs = 1\nlisten = 5\n";
    let environment = [
        ("TOKENGLASS_SERVER__WORKRS", "1"),
        ("TOKENGLASS_LOG__FORMAT", "xml"),
    ];
    let flags = [("--admin", "nowhere")];
    let errors = load(file, &environment, &flags).unwrap_err();
    assert_eq!(
        lines(&errors),
        [
            "x.toml:2:7: upstream.url: unknown scheme \"ftp\": expected http://host:port, https://host:port or unix:/path",
            "x.toml:5:1: unknown key \"server.workrs\", did you mean \"server.workers\"?",
            "x.toml:6:10: server.listen: expected an IP address and port such as \"0.0.0.0:8080\", found integer 5",
            "TOKENGLASS_LOG__FORMAT: expected \"auto\", \"text\" or \"json\", found \"xml\"",
            "TOKENGLASS_SERVER__WORKRS: unknown variable, did you mean TOKENGLASS_SERVER__WORKERS?",
            "--admin: expected an IP address and port such as \"0.0.0.0:8080\", found \"nowhere\"",
        ]
    );
}

#[test]
fn a_hidden_mistake_is_a_mistake() {
    let errors = load("server.workers = -1", &[], &[("--workers", "2")]).unwrap_err();
    assert_eq!(errors.problems().len(), 1);
}

#[test]
fn broken_toml_is_told_with_its_place() {
    for (text, place) in [
        ("[server\nx = 1", "x.toml:1:"),
        ("a = 1\na = 2", "x.toml:2:1: "),
    ] {
        let found = mistakes(text);
        assert!(found[0].starts_with(place), "{found:?}");
    }
}

#[test]
fn variables() {
    for (variable, want) in [
        ("TOKENGLASS_LISTEN", "TOKENGLASS_LISTEN: unknown variable"),
        (
            "TOKENGLASS_SERVER_LISTEN",
            "TOKENGLASS_SERVER_LISTEN: unknown variable, did you mean TOKENGLASS_SERVER__LISTEN?",
        ),
        (
            "TOKENGLASS_CONFG",
            "TOKENGLASS_CONFG: unknown variable, did you mean TOKENGLASS_CONFIG?",
        ),
    ] {
        let errors = sources(&[(variable, "x")]).load().unwrap_err();
        assert_eq!(lines(&errors), [want]);
    }
    assert!(
        sources(&[("TOKENGLASS_PORT_8080_TCP_ADDR", "10.0.0.1")])
            .load()
            .is_ok()
    );
}

#[test]
fn what_only_shows_in_the_whole() {
    for (text, want) in [
        (
            "server.listen = \"127.0.0.1:9101\"",
            "x.toml:1:8: server.listen: server.listen (127.0.0.1:9101) and admin.listen (0.0.0.0:9101) overlap",
        ),
        (
            "server.listen = \"[::]:80\"\nadmin.listen = \"10.0.0.1:80\"",
            "x.toml:2:7: admin.listen: server.listen ([::]:80) and admin.listen (10.0.0.1:80) overlap",
        ),
        (
            "server.tls_cert = \"c.pem\"",
            "x.toml:1:8: server.tls_cert: needs server.tls_key too",
        ),
        (
            "server.tls_key = \"k.pem\"",
            "x.toml:1:8: server.tls_key: needs server.tls_cert too",
        ),
        (
            "upstream.url = \"http://localhost:8080\"",
            "x.toml:1:10: upstream.url: http://localhost:8080 is tokenglass itself (server.listen is 0.0.0.0:8080)",
        ),
        (
            "upstream.url = []",
            "x.toml:1:10: upstream.url: expected at least one URL, found none",
        ),
        (
            "gateway.discover = [\"dns:https://a\"]",
            "x.toml:1:21: gateway.discover: dns: only http:// can be discovered by its addresses",
        ),
        (
            "gateway.eject_max = \"1s\"",
            "x.toml:1:9: gateway.eject_max: gateway.eject_max must not be shorter than gateway.eject_for",
        ),
    ] {
        assert_eq!(mistakes(text), [want], "{text:?}");
    }
    for text in [
        "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"",
        "server.listen = \"127.0.0.1:80\"\nadmin.listen = \"127.0.0.2:80\"",
        "upstream.url = \"http://10.0.0.1:8080\"",
    ] {
        assert!(load(text, &[], &[]).is_ok(), "{text}");
    }
    // The key that could not be read is the one mistake; that it leaves the other alone is none.
    assert_eq!(
        mistakes("server.tls_cert = 1\nserver.tls_key = \"k\"").len(),
        1
    );
    let errors = load("", &[], &[("--admin", "0.0.0.0:8080")]).unwrap_err();
    assert!(
        lines(&errors)[0].starts_with("--admin: server.listen"),
        "{errors}"
    );
}
