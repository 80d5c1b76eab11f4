//! The names that vLLM's other versions use: whichever of a pair is missing is added, with the same samples.
//!
//! Nothing is computed: a name is only added where vLLM measures the very thing under another.

use std::collections::HashSet;
use std::sync::Arc;

use super::family::Family;
use super::names::VLLM;

/// Old and new, as the text format has them.
pub(super) const PAIRS: &[(&str, &str)] = &[
    // New in 0.9.2; the old one hidden in 0.11, gone in 0.12.
    ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
    (
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:prefix_cache_queries_total",
    ),
    (
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:prefix_cache_hits_total",
    ),
    // New in 0.10.2; the old one hidden in 0.12, gone by 0.16.
    (
        "vllm:time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds",
    ),
];

/// Adds what is missing to one upstream's families.
pub fn complete(families: &mut Vec<Family>) {
    let mut names: HashSet<String> = families
        .iter()
        .flat_map(|family| family.sample_names())
        .collect();
    // What has gone through something that knows no colons.
    let mut more = Vec::new();
    for family in &*families {
        if let Some(stem) = family.name.strip_prefix("vllm_")
            && VLLM.binary_search(&stem).is_ok()
        {
            add(&mut more, &mut names, family, format!("vllm:{stem}"));
        }
    }
    families.append(&mut more);
    for (old, new) in PAIRS {
        for (have, want) in [(old, new), (new, old)] {
            if let Some(family) = families.iter().find(|family| family.name == **have) {
                add(&mut more, &mut names, family, (*want).to_owned());
            }
        }
        families.append(&mut more);
    }
}

/// `family` under the name of `name`, unless that or a name derived from it is there.
fn add(more: &mut Vec<Family>, names: &mut HashSet<String>, family: &Family, name: String) {
    let help = family.help.as_deref().unwrap_or_default();
    let alias = Family {
        help: Some(
            format!("(alias of {}, added by tokenglass) {help}", family.name)
                .trim_end()
                .to_owned(),
        ),
        name,
        kind: family.kind,
        samples: Arc::clone(&family.samples),
    };
    let wanted: Vec<_> = alias.sample_names().collect();
    if wanted.iter().any(|name| names.contains(name)) {
        return;
    }
    names.extend(wanted);
    more.push(alias);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_in_order() {
        assert!(VLLM.is_sorted());
        for (old, new) in PAIRS {
            for name in [old, new] {
                let stem = name.strip_prefix("vllm:").unwrap();
                assert!(VLLM.binary_search(&stem).is_ok(), "{name}");
            }
        }
    }
}
