//! Why a pod is left as it is.

/// A reason not to inject. Each is shown to people as a sentence and counted by [`Refusal::label`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no pod in it.
    #[error("it has no pod specification with containers")]
    NoPod,
    /// Parts of a kind that Kubernetes would not take.
    #[error("parts of it are not what Kubernetes has there")]
    Malformed,
    /// Nothing to stand in front of.
    #[error("no container of it starts vLLM's API server")]
    NoServer,
    /// More than one to stand in front of.
    #[error("several containers start vLLM ({}): name one with tokenglass.dev/container", .0.join(", "))]
    SeveralServers(Vec<String>),
    /// The annotation's container is not there.
    #[error("tokenglass.dev/container names {0}, which is no container of it")]
    NoSuchContainer(String),
    /// Workers have no API.
    #[error("it is a worker: the API is the leader's")]
    Worker,
    /// One template for leaders and workers.
    #[error("leaders and workers share one template (no leaderTemplate); only a leader has an API")]
    SharedTemplate,
    /// `command` or `args` of a shape that Kubernetes would not take.
    #[error("command or args is not a list of strings")]
    NotStrings,
    /// Some other program starts vLLM.
    #[error("it starts `{0}`, and whether and how that starts vLLM cannot be seen from here")]
    UnknownCommand(String),
    /// The image decides what is started.
    #[error(
        "what the image {0} starts is not known: give the container a command, or --port in its args"
    )]
    UnknownEntrypoint(String),
    /// A script that cannot be read.
    #[error("the script that starts vLLM cannot be edited for certain: {0}")]
    Script(String),
    /// A script that starts several.
    #[error("the script starts vLLM at several places")]
    SeveralInScript,
    /// Where it listens is not to be seen.
    #[error("vLLM's port cannot be told: {0}")]
    Port(String),
    /// An address that only this pod's specification does not tell.
    #[error("vLLM binds {0}, and whether the proxy reaches it there is not known")]
    Host(String),
    /// Flags may hide in variables.
    #[error("vLLM's arguments cannot be read for certain: {0}")]
    Arguments(String),
    /// `--config`
    #[error("vLLM reads a configuration file (--config), which may set its port")]
    ConfigFile,
    /// TLS on vLLM's port.
    #[error("vLLM serves TLS itself; clients would find plain HTTP where they expect TLS")]
    Tls,
    /// `--uds`
    #[error("vLLM listens on a Unix socket (--uds)")]
    UnixSocket,
    /// `--headless`
    #[error("vLLM runs without an API (--headless)")]
    Headless,
    /// gRPC on vLLM's port.
    #[error("vLLM serves gRPC")]
    Grpc,
    /// A port for each data-parallel rank.
    #[error(
        "vLLM opens a port for each data-parallel rank (--data-parallel-multi-port-external-lb)"
    )]
    SeveralPorts,
    /// The ports are the node's.
    #[error("hostNetwork: its ports are the node's, and a second one cannot be taken unasked")]
    HostNetwork,
    /// A port that is to be ours is somebody's.
    #[error("port {0} is used already; {1} sets another")]
    PortTaken(u16, &'static str),
    /// No port left.
    #[error("no free port above {0}")]
    NoFreePort(u16),
    /// Not for this platform.
    #[error("there is no image for {0}")]
    Platform(String),
    /// A plain container keeps a pod from ending.
    #[error(
        "a plain container never ends, and with restartPolicy {0} neither would the pod: use the native sidecar"
    )]
    WouldNotEnd(String),
    /// A pod that exists.
    #[error("it is a pod that exists already, and pods cannot be changed: inject what creates it")]
    Running,
    /// The kubelet's own pods.
    #[error("it is a static pod's mirror")]
    Mirror,
    /// Somebody else's container of our name.
    #[error("it has a container called tokenglass that was not injected")]
    NameTaken,
    /// A setting that cannot be read.
    #[error("{0}")]
    Setting(#[from] super::settings::BadSetting),
    /// KServe adds what is not here.
    #[error(
        "KServe merges this with what is not in it ({0}): label the pods, and the webhook injects what comes of it"
    )]
    Merged(&'static str),
    /// Knative.
    #[error(
        "without the annotation serving.kserve.io/deploymentMode: Standard (or RawDeployment) this may become a Knative revision, which takes no sidecar"
    )]
    Knative,
    /// Text that cannot be edited without changing more.
    #[error("its YAML cannot be edited in place: {0}")]
    Text(String),
}

impl Refusal {
    /// The reason as a metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoPod => "no_pod",
            Self::Malformed => "malformed_pod",
            Self::NoServer => "no_server",
            Self::SeveralServers(_) => "several_servers",
            Self::NoSuchContainer(_) => "no_such_container",
            Self::Worker => "worker",
            Self::SharedTemplate => "shared_template",
            Self::NotStrings => "not_strings",
            Self::UnknownCommand(_) => "unknown_command",
            Self::UnknownEntrypoint(_) => "unknown_entrypoint",
            Self::Script(_) => "script",
            Self::SeveralInScript => "several_in_script",
            Self::Port(_) => "port",
            Self::Host(_) => "host",
            Self::Arguments(_) => "arguments",
            Self::ConfigFile => "config_file",
            Self::Tls => "tls",
            Self::UnixSocket => "unix_socket",
            Self::Headless => "headless",
            Self::Grpc => "grpc",
            Self::SeveralPorts => "several_ports",
            Self::HostNetwork => "host_network",
            Self::PortTaken(..) => "port_taken",
            Self::NoFreePort(_) => "no_free_port",
            Self::Platform(_) => "platform",
            Self::WouldNotEnd(_) => "would_not_end",
            Self::Running => "running",
            Self::Mirror => "mirror",
            Self::NameTaken => "name_taken",
            Self::Setting(_) => "setting",
            Self::Merged(_) => "merged",
            Self::Knative => "knative",
            Self::Text(_) => "text",
        }
    }
}
