//! The admission webhook over TLS, asked as an API server asks.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenglass::config::{Sources, TlsFiles};
use tokenglass::kubernetes::injector::Settings;
use tokenglass::kubernetes::manifest;
use tokenglass::kubernetes::webhook::{Options, Server};

use crate::injector::folders;

/// A webhook in this process. It ends with it.
struct Webhook {
    address: SocketAddr,
    admin: SocketAddr,
    folder: TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Webhook {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
            tls: TlsFiles {
                cert: folder.path().join("tls.crt"),
                key: folder.path().join("tls.key"),
            },
            settings: Settings::default(),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (sender, addresses) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let server = Server::bind(options).await.unwrap();
                sender
                    .send((server.address().unwrap(), server.admin_address().unwrap()))
                    .unwrap();
                tokio::select! {
                    () = server.serve() => {}
                    _ = stopped => {}
                }
            });
        });
        let (address, admin) = addresses.recv_timeout(Duration::from_secs(10)).unwrap();
        Self {
            address,
            admin,
            folder,
            stop: Some(stop),
        }
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        let pem = self.folder.path().join("tls.crt");
        roots
            .add(CertificateDer::from_pem_file(pem).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        StreamOwned::new(connection, stream)
    }

    fn send(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        // It may answer and close before all of a body is there.
        let _cut = stream.write_all(body);
        answer(&mut stream)
    }

    fn post(&self, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST /mutate?timeout=5s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.send(&head, body)
    }

    fn review(&self, review: &Value) -> Value {
        let (status, body) = self.post(review.to_string().as_bytes());
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        assert_eq!(answer["response"]["allowed"], true);
        answer["response"].clone()
    }

    fn metric(&self, result: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let (status, body) = answer(&mut stream);
        assert_eq!(status, 200);
        let wanted = format!("tokenglass_injections_total{{result=\"{result}\"}} ");
        body.lines()
            .find_map(|line| line.strip_prefix(&wanted))
            .map_or(0.0, |value| value.parse().unwrap())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
    }
}

fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
}

fn answer(stream: &mut impl Read) -> (u16, String) {
    let mut text = Vec::new();
    // A peer that closes TCP without TLS' own goodbye has still said what it said.
    let _end = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

/// As kube-apiserver 1.34 sends it, of which most is not ours to look at.
fn review(pod: &Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:authenticated"]},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}
        }
    })
}

fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = base64::engine::general_purpose::STANDARD
        .decode(response["patch"].as_str().unwrap())
        .unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn vllm() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "vllm-5d4f8-", "labels": {"tokenglass.dev/inject": "true"}},
        "spec": {
            "enableServiceLinks": true, "terminationGracePeriodSeconds": 30, "restartPolicy": "Always",
            "containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "m"]}]
        }
    })
}

/// Every golden pod that is one: what the API server would make of the answer is what `inject` writes.
#[test]
fn the_patch_is_what_inject_writes() {
    let webhook = Webhook::start();
    let (mut injected, mut by_patch_only) = (0, 0.0);
    for folder in folders() {
        let text = fs::read_to_string(folder.join("in.yaml")).unwrap();
        // The file as JSON, by our own reader: it is the edits that are compared.
        let Some(before) = manifest::values(&text)
            .unwrap()
            .into_iter()
            .flatten()
            .next()
        else {
            continue;
        };
        if before["kind"] != "Pod" || before["metadata"]["uid"].is_string() {
            continue;
        }
        let response = webhook.review(&review(&before));
        let done = manifest::rewrite(&text, &Settings::default()).unwrap();
        let after = manifest::values(&done.text)
            .unwrap()
            .into_iter()
            .flatten()
            .next()
            .unwrap();
        if done.refused() > 0 {
            let by_text = done
                .reports
                .iter()
                .any(|report| report.to_string().contains("YAML"));
            // An anchor that is used twice is a matter of the file's text: the API server never sees it.
            assert_eq!(
                by_text,
                response.get("patch").is_some(),
                "{}: {response}",
                folder.display()
            );
            by_patch_only += f64::from(u8::from(by_text));
            continue;
        }
        if before == after {
            assert!(response.get("patch").is_none(), "{}", folder.display());
            continue;
        }
        assert_eq!(patched(&before, &response), after, "{}", folder.display());
        injected += 1;
        // The API server asks again where another webhook has changed the pod (reinvocationPolicy: IfNeeded).
        let again = webhook.review(&review(&after));
        assert_eq!(again.get("patch"), None);
        assert_eq!(again.get("warnings"), None);
    }
    assert!(injected >= 20, "{injected}");
    assert_eq!(
        webhook.metric("injected"),
        f64::from(injected) + by_patch_only
    );
    assert_eq!(webhook.metric("already"), f64::from(injected));
}

