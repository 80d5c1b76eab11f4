//! The command line: arguments to a [`Command`], and how a command ends.
//!
//! Values are not looked at here. A flag is one more layer of the configuration and is read by the same table as the
//! file, so that `--listen` and `listen =` cannot come to mean different things.

mod exit;
mod output;
mod sidecar;

pub use self::exit::{Failure, exit, usage};
pub use self::output::{completions, config, inject, validate};

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use self::sidecar::Sidecar;
use crate::config::{Sources, TlsFiles};
use crate::kubernetes::injector::Settings;
use crate::kubernetes::webhook;

/// What is to be done.
#[derive(Debug)]
pub enum Command {
    /// Run the proxy.
    Run(Sources),
    /// Run the proxy with a simulated vLLM and traffic.
    Demo {
        /// The proxy's configuration; where upstream is, is the demo's to say.
        sources: Sources,
        /// Until stopped, if not given.
        duration: Option<Duration>,
    },
    /// Check the configuration.
    Validate(Sources),
    /// Print the effective configuration.
    Config(Sources),
    /// Put the sidecar into manifests.
    Inject {
        /// The manifests; `-` is stdin.
        file: PathBuf,
        /// Only say what would be done.
        check: bool,
        /// How the sidecar is made.
        settings: Box<Settings>,
    },
    /// Serve the admission webhook.
    Webhook {
        /// For the log.
        sources: Sources,
        /// Where, and with which certificate.
        options: Box<webhook::Options>,
    },
    /// Print a completion script.
    Completions(Shell),
}

/// A transparent, measuring reverse proxy in front of vLLM
#[derive(Debug, Parser)]
#[command(name = "tokenglass", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Precedence: flags, environment (TOKENGLASS_SECTION__KEY), file, defaults.")]
struct Arguments {
    #[command(flatten)]
    run: Proxy,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the proxy; the same as no command at all
    Run(Proxy),
    /// Run the proxy in front of a simulated vLLM, with traffic
    Demo {
        #[command(flatten)]
        ports: Ports,
        /// End after so many seconds instead of running until stopped
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        duration: Option<u64>,
    },
    /// Check the configuration: exit status 0, or 78 with every mistake
    Validate(File),
    /// Print the effective configuration and where each value came from
    Config(Proxy),
    /// Print Kubernetes manifests with the sidecar put in front of vLLM
    Inject {
        /// Manifests to read, YAML or JSON; - for stdin
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Only say what would be done; exit status 1 if anything is refused
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        sidecar: Sidecar,
    },
    /// Serve the mutating admission webhook that puts the sidecar into new pods
    Webhook {
        /// Address for the API server's requests, by TLS
        #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8443")]
        listen: SocketAddr,
        /// Address for metrics and health, without TLS
        #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:9101")]
        admin: SocketAddr,
        /// Certificate chain, PEM; read again when it changes
        #[arg(long, value_name = "FILE")]
        tls_cert: PathBuf,
        /// Its key, PEM
        #[arg(long, value_name = "FILE")]
        tls_key: PathBuf,
        #[command(flatten)]
        sidecar: Sidecar,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Args, Debug)]
struct Proxy {
    #[command(flatten)]
    ports: Ports,
    /// Where the traffic goes: http://HOST:PORT, https://HOST:PORT or unix:/PATH; may repeat
    #[arg(long, value_name = "URL")]
    upstream: Vec<String>,
    /// Threads that carry traffic, 0 for one a core
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Log filter: error, warn, info, debug, trace, or target=level,…
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
    #[command(flatten)]
    file: File,
}

#[derive(Args, Debug)]
struct Ports {
    /// Address of the data port
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address of the admin port
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,
}

#[derive(Args, Debug)]
struct File {
    /// Configuration file; also TOKENGLASS_CONFIG
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Reads arguments and environment.
///
/// # Errors
///
/// clap's, which is also how `--help` and `--version` come; [`usage`] ends on it.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Command, clap::Error> {
    let Arguments { run, command } = Arguments::try_parse_from(arguments)?;
    let sources = Sources::new(environment);
    Ok(match command.unwrap_or(Verb::Run(run)) {
        Verb::Run(proxy) => Command::Run(proxy.onto(sources)),
        Verb::Demo { ports, duration } => Command::Demo {
            sources: ports.onto(sources),
            duration: duration.map(Duration::from_secs),
        },
        Verb::Validate(file) => Command::Validate(sources.with_file(file.config)),
        Verb::Config(proxy) => Command::Config(proxy.onto(sources)),
        Verb::Inject {
            file,
            check,
            sidecar,
        } => Command::Inject {
            file,
            check,
            settings: Box::new(sidecar.settings()?),
        },
        Verb::Webhook {
            listen,
            admin,
            tls_cert,
            tls_key,
            sidecar,
        } => Command::Webhook {
            sources,
            options: Box::new(webhook::Options {
                listen,
                admin,
                tls: TlsFiles {
                    cert: tls_cert,
                    key: tls_key,
                },
                settings: sidecar.settings()?,
            }),
        },
        Verb::Completions { shell } => Command::Completions(shell),
    })
}

