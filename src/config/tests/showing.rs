use super::{load, sources};
use crate::config::key::Draft;
use crate::config::keys::KEYS;
use crate::config::origin::Origin;
use crate::config::show::line;
use crate::config::value::{Mistake, Value};
use crate::config::{Config, show};

#[test]
fn the_effective_configuration_with_its_origins() {
    let environment = [(
        "TOKENGLASS_UPSTREAM__URL",
        "http://[::1]:8000,unix:/run/v.sock",
    )];
    let file = "[server]\nworkers = 2\ntls_cert = \"a\\\"b\"\ntls_key = \"k\"\n[upstream]\nhead_timeout = 0\n";
    let loaded = load(file, &environment, &[("--listen", "127.0.0.1:1")]).unwrap();
    let path = loaded.file().unwrap().to_str().unwrap();
    let want = r#"[server]
listen = "127.0.0.1:1"                        # from flag --listen
workers = 2                                   # from file PATH:2
max_connections = 16384                       # from default
backlog = 1024                                # from default
header_read_timeout = "1m 15s"                # from default
body_read_timeout = "1m"                      # from default
send_timeout = "2m"                           # from default
max_headers = 100                             # from default
max_header_bytes = "64KiB"                    # from default
max_body_bytes = 0                            # from default
tls_cert = "a\"b"                             # from file PATH:3
tls_key = "k"                                 # from file PATH:4

[upstream]
url = ["http://[::1]:8000", "unix:/run/v.sock"]  # from environment TOKENGLASS_UPSTREAM__URL
connect_timeout = "3s"                        # from default
head_timeout = 0                              # from file PATH:6
idle_timeout = "10m"                          # from default
ack_timeout = "30s"                           # from default
pool_idle_timeout = "3s 500ms"                # from default
pool_max_idle = 512                           # from default
ca_file = ""                                  # from default

[gateway]
discover = []                                 # from default
dns_interval = "5s"                           # from default
affinity = ""                                 # from default
max_head = "64KiB"                            # from default
max_in_flight = 0                             # from default
queue = 0                                     # from default
queue_timeout = "5s"                          # from default
retries = 2                                   # from default
eject_after = 5                               # from default
eject_for = "10s"                             # from default
eject_max = "5m"                              # from default

[admin]
listen = "0.0.0.0:9101"                       # from default
allow_remote = false                          # from default
remote_drain = false                          # from default

[observe]
enabled = true                                # from default
max_request_body = "4MiB"                     # from default
max_response_body = "1MiB"                    # from default
max_event = "1MiB"                            # from default
stall_after = "10s"                           # from default
max_models = 200                              # from default
expire_after = "1day"                         # from default

[tokens]
estimate = true                               # from default
max_text = "256KiB"                           # from default
usage = "observe"                             # from default
continuous = false                            # from default
queue = 1024                                  # from default
model = []                                    # from default

[tenants]
labels = []                                   # from default
map_file = ""                                 # from default
hash_key = ""                                 # from default
max_values = 200                              # from default

[health]
enabled = true                                # from default
interval = "5s"                               # from default
timeout = "2s"                                # from default
stalled_after = "30s"                         # from default
api_key = ""                                  # from default

[engine]
metrics = true                                # from default
interval = "5s"                               # from default
timeout = "2s"                                # from default
aliases = true                                # from default
include = []                                  # from default
exclude = []                                  # from default
max_bytes = "16MiB"                           # from default

[gpu]
mode = "auto"                                 # from default
library = ""                                  # from default
interval = "5s"                               # from default
devices = ["all"]                             # from default
naming = "dcgm"                               # from default
hostname_label = "Hostname"                   # from default
container = ""                                # from default
namespace = ""                                # from default
pod = ""                                      # from default
processes = false                             # from default

[shutdown]
ready_delay = "0s"                            # from default
drain_timeout = "5m"                          # from default

[log]
level = "info"                                # from default
format = "auto"                               # from default
"#;
    let shown = show(&loaded);
    assert_eq!(shown.replace(path, "PATH"), want);
    // What is printed loads again, and to the same.
    assert_eq!(load(&shown, &[], &[]).unwrap().config, loaded.config);
}

#[test]
fn where_upstreams_are_found_the_default_one_is_none() {
    let file = "[gateway]\ndiscover = [\"dns:http://vllm:8000\", \"kubernetes:ai/vllm:http\"]\naffinity = \"X-Session-ID\"\nmax_in_flight = 7\n";
    let loaded = load(file, &[], &[]).unwrap();
    assert_eq!(loaded.config.upstream.urls, []);
    assert!(loaded.config.is_gateway());
    let shown = show(&loaded);
    assert!(shown.contains("affinity = \"x-session-id\"") && shown.contains("max_in_flight = 7"));
    assert_eq!(load(&shown, &[], &[]).unwrap().config, loaded.config);
    // One that is said counts as well.
    let said = load(file, &[("TOKENGLASS_UPSTREAM__URL", "http://a")], &[]).unwrap();
    assert_eq!(said.config.upstream.urls.len(), 1);
    assert!(!load("", &[], &[]).unwrap().config.is_gateway());
}

#[test]
fn a_secret_is_neither_shown_nor_repeated() {
    let key = key_of("log", "level").secret();
    let draft = Draft::from(Config::default());
    assert_eq!(
        line(&key, &draft, &Origin::Default).split("  ").next(),
        Some("level = \"<hidden>\"")
    );
    let mistakes = Value::words(["hunter2"]).mistake("hunter2 is none");
    let hidden: Vec<_> = mistakes.into_iter().map(Mistake::hidden).collect();
    assert!(!format!("{hidden:?}").contains("hunter2"));
}

#[test]
fn a_password_in_an_upstream_is_not_repeated() {
    for url in [
        "http://me:hunter2@a",
        "http://me:hunter/2@a",
        "me:hunter2@a",
        "ftp://me:hunter2@a",
    ] {
        let errors = sources(&[("TOKENGLASS_UPSTREAM__URL", url)])
            .load()
            .unwrap_err();
        assert!(!errors.to_string().contains("hunter"), "{errors}");
    }
}

fn key_of(section: &str, name: &str) -> crate::config::key::Key {
    let key = KEYS
        .iter()
        .find(|key| key.section == section && key.name == name)
        .unwrap();
    crate::config::key::Key { ..*key }
}
