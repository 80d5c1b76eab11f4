use std::time::Duration;

use super::{lines, load, sources};
use crate::config::{Config, Origin, UpstreamUrl};

#[test]
fn each_layer_wins_over_the_one_below() {
    let file = "[server]\nworkers = 2\nbacklog = 20\nmax_headers = 30\n[log]\nlevel = \"warn\"\n";
    let environment = [
        ("TOKENGLASS_SERVER__WORKERS", "3"),
        ("TOKENGLASS_SERVER__BACKLOG", "21"),
    ];
    let loaded = load(file, &environment, &[("--workers", "4")]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.server.workers, 4);
    assert_eq!(config.server.backlog, 21);
    assert_eq!(config.server.max_headers, 30);
    assert_eq!(
        config.server.max_connections,
        Config::default().server.max_connections
    );
    assert_eq!(config.log.level, "warn");

    let origin = |key: &str| loaded.origins.of(key).clone();
    assert_eq!(origin("server.workers"), Origin::Flag { flag: "--workers" });
    let variable = "TOKENGLASS_SERVER__BACKLOG".to_owned();
    assert_eq!(origin("server.backlog"), Origin::Environment { variable });
    assert!(matches!(
        origin("server.max_headers"),
        Origin::File {
            line: 4,
            column: 1,
            ..
        }
    ));
    assert_eq!(origin("server.max_connections"), Origin::Default);
}

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(sources(&[]).load().unwrap().config, Config::default());
    assert_eq!(load("", &[], &[]).unwrap().config, Config::default());
    assert_eq!(
        load("# nothing\n\n[server]\n", &[], &[]).unwrap().config,
        Config::default()
    );
    // Not ours, or as good as unset.
    let environment = [
        ("PATH", "/bin"),
        ("TOKENGLASS_SERVER__LISTEN", ""),
        ("TOKENGLASSES", "2"),
    ];
    assert_eq!(
        sources(&environment).load().unwrap().config,
        Config::default()
    );
}

#[test]
fn workers_zero_is_one_a_core() {
    let loaded = load("server.workers = 0", &[], &[]).unwrap();
    assert_eq!(
        loaded.config.server.workers,
        Config::default().server.workers
    );
    assert!(loaded.config.server.workers >= 1);
}

#[test]
fn a_list_in_the_environment_is_comma_separated_and_replaces_the_files() {
    let environment = [(
        "TOKENGLASS_UPSTREAM__URL",
        "http://b:1, unix:/run/vllm.sock",
    )];
    let loaded = load("upstream.url = [\"http://a:1\"]", &environment, &[]).unwrap();
    assert_eq!(
        loaded.config.upstream.urls,
        [
            UpstreamUrl::Http {
                host: "b".into(),
                port: 1
            },
            UpstreamUrl::Unix {
                path: "/run/vllm.sock".into()
            },
        ]
    );
    let errors = sources(&[("TOKENGLASS_UPSTREAM__URL", "http://b:1,,ftp://c")]).load();
    assert_eq!(lines(&errors.unwrap_err()).len(), 2);
}

#[test]
fn forms_of_values() {
    let file = "[upstream]\nurl = \"https://gpu.example\"\nhead_timeout = 0\nidle_timeout = \"0s\"\n\
                connect_timeout = \"1.5s\"\n[shutdown]\nready_delay = 0\n[server]\n\
                max_header_bytes = \"8KiB\"\nmax_body_bytes = 0x400\n[observe]\nmax_event = 2048\n";
    let config = load(file, &[], &[]).unwrap().config;
    assert_eq!(config.upstream.urls.len(), 1);
    assert_eq!(config.upstream.head_timeout, None);
    assert_eq!(config.upstream.idle_timeout, None);
    assert_eq!(config.upstream.connect_timeout, Duration::from_millis(1500));
    assert_eq!(config.shutdown.ready_delay, Duration::ZERO);
    assert_eq!(config.server.max_header_bytes, 8192);
    assert_eq!(config.server.max_body_bytes, 1024);
    assert_eq!(config.observe.max_event, 2048);

    let environment = [
        ("TOKENGLASS_UPSTREAM__HEAD_TIMEOUT", "0"),
        ("TOKENGLASS_OBSERVE__ENABLED", "false"),
        ("TOKENGLASS_OBSERVE__MAX_EVENT", "2KiB"),
        ("TOKENGLASS_SERVER__TLS_CERT", "/c.pem"),
        ("TOKENGLASS_SERVER__TLS_KEY", "/k.pem"),
    ];
    let config = sources(&environment).load().unwrap().config;
    assert_eq!(config.upstream.head_timeout, None);
    assert!(!config.observe.enabled);
    assert_eq!(config.observe.max_event, 2048);
    assert_eq!(config.server.tls.unwrap().key.to_str(), Some("/k.pem"));
}

#[test]
fn the_file_is_named_by_flag_or_environment() {
    let by_environment = sources(&[("TOKENGLASS_CONFIG", "/e.toml")]);
    assert_eq!(by_environment.file().unwrap().to_str(), Some("/e.toml"));
    let by_flag = by_environment.with_file(Some("/f.toml".into()));
    assert_eq!(by_flag.file().unwrap().to_str(), Some("/f.toml"));
    assert_eq!(sources(&[]).file(), None);
}

#[test]
fn reload_reads_the_file_again() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("x.toml");
    std::fs::write(&path, "server.backlog = 7").unwrap();
    let environment = [("TOKENGLASS_SERVER__WORKERS", "3")];
    let loaded = sources(&environment)
        .with_file(Some(path.clone()))
        .load()
        .unwrap();
    std::fs::write(&path, "server.backlog = 8").unwrap();
    let again = loaded.reload().unwrap();
    assert_eq!(
        (again.config.server.backlog, again.config.server.workers),
        (8, 3)
    );
    std::fs::write(&path, "server.backlog = -8").unwrap();
    assert!(loaded.reload().is_err());
}
