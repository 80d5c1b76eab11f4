//! A stand-in for a Kubernetes API server: EndpointSlices of one namespace, listed in pages and watched, with resource
//! versions, bookmarks, a history that can be compacted, and what can go wrong.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/ai/endpointslices";
const SELECTOR: &str = "kubernetes.io%2Fservice-name%3Dvllm";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    List,
    Watch,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Refused with this status.
    Status(u16),
    /// No answer, and the connection stays.
    Hang,
    /// No answer, and the connection is closed.
    Cut,
    /// Half an answer, and the connection is closed; a watch without an event.
    Half,
    /// Half an answer, and the connection stays.
    Stuck,
    /// An answer in order, yet it takes so long.
    Slow(Duration),
    /// No JSON.
    Nonsense,
    /// In the stream of a watch: an error event.
    Event(u16),
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub verb: Verb,
    pub version: Option<u64>,
}

pub struct Api {
    shared: Arc<Shared>,
    folder: tempfile::TempDir,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    tls: Option<Arc<rustls::ServerConfig>>,
}

struct State {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// The version after each event, bookmarks among them.
    history: Vec<(u64, Value)>,
    /// No watch may begin before.
    oldest: u64,
    page: usize,
    next: HashMap<Verb, VecDeque<Fault>>,
    always: HashMap<Verb, Fault>,
    token: Option<String>,
    cuts: u64,
    asked: Vec<Asked>,
}

trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

/// A ready endpoint at each address, with the ports that a vLLM's Service has.
pub fn slice(family: &str, addresses: &[&str]) -> Value {
    let endpoint = |address| json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}});
    let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
    json!({"addressType": family, "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}], "endpoints": endpoints})
}

impl Api {
    pub fn start() -> Self {
        Self::with(None)
    }

    /// Over TLS, by a certificate that only this server's kubeconfig trusts.
    pub fn start_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let api = Self::with(Some(Arc::new(config)));
        std::fs::write(api.folder.path().join("ca.crt"), made.cert.pem()).unwrap();
        api
    }

    fn with(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                version: 100,
                slices: BTreeMap::new(),
                history: Vec::new(),
                oldest: 0,
                page: usize::MAX,
                next: HashMap::new(),
                always: HashMap::new(),
                token: None,
                cuts: 0,
                asked: Vec::new(),
            }),
            changed: Condvar::new(),
            tls,
        });
        let api = Self {
            shared: Arc::clone(&shared),
            folder: tempfile::tempdir().unwrap(),
        };
        api.write_kubeconfig(addr);
        api.write_token("first");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, stream) = (Arc::clone(&shared), stream.unwrap());
                std::thread::spawn(move || shared.connection(stream));
            }
        });
        api
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    fn write_kubeconfig(&self, addr: SocketAddr) {
        let cluster = match self.shared.tls {
            None => json!({"server": format!("http://{addr}")}),
            Some(_) => {
                json!({"server": format!("https://localhost:{}", addr.port()), "certificate-authority": "ca.crt"})
            }
        };
        // YAML is JSON too.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"tokenFile": self.folder.path().join("token")}}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).unwrap();
    }

    pub fn write_token(&self, token: &str) {
        std::fs::write(self.folder.path().join("token"), token).unwrap();
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
        result
    }

    pub fn put(&self, name: &str, mut slice: Value) {
        self.change(|state| {
            state.version += 1;
            slice["metadata"] = json!({
                "name": name, "namespace": "ai", "resourceVersion": state.version.to_string(),
                "labels": {"kubernetes.io/service-name": "vllm"},
            });
            slice["apiVersion"] = json!("discovery.k8s.io/v1");
            slice["kind"] = json!("EndpointSlice");
            let kind = match state.slices.insert(name.to_owned(), slice.clone()) {
                None => "ADDED",
                Some(_) => "MODIFIED",
            };
            state.event(kind, &slice);
        });
    }

    pub fn remove(&self, name: &str) {
        self.change(|state| {
            state.version += 1;
            let mut slice = state.slices.remove(name).unwrap();
            slice["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.event("DELETED", &slice);
        });
    }

    /// Something else in the cluster changes.
    pub fn elsewhere(&self) {
        self.change(|state| state.version += 1);
    }

    pub fn bookmark(&self) {
        self.change(|state| {
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "",
                "endpoints": null, "ports": null, "metadata": {"resourceVersion": state.version.to_string()},
            });
            state.event("BOOKMARK", &object);
        });
    }

    /// All history is gone: what is watched goes on, but no watch can begin before now.
    pub fn compact(&self) {
        self.change(|state| state.oldest = state.version);
    }

    /// In pages of so many.
    pub fn page(&self, page: usize) {
        self.change(|state| state.page = page);
    }

    pub fn once(&self, verb: Verb, fault: Fault) {
        self.change(|state| state.next.entry(verb).or_default().push_back(fault));
    }

    pub fn always(&self, verb: Verb, fault: Option<Fault>) {
        self.change(|state| match fault {
            Some(fault) => drop(state.always.insert(verb, fault)),
            None => drop(state.always.remove(&verb)),
        });
    }

    /// Only this token is taken any more.
    pub fn demand(&self, token: &str) {
        self.change(|state| state.token = Some(token.to_owned()));
        self.cut();
    }

    /// The connections of all watches break.
    pub fn cut(&self) {
        self.change(|state| state.cuts += 1);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state.lock().unwrap().asked.clone()
    }

    pub fn count(&self, verb: Verb) -> usize {
        self.asked()
            .iter()
            .filter(|asked| asked.verb == verb)
            .count()
    }
}

