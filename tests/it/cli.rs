//! The binary as a shell sees it: exit status, stdout, stderr.

use std::fs;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn tokenglass(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenglass"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn version_and_help_are_no_failures() {
    let version = tokenglass(&["--version"]).output().unwrap();
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        stdout(&version),
        format!("tokenglass {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = tokenglass(&["--help"]).output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    for word in ["--listen", "--upstream", "demo", "validate", "completions"] {
        assert!(stdout(&help).contains(word), "{word}");
    }
}

#[test]
fn usage_is_2() {
    let output = tokenglass(&["--lisen", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--listen"), "{}", stderr(&output));
    assert_eq!(
        tokenglass(&["serve"]).output().unwrap().status.code(),
        Some(2)
    );
}

#[test]
fn a_wrong_configuration_is_78_with_a_line_for_each_mistake() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("x.toml");
    fs::write(&file, "\n\nupstraem = 1\n[server]\nworkers = \"four\"\n").unwrap();
    let file = file.to_str().unwrap();
    let want = format!(
        "tokenglass: {file}:3:1: unknown key \"upstraem\", did you mean \"upstream\"?\n\
         tokenglass: {file}:5:11: server.workers: expected a whole number from 0 to 1024, found string \"four\"\n"
    );
    for arguments in [
        ["validate", "--config", file],
        ["config", "--config", file],
        ["run", "--config", file],
        ["--listen=127.0.0.1:0", "--config", file],
    ] {
        let output = tokenglass(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{arguments:?}");
        assert_eq!(stderr(&output), want, "{arguments:?}");
        assert_eq!(stdout(&output), "");
    }
    let by_environment = tokenglass(&["validate"])
        .env("TOKENGLASS_CONFIG", file)
        .output()
        .unwrap();
    assert_eq!(stderr(&by_environment), want);
}

#[test]
fn validate_says_ok() {
    let output = tokenglass(&["validate"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stdout(&output),
        "ok: no file, defaults and environment only\n"
    );
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tokenglass.toml");
    let output = tokenglass(&["validate", "--config", file])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("ok: {file}\n"));
}

#[test]
fn validate_looks_for_the_files_that_are_named() {
    let output = tokenglass(&["validate"])
        .env("TOKENGLASS_UPSTREAM__CA_FILE", "/nonexistent/ca.pem")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        stderr(&output),
        "tokenglass: TOKENGLASS_UPSTREAM__CA_FILE: upstream.ca_file: \
         cannot read /nonexistent/ca.pem: no such file or directory\n"
    );
}

/// What would stop the start is said by `validate` as well, a line for each mistake, and never what is in the file.
#[test]
fn validate_refuses_files_that_are_there_and_cannot_be_used() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let file = |name: &str, content: &str| {
        fs::write(path(name), content).unwrap();
        path(name)
    };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = file("cert.pem", &made.cert.pem());
    let key = file("key.pem", &made.signing_key.serialize_pem());
    let no_pem = file("no.pem", "SECRET and no PEM\n");
    let labels = ("TENANTS__LABELS", "team=header:x-team".to_owned());
    let map = |path: String| vec![labels.clone(), ("TENANTS__MAP_FILE", path)];
    let tls = |cert: &str, key: &str| {
        vec![
            ("SERVER__TLS_CERT", cert.to_owned()),
            ("SERVER__TLS_KEY", key.to_owned()),
        ]
    };
    let ca = |path: &str| {
        vec![
            ("UPSTREAM__URL", "https://localhost:1".to_owned()),
            ("UPSTREAM__CA_FILE", path.to_owned()),
        ]
    };
    let cases = [
        (map(path("missing.toml")), "tenants.map_file"),
        (map(file("1.toml", "SECRET")), "tenants.map_file"),
        (map(file("2.toml", "SECRET = 1\n")), "tenants.map_file"),
        (
            map(file("3.toml", "[team]\nSECRET = \"\"\n")),
            "tenants.map_file",
        ),
        (tls(&no_pem, &key), "server.tls_cert"),
        (tls(&cert, &no_pem), "server.tls_"),
        (tls(&key, &key), "server.tls_cert"),
        (ca(&no_pem), "upstream.ca_file"),
        (ca(&key), "upstream.ca_file"),
    ];
    for (settings, names) in cases {
        let output = tokenglass(&["validate"])
            .envs(
                settings
                    .iter()
                    .map(|(key, value)| (format!("TOKENGLASS_{key}"), value)),
            )
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{settings:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{settings:?}: {said}");
        assert!(said.contains(names), "{settings:?}: {said}");
        assert!(!said.contains("SECRET"), "{said}");
        assert_eq!(stdout(&output), "");
    }
    for settings in [
        tls(&cert, &key),
        ca(&cert),
        map(file("4.toml", "[team]\na = \"b\"\n")),
    ] {
        let output = tokenglass(&["validate"])
            .envs(
                settings
                    .iter()
                    .map(|(key, value)| (format!("TOKENGLASS_{key}"), value)),
            )
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{settings:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn config_prints_where_each_value_came_from() {
    let output = tokenglass(&["config", "--listen", "127.0.0.1:1"])
        .env("TOKENGLASS_SERVER__WORKERS", "3")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = stdout(&output);
    let has = |setting: &str, origin: &str| {
        lines
            .lines()
            .any(|line| line.starts_with(setting) && line.ends_with(origin))
    };
    assert!(
        has("listen = \"127.0.0.1:1\" ", "# from flag --listen"),
        "{lines}"
    );
    assert!(
        has(
            "workers = 3 ",
            "# from environment TOKENGLASS_SERVER__WORKERS"
        ),
        "{lines}"
    );
    assert!(has("pool_max_idle = 512 ", "# from default"), "{lines}");
}

#[test]
fn completions_for_every_shell_and_for_a_reader_that_leaves() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = tokenglass(&["completions", shell]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("tokenglass"), "{shell}");
    }
    for arguments in [
        ["completions", "zsh"].as_slice(),
        &["config"],
        &["validate"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = tokenglass(arguments).stdout(writer).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn inject_prints_and_says() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pod.yaml");
    let pod = "# mine\nkind: Pod\napiVersion: v1\nmetadata: {name: vllm}\nspec:\n  containers:\n  - name: vllm\n    image: vllm/vllm-openai:v0.11.0\n    args: [--model, m]\n";
    fs::write(&file, pod).unwrap();
    let path = file.to_str().unwrap();
    let output = tokenglass(&["inject", "-f", path]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stdout(&output).starts_with("# mine\n"),
        "{}",
        stdout(&output)
    );
    assert!(stdout(&output).contains("name: tokenglass"));
    assert!(stderr(&output).starts_with("pod/vllm: injected before container vllm"));

    let check = tokenglass(&["inject", "-f", path, "--check"])
        .output()
        .unwrap();
    assert_eq!(
        (check.status.code(), stdout(&check).as_str()),
        (Some(0), "")
    );

    // Flags, then annotations.
    let flags = [
        "inject",
        "-f",
        path,
        "--native-sidecar",
        "false",
        "--image",
        "mine:1",
    ];
    let output = tokenglass(&flags).output().unwrap();
    assert!(stdout(&output).contains("image: \"mine:1\""));
    assert!(!stdout(&output).contains("initContainers"));

    // What is refused passes as it is; only --check makes it a failure.
    let refused = pod.replace("--model, m", "--uds, /x");
    fs::write(&file, &refused).unwrap();
    let output = tokenglass(&["inject", "-f", path]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), refused));
    assert!(stderr(&output).contains("refused: vLLM listens on a Unix socket"));
    let check = tokenglass(&["inject", "--check", "-f", path])
        .output()
        .unwrap();
    assert_eq!(
        (check.status.code(), stdout(&check).as_str()),
        (Some(1), "")
    );
    assert!(
        stderr(&check).ends_with("tokenglass: 1 of 1 refused\n"),
        "{}",
        stderr(&check)
    );

    fs::write(&file, "a: [\n").unwrap();
    let output = tokenglass(&["inject", "-f", path]).output().unwrap();
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(1), "")
    );
    assert!(
        stderr(&output).contains("pod.yaml: not YAML: line "),
        "{}",
        stderr(&output)
    );
    let output = tokenglass(&["inject", "-f", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let output = tokenglass(&["inject", "-f", path, "--gpu", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--gpu is `x`, not off, nvml or dcgm-exporter"));
}