// === impl Proxy ===

impl Proxy {
    fn onto(self, sources: Sources) -> Sources {
        self.ports
            .onto(sources)
            .with_flag("--upstream", self.upstream)
            .with_flag("--workers", self.workers)
            .with_flag("--log-level", self.log_level)
            .with_file(self.file.config)
    }
}

// === impl Ports ===

impl Ports {
    fn onto(self, sources: Sources) -> Sources {
        sources
            .with_flag("--listen", self.listen)
            .with_flag("--admin", self.admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse_words(words: &str) -> Result<Command, clap::Error> {
        parse(words.split(' ').map(OsString::from), [])
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_setting_of_the_sidecar_is_a_flag() {
        let command = Arguments::command();
        for verb in ["inject", "webhook"] {
            let verb = command.find_subcommand(verb).unwrap();
            for name in crate::kubernetes::injector::NAMES {
                let known = verb
                    .get_arguments()
                    .any(|flag| flag.get_long() == Some(name));
                assert!(known, "{name}");
            }
        }
    }

    #[test]
    fn flags_mean_the_same_with_and_without_run() {
        let flags = "--listen 127.0.0.1:1 --admin 127.0.0.1:2 --workers 3 --log-level warn \
                     --upstream http://a:1 --upstream http://b:2";
        for line in [
            format!("tokenglass {flags}"),
            format!("tokenglass run {flags}"),
        ] {
            let Ok(Command::Run(sources)) = parse_words(&line) else {
                panic!("{line}")
            };
            let loaded = sources.load().unwrap();
            assert_eq!(loaded.config.server.listen.port(), 1);
            assert_eq!(loaded.config.admin.listen.port(), 2);
            assert_eq!(loaded.config.server.workers, 3);
            assert_eq!(loaded.config.log.level, "warn");
            assert_eq!(loaded.config.upstream.urls.len(), 2);
            for (key, flag) in [
                ("server.listen", "--listen"),
                ("admin.listen", "--admin"),
                ("server.workers", "--workers"),
                ("log.level", "--log-level"),
                ("upstream.url", "--upstream"),
            ] {
                assert_eq!(
                    loaded.origins.of(key),
                    &crate::config::Origin::Flag { flag }
                );
            }
        }
    }

    #[test]
    fn verbs() {
        assert!(matches!(parse_words("tokenglass"), Ok(Command::Run(_))));
        assert!(matches!(
            parse_words("tokenglass demo --duration 5"),
            Ok(Command::Demo { duration: Some(d), .. }) if d.as_secs() == 5
        ));
        assert!(matches!(
            parse_words("tokenglass validate --config x.toml"),
            Ok(Command::Validate(sources)) if sources.file().is_some()
        ));
        assert!(matches!(
            parse_words("tokenglass config --workers 1"),
            Ok(Command::Config(_))
        ));
        assert!(matches!(
            parse_words("tokenglass inject -f - --check --gpu nvml --native-sidecar false"),
            Ok(Command::Inject { check: true, settings, .. }) if !settings.native_sidecar
        ));
        assert!(matches!(
            parse_words("tokenglass webhook --tls-cert c --tls-key k --drain-timeout 10m"),
            Ok(Command::Webhook { options, .. })
                if options.listen.port() == 8443 && options.settings.drain_timeout.as_secs() == 600
        ));
        assert!(matches!(
            parse_words("tokenglass completions bash"),
            Ok(Command::Completions(_))
        ));
        for line in [
            "tokenglass --listen x run",
            "tokenglass demo --duration 0",
            "tokenglass x",
            "tokenglass inject",
            "tokenglass inject -f x --gpu some",
            "tokenglass inject -f x --admin-port 0",
            "tokenglass webhook --tls-cert c",
        ] {
            assert!(parse_words(line).is_err(), "{line}");
        }
    }
}
