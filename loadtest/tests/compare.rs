//! The command line of a comparison, with a contestant that is always there.

#![allow(
    clippy::unwrap_used,
    reason = "a test says what it expects by panicking"
)]

use std::process::Command;

fn loadtest() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
}

#[test]
fn a_relay_is_measured_and_loses_nothing() {
    let json = std::env::temp_dir().join(format!("loadtest-compare-{}.json", std::process::id()));
    let mut command = loadtest();
    command.args([
        "compare", "--quick", "--rounds", "1", "--peer", "relay", "--json",
    ]);
    command.arg(&json);
    command.args([
        "--scenario",
        "full",
        "paced",
        "json",
        "open-2000",
        "prompt-2m",
    ]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("### full: 16 streams"), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    assert_eq!(report["scenarios"].as_array().unwrap().len(), 5);
    for scenario in report["scenarios"].as_array().unwrap() {
        let rows = scenario["rows"].as_array().unwrap();
        let names: Vec<_> = rows
            .iter()
            .map(|row| row["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["direct", "TCP relay"]);
        for row in rows {
            assert_eq!(
                (&row["lost"], &row["altered"]),
                (&0.into(), &0.into()),
                "{scenario:#}"
            );
            assert_eq!(row["failed_rounds"], 0, "{scenario:#}");
        }
        let relay = &rows[1]["rounds"][0];
        assert!(relay["cpu_us"].as_f64().unwrap() > 0.0 || scenario["name"] == "open-2000");
        if scenario["name"] == "open-2000" {
            assert_eq!(relay["open"], 250);
            assert!(rows[1]["kib_per_stream"].as_f64().unwrap() > 0.1);
        } else {
            assert!(relay["requests"].as_u64().unwrap() > 0, "{scenario:#}");
        }
    }
}

#[test]
fn what_is_not_there_is_skipped_and_what_is_unknown_refused() {
    let mut command = loadtest();
    command.args([
        "compare",
        "--quick",
        "--rounds",
        "1",
        "--scenario",
        "single",
    ]);
    command.args(["--peer", "tokenglass", "--bin", "/nonexistent/tokenglass"]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("skipped, not installed: tokenglass"),
        "{errors}"
    );

    let output = loadtest()
        .args(["compare", "--scenario", "nonsense"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are full, eager"));
}

#[test]
fn run_prints_a_report_as_text_or_json() {
    let mut sim = loadtest();
    // Port 0 and the line that names it would need parsing of a debug form; a free port is as good here.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen = format!("127.0.0.1:{port}");
    sim.args([
        "sim",
        "--listen",
        &listen,
        "--faults",
        r#"[[0.2,{"kind":"http","status":503}]]"#,
    ]);
    let mut sim = sim.stdout(std::process::Stdio::null()).spawn().unwrap();
    while std::net::TcpStream::connect(&listen).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let run = |more: &[&str]| {
        let mut command = loadtest();
        command.args([
            "run",
            "--url",
            &format!("http://{listen}"),
            "--requests",
            "200",
        ]);
        let output = command.args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // No bar where there is no terminal.
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (text, json) = (run(&["--prompt-bytes", "5000"]), run(&["--json"]));
    sim.kill().unwrap();
    sim.wait().unwrap();
    assert!(
        text.contains("200 requests in") && text.contains("http_503"),
        "{text}"
    );
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["requests"], 200);
    assert_eq!(report["errors"], report["outcomes"]["http_503"]);
    assert!(report["outcomes"]["http_503"].as_u64().unwrap() > 5);
    assert!(report["ttft_ms"]["p99"].as_f64().unwrap() > 0.0);
}