#[test]
fn who_asked_is_told_why_not() {
    let webhook = Webhook::start();
    let mut pod = vllm();
    pod["spec"]["containers"][0]["args"] = json!(["--model", "m", "--ssl-certfile", "c"]);
    let response = webhook.review(&review(&pod));
    assert_eq!(response.get("patch"), None);
    assert!(
        response["warnings"][0].as_str().unwrap().contains("TLS"),
        "{response}"
    );
    assert_eq!(webhook.metric("tls"), 1.0);

    // By the namespace's label come pods of all sorts, which hear nothing.
    let mut pod = vllm();
    pod["metadata"]["labels"] = json!({});
    pod["spec"]["containers"][0]["image"] = json!("nginx:1.29");
    let response = webhook.review(&review(&pod));
    assert_eq!(response, json!({"uid": response["uid"], "allowed": true}));
    assert_eq!(webhook.metric("no_server"), 1.0);

    let mut pod = vllm();
    pod["metadata"]["labels"] = json!({"tokenglass.dev/inject": "false"});
    let response = webhook.review(&review(&pod));
    assert_eq!(response, json!({"uid": response["uid"], "allowed": true}));
    assert_eq!(webhook.metric("opted_out"), 1.0);
}

#[test]
fn only_new_pods_are_touched() {
    let webhook = Webhook::start();
    let changes: [(&str, Value); 6] = [
        ("/request/operation", json!("UPDATE")),
        ("/request/operation", json!("DELETE")),
        ("/request/resource/resource", json!("deployments")),
        ("/request/resource/group", json!("example.com")),
        ("/request/subResource", json!("ephemeralcontainers")),
        ("/request/object", json!(null)),
    ];
    for (place, value) in changes {
        let mut asked = review(&vllm());
        asked["request"]["subResource"] = json!("");
        *asked.pointer_mut(place).unwrap() = value;
        let response = webhook.review(&asked);
        assert_eq!(response.get("patch"), None, "{place}");
    }
    // A dry run is a run: nothing here has an effect of its own.
    let mut asked = review(&vllm());
    asked["request"]["dryRun"] = json!(true);
    assert!(webhook.review(&asked).get("patch").is_some());
    // The same again is the same again.
    assert_eq!(webhook.review(&asked), webhook.review(&asked));
}

/// Objects that the API server would not have let through, but for which nobody is to be kept from creating a pod.
#[test]
fn odd_pods_are_allowed_as_they_are() {
    let webhook = Webhook::start();
    for pod in [
        json!({}),
        json!([]),
        json!("pod"),
        json!({"spec": null}),
        json!({"spec": {"containers": null}}),
        json!({"spec": {"containers": []}}),
        json!({"spec": {"containers": [null, 1, "x", {}]}}),
        json!({"spec": {"containers": [{"name": 1, "image": 2, "args": "x"}]}}),
        json!({"spec": {"containers": [{"image": "vllm/vllm-openai", "args": [1]}]}}),
        json!({"metadata": {"annotations": {"tokenglass.dev/gpu": 7}}, "spec": {"containers": [{"image": "vllm/vllm-openai"}]}}),
    ] {
        let response = webhook.review(&review(&pod));
        assert_eq!(response.get("patch"), None, "{pod}");
    }
}

