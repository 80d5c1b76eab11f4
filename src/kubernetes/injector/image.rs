//! What an image's name says of it.

/// The last part of the name, without registry, tag and digest.
fn base(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or(last, |(name, _)| name)
}

/// Programs around vLLM that have it in their images' names.
const AROUND: [&str; 9] = [
    "router",
    "sim",
    "gateway",
    "proxy",
    "exporter",
    "bench",
    "operator",
    "controller",
    "client",
];

/// Whether vLLM is likely in it.
pub(super) fn mentions_vllm(image: &str) -> bool {
    let name = image
        .split_once('@')
        .map_or(image, |(name, _)| name)
        .to_ascii_lowercase();
    let mut path = name.rsplit('/');
    let last = path.next().unwrap_or_default();
    let last = last.split_once(':').map_or(last, |(name, _)| name);
    let named = last.contains("vllm") || path.next().is_some_and(|owner| owner == "vllm");
    named
        && !last
            .split(['-', '_', '.'])
            .any(|part| AROUND.contains(&part))
}

/// Whether its entry point is the API server, so that `args` are the server's flags: the images that vLLM's project and
/// Red Hat publish, and copies of them under the same name.
pub(super) fn starts_server(image: &str) -> bool {
    let base = base(image);
    let official = base
        .strip_prefix("vllm-openai")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    official
        || base == "vllm-cpu-release-repo"
        || base == "vllm-arm64-cpu-release-repo"
        || (image.contains("rhaiis/") && base.starts_with("vllm-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for image in [
            "vllm/vllm-openai",
            "vllm/vllm-openai:v0.11.0",
            "docker.io/vllm/vllm-openai@sha256:00",
            "registry.internal:5000/mirror/vllm-openai:latest",
            "vllm/vllm-openai-cpu:v0.19.0",
            "lmcache/vllm-openai:v0.3.9",
            "public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.9.2",
            "registry.redhat.io/rhaiis/vllm-cuda-rhel9:3.2",
        ] {
            assert!(starts_server(image), "{image}");
            assert!(mentions_vllm(image), "{image}");
        }
        for image in [
            "rocm/vllm:rocm6.2",
            "quay.io/modh/vllm@sha256:4f",
            "nvcr.io/nvidia/vllm:25.09-py3",
            "vllm/custom:1",
        ] {
            assert!(!starts_server(image), "{image}");
            assert!(mentions_vllm(image), "{image}");
        }
        for image in [
            "vllm/vllm-router:v0.1",
            "ghcr.io/llm-d/llm-d-inference-sim:v0.5.1",
            "nginx:1.29",
            "lmcache/lmstack-router",
            "ghcr.io/x/vllm-exporter",
        ] {
            assert!(!mentions_vllm(image), "{image}");
        }
    }
}
