//! What is compared, where its program is, and of which version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Peer {
    /// No proxy: what the others are measured against.
    Direct,
    /// Bytes copied between two sockets, no HTTP: the floor.
    Relay,
    /// As it comes.
    Tokenglass,
    /// Forwarding blind, which prices the measuring.
    TokenglassBlind,
    /// As it comes, with its metrics read every other second; only when asked for.
    TokenglassScraped,
    /// Another build of it; only where `--other` names one.
    TokenglassOther,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
    /// vLLM's router.
    VllmRouter,
    /// Shepherd Model Gateway.
    Smg,
    /// LiteLLM's proxy; only when asked for.
    Litellm,
}

/// Where programs are, and where running ones may write.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) peers: PathBuf,
    pub(crate) tokenglass: PathBuf,
    pub(crate) other: Option<PathBuf>,
    pub(crate) scratch: PathBuf,
}

// === impl Peer ===

impl Peer {
    /// All, in the order in which they are shown.
    pub(crate) const ALL: [Self; 12] = [
        Self::Direct,
        Self::Relay,
        Self::Tokenglass,
        Self::TokenglassBlind,
        Self::TokenglassScraped,
        Self::TokenglassOther,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::VllmRouter,
        Self::Smg,
        Self::Litellm,
    ];

    /// Whether it takes part only when asked for.
    pub(crate) const fn asked(self) -> bool {
        matches!(
            self,
            Self::TokenglassScraped | Self::TokenglassOther | Self::Litellm
        )
    }

    /// Its name in a table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "TCP relay",
            Self::Tokenglass => "tokenglass",
            Self::TokenglassBlind => "tokenglass, observer off",
            Self::TokenglassScraped => "tokenglass, scraped",
            Self::TokenglassOther => "tokenglass, other build",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::VllmRouter => "vllm-router",
            Self::Smg => "SMG",
            Self::Litellm => "LiteLLM",
        }
    }

    /// The program, if it is there.
    pub(crate) fn program(self, places: &Places) -> Option<PathBuf> {
        let peers = &places.peers;
        let system = Path::new("/usr/sbin");
        let candidates = match self {
            Self::Direct => return None,
            Self::Relay => vec![std::env::current_exe().ok()?],
            Self::Tokenglass | Self::TokenglassBlind | Self::TokenglassScraped => {
                vec![places.tokenglass.clone()]
            }
            Self::TokenglassOther => vec![places.other.clone()?],
            Self::Nginx => vec![
                peers.join("nginx/root/usr/sbin/nginx"),
                system.join("nginx"),
            ],
            Self::Haproxy => vec![
                peers.join("haproxy/root/usr/sbin/haproxy"),
                system.join("haproxy"),
            ],
            Self::Envoy => vec![peers.join("python/bin/envoy")],
            Self::VllmRouter => vec![peers.join("python/bin/vllm-router")],
            Self::Smg => vec![peers.join("python/bin/smg")],
            Self::Litellm => vec![peers.join("python/bin/litellm")],
        };
        candidates.into_iter().find(|path| path.is_file())
    }

    /// What it says of its version.
    pub(crate) fn version(self, places: &Places) -> Option<String> {
        let program = self.program(places)?;
        let package = match self {
            Self::VllmRouter => "vllm_router-",
            Self::Smg => "smg-",
            Self::Litellm => "litellm-",
            _ => {
                let flag = if matches!(self, Self::Nginx | Self::Haproxy) {
                    "-v"
                } else {
                    "--version"
                };
                let output = self.command(&program, places).arg(flag).output().ok()?;
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text);
                return text
                    .lines()
                    .find(|line| !line.trim().is_empty())
                    .map(version_in);
            }
        };
        let lib = fs::read_dir(program.parent()?.parent()?.join("lib")).ok()?;
        let packages =
            lib.filter_map(|python| fs::read_dir(python.ok()?.path().join("site-packages")).ok());
        let mut names = packages
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.find_map(|name| {
            Some(
                name.strip_prefix(package)?
                    .strip_suffix(".dist-info")?
                    .to_owned(),
            )
        })
    }

    /// The program in the environment that it needs.
    pub(crate) fn command(self, program: &Path, places: &Places) -> Command {
        let mut command = Command::new(program);
        if program.starts_with(&places.peers) && self == Self::Haproxy {
            // Its libraries have been unpacked beside it.
            let root = places.peers.join("haproxy/root/usr/lib");
            command.env(
                "LD_LIBRARY_PATH",
                root.join(format!("{}-linux-gnu", std::env::consts::ARCH)),
            );
        }
        command
    }
}

/// The first word with a dot between digits.
fn version_in(line: &str) -> String {
    let is_version = |word: &&str| {
        word.split_once('.').is_some_and(|(a, b)| {
            !a.is_empty()
                && a.bytes().all(|c| c.is_ascii_digit())
                && b.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    let word = line.split([' ', '/', ',']).find(is_version);
    word.unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (line, version) in [
            ("nginx version: nginx/1.22.1", "1.22.1"),
            (
                "HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/",
                "2.6.12-1+deb12u3",
            ),
            (
                "/a/bin/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL",
                "1.40.0",
            ),
            ("tokenglass 0.1.0", "0.1.0"),
            ("unknown", "unknown"),
        ] {
            assert_eq!(version_in(line), version);
        }
    }
}
