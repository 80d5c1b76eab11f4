//! Scripts against a real shell, and what the injector makes of command lines.

use std::process::Command;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::environment::Environment;
use super::flags;
use super::launch::{Found, look};
use super::shell;
use super::{Outcome, Path, Pod, Refusal, Settings, apply, inject};

/// Words of a line as this reader has them; none where it does not know.
fn ours(line: &str, environment: &Environment<'_>) -> Option<Vec<String>> {
    let script = shell::read(0, line).ok()?;
    let [command] = script.commands.as_slice() else {
        return None;
    };
    command
        .iter()
        .filter(|word| {
            !word
                .text(environment)
                .is_some_and(|text| word.vanishes(&text))
        })
        .map(|word| word.text(environment))
        .collect()
}

/// Words of a line as `sh` has them; none if it is no line.
fn theirs(line: &str) -> Option<Vec<String>> {
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("printf '%s\\0' {line}"))
        .env_clear()
        .env("X", "v")
        .env("EMPTY", "")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.split_terminator('\0').map(str::to_owned).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Where it says what a word is, `sh` says the same.
    #[test]
    fn words_are_those_of_a_real_shell(parts in prop::collection::vec(prop::sample::select(vec![
        "a", "B-c", " ", "  ", "\t", "\r", "'", "\"", "\\", "\\\n", "\\\"", "'q r'", "\"q r\"", "$X", "${X}", "\"$X\"", "${Y:-d}", "$EMPTY", "\"\"", "=", "#", " #c", "--port", "8000", "é", "$",
    ]), 1..12)) {
        let container = json!({"env": [{"name": "X", "value": "v"}, {"name": "EMPTY", "value": ""}]});
        let environment = Environment::of(&container);
        let line = format!("w {}", parts.concat());
        if let Some(words) = ours(&line, &environment) {
            let shell = theirs(&line);
            prop_assert!(shell.is_some(), "{line:?} is no line for sh, but {words:?}");
            prop_assert_eq!(Some(words), shell, "{:?}", line);
        }
    }

    /// Nothing makes it panic or run away.
    #[test]
    fn any_text_is_read_or_refused(text in "[a$(){}'\"`\\\\;&|<> \n#]{0,60}") {
        let _either = shell::read(0, &text);
    }

    /// What was injected, read again, listens where it was sent, and everything else is as it was.
    #[test]
    fn the_result_listens_on_the_new_port(
        before in prop::collection::vec(prop::sample::select(FLAGS.to_vec()), 0..4),
        port in prop::option::of(((1024_u16..60000).prop_filter("ours", |port| *port != 9101), 0..3_u8)),
        after in prop::collection::vec(prop::sample::select(FLAGS.to_vec()), 0..4),
        form in 0..4_u8,
    ) {
        let mut arguments: Vec<String> = vec!["m".to_owned()];
        arguments.extend(before.iter().flat_map(|flag| flag.split(' ')).map(str::to_owned));
        match port {
            Some((port, 0)) => arguments.extend(["--port".to_owned(), port.to_string()]),
            Some((port, 1)) => arguments.push(format!("--port={port}")),
            Some((port, _)) => arguments.extend(["--host=0.0.0.0".to_owned(), "--port".to_owned(), port.to_string()]),
            None => {}
        }
        arguments.extend(after.iter().flat_map(|flag| flag.split(' ')).map(str::to_owned));
        let quoted: Vec<_> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let quoted = quoted.join(" ");
        let container = match form {
            0 => json!({"name": "vllm", "image": "vllm/vllm-openai", "args": arguments}),
            1 => json!({"name": "vllm", "image": "x", "command": ["vllm", "serve"], "args": arguments}),
            2 => json!({"name": "vllm", "image": "x", "command": ["sh", "-c", format!("set -e; exec vllm serve {quoted} 2>&1 | tee log")]}),
            _ => json!({"name": "vllm", "image": "x", "command": ["bash", "-c"], "args": [format!("A=1 python3 -m vllm.entrypoints.openai.api_server \\\n  {quoted}\n")]}),
        };
        let pod = json!({"spec": {"containers": [container]}});
        let Outcome::Inject(injection) = inject(&Pod::within(&pod, Path::default()).unwrap(), &Settings::default()) else {
            return Err(TestCaseError::fail("refused"));
        };
        let was = port.map_or(8000, |(port, _)| port);
        prop_assert_eq!(injection.listen, was);
        prop_assert!(injection.upstream > was);
        let new = apply(&injection.edits, &pod).unwrap();
        prop_assert_eq!(reading(&new["spec"]["containers"][0]), Ok(injection.upstream));
        // And twice is once.
        let again = inject(&Pod::within(&new, Path::default()).unwrap(), &Settings::default());
        prop_assert_eq!(again, Outcome::Already { same: true });
    }
}

