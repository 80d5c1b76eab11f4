//! The labels of DCGM's series.

use std::fmt::Write as _;

use crate::config::{Gpu, GpuNaming, HostnameLabel};
use crate::gpu::names;
use crate::gpu::source::{Identity, Instance};

/// What is the same for every GPU.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    naming: GpuNaming,
    /// Of the machine and of Kubernetes, written out.
    host: String,
    pod: String,
}

impl Labels {
    pub(super) fn new(config: &Gpu, hostname: &str) -> Self {
        let label = match config.hostname_label {
            HostnameLabel::Upper => "Hostname",
            HostnameLabel::Lower => "hostname",
        };
        let mut host = String::new();
        push(&mut host, label, hostname);
        let mut pod = String::new();
        for (label, value) in [
            ("container", &config.container),
            ("namespace", &config.namespace),
            ("pod", &config.pod),
        ] {
            if let Some(value) = value {
                push(&mut pod, label, value);
            }
        }
        Self {
            naming: config.naming,
            host,
            pod,
        }
    }

    /// Of a GPU, or of an instance of it, in DCGM's order. `more` comes last.
    pub(super) fn write(
        &self,
        gpu: &Identity,
        instance: Option<&Instance>,
        driver: &str,
        more: &[(&str, &str)],
    ) -> String {
        let mut out = short(gpu.index, &gpu.uuid);
        push(&mut out, "pci_bus_id", &gpu.pci_bus_id);
        // The node's number where it is known: the index starts at 0 in every container.
        push(
            &mut out,
            "device",
            &format!("nvidia{}", gpu.minor.unwrap_or(gpu.index)),
        );
        push(&mut out, "modelName", &gpu.model);
        if let Some(instance) = instance {
            push(&mut out, "GPU_I_PROFILE", &instance.profile);
            push(&mut out, "GPU_I_ID", &instance.id.to_string());
        }
        join(&mut out, &self.host);
        push(&mut out, names::driver_label(self.naming), driver);
        join(&mut out, &self.pod);
        for (label, value) in more {
            push(&mut out, label, value);
        }
        out
    }
}

/// `gpu` and `UUID`, which is all that our own series carry.
pub(super) fn short(index: u32, uuid: &str) -> String {
    let mut out = String::new();
    push(&mut out, "gpu", &index.to_string());
    push(&mut out, "UUID", uuid);
    out
}

/// Adds a label.
pub(super) fn push(out: &mut String, label: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let _infallible = write!(out, "{label}=\"{value}\"");
}

fn join(out: &mut String, more: &str) {
    if !more.is_empty() {
        out.push(',');
        out.push_str(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn in_order_and_escaped() {
        let mut config = Config::default().gpu;
        config.pod = Some("vllm-0".to_owned());
        let gpu = Identity {
            index: 0,
            uuid: "GPU-1".to_owned(),
            model: "An \"odd\" one".to_owned(),
            pci_bus_id: "00000000:07:00.0".to_owned(),
            minor: Some(5),
        };
        assert_eq!(
            Labels::new(&config, "node-1").write(&gpu, None, "570.86.15", &[("err_code", "0")]),
            "gpu=\"0\",UUID=\"GPU-1\",pci_bus_id=\"00000000:07:00.0\",device=\"nvidia5\",\
             modelName=\"An \\\"odd\\\" one\",Hostname=\"node-1\",DCGM_FI_DRIVER_VERSION=\"570.86.15\",\
             pod=\"vllm-0\",err_code=\"0\""
        );
    }
}