#[test]
fn what_is_no_review_is_400() {
    let webhook = Webhook::start();
    let mut v1beta1 = review(&vllm());
    v1beta1["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut no_uid = review(&vllm());
    no_uid["request"]["uid"] = json!("");
    for body in [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"AdmissionReview\"".to_owned(),
        "{}".to_owned(),
        vllm().to_string(),
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string(),
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": []})
            .to_string(),
        v1beta1.to_string(),
        no_uid.to_string(),
        "[".repeat(100_000),
        r#"{"a":"#.repeat(100_000),
    ] {
        let (status, said) = webhook.post(body.as_bytes());
        assert_eq!(status, 400, "{said}");
    }
    assert_eq!(webhook.metric("malformed"), 13.0);
    // And it is as well as before.
    assert!(webhook.review(&review(&vllm())).get("patch").is_some());
}

#[test]
fn other_paths_and_methods() {
    let webhook = Webhook::start();
    let get = |line: &str| {
        webhook
            .send(
                &format!(
                    "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                ),
                b"",
            )
            .0
    };
    assert_eq!(get("GET /healthz"), 200);
    assert_eq!(get("GET /readyz"), 200);
    assert_eq!(get("GET /mutate"), 405);
    assert_eq!(get("POST /"), 404);
    // Metrics are on the other port, which has nothing else.
    assert_eq!(get("GET /metrics"), 404);
    let mut stream = TcpStream::connect(webhook.admin).unwrap();
    stream
        .write_all(
            b"POST /mutate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        )
        .unwrap();
    assert_eq!(answer(&mut stream).0, 404);
}

#[test]
fn huge_bodies_are_413() {
    let webhook = Webhook::start();
    // Said beforehand, it is not waited for.
    let head = "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n";
    assert_eq!(webhook.send(head, b"{").0, 413);
    // Not said, it is cut off.
    let mut stream = webhook.connect();
    stream.write_all(b"POST /mutate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..80 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let (status, _) = answer(&mut stream);
    assert!(status == 413 || status == 0, "{status}");
    assert_eq!(webhook.metric("malformed"), 2.0);
    // A pod as large as they get is read.
    let mut pod = vllm();
    pod["metadata"]["annotations"] = json!({"large": "x".repeat(3 << 20)});
    assert!(webhook.review(&review(&pod)).get("patch").is_some());
}

#[test]
fn slow_ones_hold_nobody_up() {
    let webhook = Webhook::start();
    let body = review(&vllm()).to_string();
    let head = format!(
        "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut slow: Vec<_> = (0..50).map(|_| webhook.connect()).collect();
    for stream in &mut slow {
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body.as_bytes()[..100]).unwrap();
    }
    // And some that never say a word, by TLS or at all.
    let silent: Vec<_> = (0..50)
        .map(|_| TcpStream::connect(webhook.address).unwrap())
        .collect();
    let began = Instant::now();
    assert!(webhook.review(&review(&vllm())).get("patch").is_some());
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // They are told after a while.
    let (status, _) = answer(&mut slow[0]);
    assert_eq!(status, 408);
    drop(silent);
}

#[test]
fn a_new_certificate_is_taken_up() {
    let webhook = Webhook::start();
    assert_eq!(webhook.review(&review(&vllm()))["allowed"], true);
    // Half of a pair is not used, and the old one stays: this client trusts only the old one.
    let old = fs::read(webhook.folder.path().join("tls.crt")).unwrap();
    let key = fs::read(webhook.folder.path().join("tls.key")).unwrap();
    fs::write(webhook.folder.path().join("tls.key"), "no key").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(webhook.review(&review(&vllm()))["allowed"], true);
    // Now the whole: a client that trusts the new one alone gets through within seconds.
    certificate(webhook.folder.path());
    assert_ne!(
        fs::read(webhook.folder.path().join("tls.crt")).unwrap(),
        old
    );
    assert_ne!(
        fs::read(webhook.folder.path().join("tls.key")).unwrap(),
        key
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut stream = webhook.connect();
        let head = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        if stream.write_all(head.as_bytes()).is_ok() && answer(&mut stream).0 == 200 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the new certificate is never used"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The command itself: it says where it is, and ends when told to, after its last pods.
#[test]
fn the_command_serves_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let mut process = Command::new(env!("CARGO_BIN_EXE_tokenglass"))
        .args([
            "webhook",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--tls-cert",
        ])
        .arg(folder.path().join("tls.crt"))
        .arg("--tls-key")
        .arg(folder.path().join("tls.key"))
        .env_clear()
        .env("TOKENGLASS_LOG__FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let text = line.to_string();
    assert!(text.contains("listening"), "{text}");
    let admin = [&line["admin"], &line["fields"]["admin"]];
    let admin: SocketAddr = admin
        .iter()
        .find_map(|value| value.as_str())
        .unwrap()
        .parse()
        .unwrap();
    let ready = || {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        answer(&mut stream).0
    };
    assert_eq!(ready(), 200);
    let kill = || {
        Command::new("kill")
            .arg(process.id().to_string())
            .status()
            .unwrap()
    };
    assert!(kill().success());
    let deadline = Instant::now() + Duration::from_secs(3);
    while ready() != 503 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    // The second ends it at once.
    assert!(kill().success());
    let began = Instant::now();
    assert!(process.wait().unwrap().success());
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

/// The variables that sidecars get are a configuration that the proxy takes, and say what the stamp says.
#[test]
fn sidecars_start_with_what_they_are_given() {
    let mut seen = 0;
    for folder in folders() {
        let text = fs::read_to_string(folder.join("in.yaml")).unwrap();
        let done = manifest::rewrite(&text, &Settings::default()).unwrap();
        let documents = manifest::values(&done.text).unwrap();
        for document in documents
            .iter()
            .flatten()
            .filter(|document| document["kind"] == "Pod")
        {
            let containers = [
                &document["spec"]["initContainers"],
                &document["spec"]["containers"],
            ];
            let mut containers = containers.into_iter().filter_map(Value::as_array).flatten();
            let Some(sidecar) = containers.find(|container| container["name"] == "tokenglass")
            else {
                continue;
            };
            let Some(status) =
                document["metadata"]["annotations"]["tokenglass.dev/status"].as_str()
            else {
                continue;
            };
            let status: Value = serde_json::from_str(status).unwrap();
            let variables = sidecar["env"].as_array().unwrap().iter();
            let variables = variables.map(|entry| {
                let value = entry["value"].as_str().unwrap_or("from-elsewhere");
                (
                    OsString::from(entry["name"].as_str().unwrap()),
                    OsString::from(value),
                )
            });
            let variables = variables.filter(|(name, _)| name != "TOKENGLASS_CONFIG");
            let loaded = Sources::new(variables.collect::<Vec<_>>()).load();
            let config = loaded
                .unwrap_or_else(|errors| panic!("{}: {errors}", folder.display()))
                .config;
            assert_eq!(status["ports"]["listen"], config.server.listen.port());
            assert_eq!(status["ports"]["admin"], config.admin.listen.port());
            let upstream = format!("{:?}", config.upstream.urls);
            assert!(
                upstream.contains(&status["ports"]["upstream"].to_string()),
                "{upstream}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen}");
}