/// A real shell runs the script before and after: vllm is called with the same arguments but for the port.
#[test]
fn a_real_shell_gives_vllm_the_new_port() {
    let folder = tempfile::tempdir().unwrap();
    let vllm = folder.path().join("vllm");
    std::fs::write(&vllm, "#!/bin/sh\nfor a; do printf '%s\\0' \"$a\"; done\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&vllm, executable).unwrap();
    let called = |words: &[String]| -> Vec<String> {
        let (program, rest) = words.split_first().unwrap();
        let program = format!("/bin/{program}");
        let output = Command::new(program)
            .args(rest)
            .env_clear()
            .env("PATH", folder.path())
            .env("PORT", "9000")
            .env("MODEL", "a b")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    };
    for (port, script) in [
        ("8000", "vllm serve m"),
        ("8000", "exec vllm serve \"$MODEL\" --dtype auto # --port 1"),
        (
            "8000",
            "A=1 B='2 3' vllm serve m --trust-remote-code 2>&1\n",
        ),
        ("8000", "if true; then vllm serve 'x y'; fi"),
        (
            "8000",
            "vllm serve m \\\n  --max-model-len 8000 \\\n  --served-model-name \"8000\"",
        ),
        (
            "8000",
            "vllm serve m --served-model-name a\\ b > /dev/stdout",
        ),
        ("9000", "vllm serve m --port $PORT --seed 9000"),
        ("9000", "vllm serve m --port=\"${PORT:-1}\" --seed 9000"),
        (
            "7000",
            "set -e; vllm serve m '--port' '7000' --x 7000 && true",
        ),
        ("7000", "(vllm serve m --po\"rt\"=7000 --x 'port 7000')"),
        ("7000", "for i in 1; do vllm serve m --port 70\\\n00; done"),
        ("7000", "exec vllm serve m \"$@\""),
    ] {
        let mut words = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        if script.contains("$@") {
            words.extend(["--".to_owned(), "--port".to_owned(), "7000".to_owned()]);
        }
        let pod = json!({"spec": {"containers": [{
            "name": "vllm", "image": "vllm/vllm-openai", "command": words,
            "env": [{"name": "PORT", "value": "9000"}, {"name": "MODEL", "value": "a b"}],
        }]}});
        let outcome = inject(
            &Pod::within(&pod, Path::default()).unwrap(),
            &Settings::default(),
        );
        let Outcome::Inject(injection) = outcome else {
            panic!("{script}: {outcome:?}")
        };
        assert_eq!(injection.listen.to_string(), port, "{script}");
        let new = apply(&injection.edits, &pod).unwrap();
        let new: Vec<String> =
            serde_json::from_value(new["spec"]["containers"][0]["command"].clone()).unwrap();
        let upstream = injection.upstream.to_string();

        let mut expected = called(&words);
        assert!(!expected.is_empty(), "{script}");
        let flag = expected
            .iter()
            .position(|word| word == "--port" || word.starts_with("--port="));
        match flag {
            Some(at) if expected[at] == "--port" => expected[at + 1] = upstream,
            Some(at) => expected[at] = format!("--port={upstream}"),
            None => expected.extend(["--port".to_owned(), upstream]),
        }
        assert_eq!(called(&new), expected, "{script}\n{new:?}");
    }
}

const FLAGS: &[&str] = &[
    "--trust-remote-code",
    "--max-model-len 4096",
    "--served-model-name a b c",
    "--enable-lora --lora-modules x=/y z=/w",
    "--tensor-parallel-size=2",
    "-tp 2",
    "-O3",
    "--gpu_memory_utilization 0.9",
    "--no-enable-prefix-caching",
    "--speculative-config {\"method\":\"ngram\"}",
    "--seed -1",
];

/// The port that a container's vLLM listens on.
fn reading(container: &Value) -> Result<u16, Option<Refusal>> {
    match look(container) {
        Found::Server(launch) => flags::listening(&launch)
            .map(|listening| listening.port)
            .map_err(Some),
        Found::Unsure(refusal) => Err(Some(refusal)),
        Found::Worker | Found::Other => Err(None),
    }
}

fn args(arguments: &[&str]) -> Result<u16, Option<Refusal>> {
    reading(
        &json!({"image": "vllm/vllm-openai", "args": arguments, "env": [
            {"name": "PORT", "value": "9000"},
            {"name": "INDIRECT", "value": "$(PORT)"},
            {"name": "LATER", "value": "$(AFTER)"},
            {"name": "AFTER", "value": "9001"},
            {"name": "FLAGS", "value": "--uds x"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]}),
    )
}

fn script(text: &str) -> Result<u16, Option<Refusal>> {
    reading(
        &json!({"image": "vllm/vllm-openai", "command": ["bash", "-c", text], "env": [
            {"name": "PORT", "value": "9000"},
            {"name": "FLAGS", "value": "--uds x"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]}),
    )
}

#[test]
fn ports_of_arguments() {
    assert_eq!(args(&[]), Ok(8000));
    assert_eq!(args(&["--model", "m"]), Ok(8000));
    assert_eq!(args(&["--port", "1"]), Ok(1));
    assert_eq!(args(&["--port=65535"]), Ok(65535));
    assert_eq!(args(&["--port", "$(PORT)"]), Ok(9000));
    assert_eq!(args(&["--port=$(INDIRECT)"]), Ok(9000));
    // The kubelet leaves what is escaped, and what is set only later.
    for port in [
        "$$(PORT)",
        "$(LATER)",
        "$PORT",
        "0",
        "65536",
        "-1",
        "http",
        "",
        "8000 ",
        "0x10",
        "$(SECRET)",
        "$(NONE)",
    ] {
        assert!(
            matches!(args(&["--port", port]), Err(Some(Refusal::Port(_)))),
            "{port}: {:?}",
            args(&["--port", port])
        );
    }
    assert!(matches!(args(&["--port"]), Err(Some(Refusal::Port(_)))));
    assert!(matches!(
        args(&["--port", "--model", "m"]),
        Ok(8000) | Err(_)
    ));
    // A value is a value, whatever it looks like.
    assert_eq!(
        args(&["--model", "$(SECRET)", "--served-model-name", "port"]),
        Ok(8000)
    );
    assert_eq!(args(&["m", "--api-key", "$(SECRET)"]), Ok(8000));
    assert!(matches!(
        args(&["m", "--enable-lora", "$(SECRET)"]),
        Err(Some(Refusal::Arguments(_)))
    ));
    assert!(matches!(
        args(&["m", "--ssl_keyfile", "x"]),
        Err(Some(Refusal::Tls))
    ));
    assert!(matches!(
        args(&["m", "--", "--port", "9"]),
        Err(Some(Refusal::Arguments(_)))
    ));
}

#[test]
fn ports_of_scripts() {
    for (text, port) in [
        ("vllm serve m", 8000),
        ("exec vllm serve m --port 1", 1),
        ("cd /x && vllm serve m --port=2 &", 2),
        ("vllm serve m --port \"3\"", 3),
        ("vllm serve m '--port=4'", 4),
        ("vllm serve m --port $PORT", 9000),
        ("vllm serve m --port ${PORT}", 9000),
        ("vllm serve m --port ${PORT:-1}", 9000),
        ("vllm serve m --port ${P:-5}", 5),
        ("vllm serve m \\\n  --port \\\n  6 # --port 7", 6),
        ("# vllm serve x --port 1\nvllm serve m --port 7", 7),
        ("echo 'vllm serve m --port 1'; vllm serve m --port 8", 8),
        ("(vllm serve m --port 9)", 9),
        ("if true; then vllm serve m --port 10; fi", 10),
        ("{ vllm serve m --port 11; }", 11),
        ("env A=1 B=2 nohup vllm serve m --port 12 >log 2>&1", 12),
        (
            "/opt/venv/bin/python3.12 -u -m vllm.entrypoints.openai.api_server --port 13",
            13,
        ),
        ("vllm serve $(cat /model) --port 14", 14),
        ("vllm serve \"$SECRET\" --port 15", 15),
        ("vllm serve m --port 16 | tee log", 16),
        ("uv run vllm serve m --port 17", 17),
        ("vllm serve m $UNSET --port 18", 18),
        (
            "test -d /m || exit 1\nvllm serve m --port 19 > >(tee log)",
            19,
        ),
    ] {
        assert_eq!(script(text), Ok(port), "{text}");
    }
}

#[test]
fn scripts_beyond_it_are_refused() {
    for text in [
        "eval vllm serve m",
        "bash -c 'vllm serve m'",
        "run() { vllm \"$@\"; }; run serve m",
        "CMD='vllm serve m'; $CMD",
        "vllm serve m --port $(cat port)",
        "vllm serve m --port `cat port`",
        "vllm serve m --port $((8000 + 1))",
        "vllm serve m --port $SECRET",
        "PORT=1; vllm serve m --port $PORT",
        "export PORT=1\nvllm serve m --port $PORT",
        "read PORT < f; vllm serve m --port $PORT",
        "for PORT in 1 2; do vllm serve m --port $PORT; done",
        "vllm serve m --port ${PORT%x}",
        "vllm serve m --trust-remote-code $(cat flags)",
        "vllm serve m --enforce-eager $SECRET",
        "vllm serve m $FLAGS",
        "vllm serve m --$FLAGS",
        "vllm serve m \"${ARGS[@]}\"",
        "vllm serve m --port 1 --port 2",
        "vllm serve a --port 1 & vllm serve b --port 2",
        "vllm serve m --port 'x",
        "vllm serve m --port $'1'",
        "cat <<EOF\nEOF\nvllm serve m",
        "vllm serve m \\",
        "vllm serve m --host $SECRET",
        "ssh host vllm serve m",
        "vllm serve m --uds /x",
    ] {
        assert!(
            matches!(script(text), Err(Some(_))),
            "{text}: {:?}",
            script(text)
        );
    }
    let deep = format!("vllm serve m {}x{}", "$(".repeat(5000), ")".repeat(5000));
    assert!(script(&deep).is_err());
}

#[test]
fn other_programs_are_none_of_ours() {
    for container in [
        json!({"image": "nginx", "args": ["--port", "8000"]}),
        json!({"image": "vllm/vllm-openai", "command": ["sleep", "infinity"]}),
        json!({"image": "x", "command": ["vllm", "bench", "serve"]}),
        json!({"image": "vllm/vllm-openai", "command": ["vllm", "bench", "serve", "--port", "8000"]}),
        json!({"image": "vllm/vllm-openai", "args": ["vllm", "run-batch"]}),
        json!({"image": "x", "command": ["sh", "-c", "curl vllm:8000"]}),
        json!({}),
    ] {
        assert_eq!(reading(&container), Err(None), "{container}");
    }
}