impl State {
    fn event(&mut self, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        self.history.push((self.version, event));
    }

    fn fault(&mut self, verb: Verb) -> Option<Fault> {
        let once = self.next.get_mut(&verb).and_then(VecDeque::pop_front);
        once.or_else(|| self.always.get(&verb).copied())
    }
}

fn status(code: u16) -> Value {
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized"),
        403 => (
            "Forbidden",
            "endpointslices.discovery.k8s.io is forbidden: User \"it\" cannot list resource",
        ),
        410 => ("Expired", "too old resource version: 1 (100)"),
        _ => ("InternalError", "etcdserver: request timed out"),
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
}

fn answer(stream: &mut dyn Write, code: u16, body: &str, sent: usize) -> io::Result<()> {
    let body = body.as_bytes();
    write!(
        stream,
        "HTTP/1.1 {code} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body[..sent.min(body.len())])?;
    stream.flush()
}

fn chunk(stream: &mut dyn Write, line: &str) -> io::Result<()> {
    write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
    stream.flush()
}

impl Shared {
    fn connection(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut stream: Box<dyn Connection> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                Box::new(rustls::StreamOwned::new(session, stream))
            }
        };
        // A client that leaves is an error here.
        while let Ok(true) = self.request(&mut *stream) {}
    }

    /// Whether another may follow on this connection.
    fn request(&self, stream: &mut dyn Connection) -> io::Result<bool> {
        let mut head = String::new();
        let mut reader = BufReader::with_capacity(1, &mut *stream);
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(false);
            }
        }
        let target = head.split(' ').nth(1).unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: HashMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        assert_eq!(path, PATH, "{head}");
        assert_eq!(query["labelSelector"], SELECTOR, "{head}");
        let verb = match query.get("watch") {
            Some(_) => Verb::Watch,
            None => Verb::List,
        };
        let version = query
            .get("resourceVersion")
            .map(|text| text.parse().unwrap());
        let (fault, wrong) = {
            let mut state = self.state.lock().unwrap();
            let bearer =
                |token: &String| format!("authorization: bearer {token}\r\n").to_lowercase();
            let wrong = state
                .token
                .as_ref()
                .is_some_and(|token| !head.to_lowercase().contains(&bearer(token)));
            state.asked.push(Asked { verb, version });
            (state.fault(verb), wrong)
        };
        self.changed.notify_all();
        if wrong {
            answer(stream, 401, &status(401).to_string(), usize::MAX)?;
            return Ok(true);
        }
        match fault {
            Some(Fault::Status(code)) => {
                answer(stream, code, &status(code).to_string(), usize::MAX)?;
                return Ok(true);
            }
            Some(Fault::Nonsense) => {
                answer(stream, 200, "<html>a captive portal</html>\n", usize::MAX)?;
                return Ok(true);
            }
            Some(Fault::Cut) => return Ok(false),
            // Until the client gives up.
            Some(Fault::Hang) => return Ok(stream.read(&mut [0])? > 0),
            Some(Fault::Slow(time)) => std::thread::sleep(time),
            Some(Fault::Half | Fault::Stuck | Fault::Event(_)) | None => {}
        }
        match verb {
            Verb::List => self.list(stream, &query, fault),
            Verb::Watch => self.watch(stream, &query, version.unwrap(), fault),
        }
    }

    fn list(
        &self,
        stream: &mut dyn Connection,
        query: &HashMap<&str, &str>,
        fault: Option<Fault>,
    ) -> io::Result<bool> {
        let body = {
            let state = self.state.lock().unwrap();
            let limit: usize = query["limit"].parse().unwrap();
            let start: usize = query
                .get("continue")
                .map_or(0, |token| token.parse().unwrap());
            let rest = state.slices.len() - start;
            let items: Vec<_> = state
                .slices
                .values()
                .skip(start)
                .take(limit.min(state.page))
                .collect();
            let mut metadata = json!({"resourceVersion": state.version.to_string()});
            if items.len() < rest {
                metadata["continue"] = json!((start + items.len()).to_string());
            }
            json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata, "items": items}).to_string()
        };
        let sent = match fault {
            Some(Fault::Half | Fault::Stuck) => body.len() / 2,
            _ => body.len(),
        };
        answer(stream, 200, &body, sent)?;
        match fault {
            Some(Fault::Half) => Ok(false),
            Some(Fault::Stuck) => Ok(stream.read(&mut [0])? > 0),
            _ => Ok(true),
        }
    }

    fn watch(
        &self,
        stream: &mut dyn Connection,
        query: &HashMap<&str, &str>,
        version: u64,
        fault: Option<Fault>,
    ) -> io::Result<bool> {
        assert_eq!(query["allowWatchBookmarks"], "true");
        let ends = Instant::now() + Duration::from_secs(query["timeoutSeconds"].parse().unwrap());
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )?;
        stream.flush()?;
        let (mut place, cuts, gone) = {
            let state = self.state.lock().unwrap();
            let place = state.history.iter().position(|event| event.0 > version);
            (
                place.unwrap_or(state.history.len()),
                state.cuts,
                version < state.oldest,
            )
        };
        let error = match fault {
            Some(Fault::Event(code)) => Some(code),
            _ => gone.then_some(410),
        };
        if let Some(code) = error {
            chunk(
                stream,
                &format!("{}\n", json!({"type": "ERROR", "object": status(code)})),
            )?;
            stream.write_all(b"0\r\n\r\n")?;
            stream.flush()?;
            return Ok(true);
        }
        match fault {
            Some(Fault::Half) => {
                chunk(stream, "{\"type\":\"ADDED\",\"obj")?;
                return Ok(false);
            }
            Some(Fault::Stuck) => return Ok(stream.read(&mut [0])? > 0),
            _ => {}
        }
        loop {
            let lines: String = {
                let state = self.state.lock().unwrap();
                let left = ends.saturating_duration_since(Instant::now());
                let waits = |state: &mut State| state.history.len() == place && state.cuts == cuts;
                let (state, timeout) = self.changed.wait_timeout_while(state, left, waits).unwrap();
                if state.cuts != cuts {
                    return Ok(false);
                }
                if timeout.timed_out() {
                    break;
                }
                let events = state.history[place..]
                    .iter()
                    .map(|event| format!("{}\n", event.1));
                let lines = events.collect();
                place = state.history.len();
                lines
            };
            // Not at the ends of lines: a client must put them together itself.
            let (half, rest) = lines.split_at(lines.len() / 2);
            chunk(stream, half)?;
            chunk(stream, rest)?;
        }
        stream.write_all(b"0\r\n\r\n")?;
        stream.flush()?;
        Ok(true)
    }
}
