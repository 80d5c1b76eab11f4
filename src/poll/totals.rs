//! The few of vLLM's own counters that are held against the traffic.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What an engine has done since it started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineTotals {
    /// `vllm:prompt_tokens_total`, over all models and engines.
    pub prompt: f64,
    /// `vllm:generation_tokens_total`, likewise.
    pub generation: f64,
    /// Of all that moves while an engine works: another one is a sign of life.
    pub fingerprint: u64,
    /// When its process started, if it says so: another time is another process, whatever its counters are.
    pub started: Option<f64>,
}

/// Change with every step of an engine, or with every request. Names of all versions.
const SIGNS: &[&str] = &[
    "vllm:iteration_tokens_total_count",
    "vllm:iteration_tokens_total_sum",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:request_success_total",
    "vllm:num_requests_running",
];

const STARTED: &str = "process_start_time_seconds";

/// Reads them from an exposition. None if it has no token counters: then it is not vLLM's.
#[must_use]
pub fn engine_totals(text: &str) -> Option<EngineTotals> {
    let mut prompt = None;
    let mut generation = None;
    let mut started = None;
    let mut hasher = DefaultHasher::new();
    for line in text.lines() {
        let line = line.trim_start();
        // One look rules most lines out.
        if !line.starts_with("vllm:") {
            if let Some(rest) = line.strip_prefix(STARTED) {
                started = started.or(value(rest));
            }
            continue;
        }
        let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let Some((name, rest)) = line.split_at_checked(end) else {
            continue;
        };
        let sum = match name {
            "vllm:prompt_tokens_total" => &mut prompt,
            "vllm:generation_tokens_total" => &mut generation,
            _ if SIGNS.contains(&name) => {
                // Without what is behind the value: a time stamp moves by itself.
                let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
                let value = value(rest).map(f64::to_bits);
                (name, labels, value).hash(&mut hasher);
                continue;
            }
            _ => continue,
        };
        if let Some(value) = value(rest) {
            *sum = Some(sum.unwrap_or(0.0) + value);
            value.to_bits().hash(&mut hasher);
        }
    }
    Some(EngineTotals {
        prompt: prompt?,
        generation: generation?,
        fingerprint: hasher.finish(),
        started,
    })
}

/// The value behind the labels, with or without a time stamp behind it.
fn value(rest: &str) -> Option<f64> {
    // A label's value may contain anything, a brace too; a number may not.
    let rest = rest.rsplit_once('}').map_or(rest, |(_, value)| value);
    let value = rest.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 609.0
vllm:prompt_tokens_total{engine="1",model_name="} 7"} 1e1 1795551949000
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.7955519490031736e+09
vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source="local_compute"} 609.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 952.0
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 930.0
vllm:num_requests_running{engine="0",model_name="tiny"} 0.0
"#;

    #[test]
    fn totals_are_summed_over_engines() {
        let totals = engine_totals(TEXT).unwrap();
        assert_eq!((totals.prompt, totals.generation), (619.0, 952.0));
        assert_eq!(totals.started, None);
        let text = format!("process_start_time_seconds 1.79555188727e+09\n{TEXT}");
        let totals = engine_totals(&text).unwrap();
        assert_eq!(totals.started, Some(1.795_551_887_27e9));
    }

    #[test]
    fn only_what_moves_with_the_engine_is_in_the_fingerprint() {
        let print = |text: &str| engine_totals(text).unwrap().fingerprint;
        let same = TEXT.replace("1.7955519490031736e+09", "2");
        assert_eq!(print(TEXT), print(&same));
        for (from, to) in [("930.0", "931.0"), ("952.0", "953.0"), (" 0.0", " 1.0")] {
            assert_ne!(print(TEXT), print(&TEXT.replace(from, to)), "{from}");
        }
    }

    #[test]
    fn a_time_stamp_is_no_sign_of_life() {
        let print = |text: &str| engine_totals(text).unwrap().fingerprint;
        let at = |time: u32| TEXT.replace("} 930.0", &format!("}} 930.0 {time}"));
        assert_eq!(print(&at(1)), print(&at(2)));
        let other = TEXT.replace(r#"count{engine="0""#, r#"count{engine="1""#);
        assert_ne!(print(TEXT), print(&other));
    }

    #[test]
    fn what_is_not_vllms_has_none() {
        assert_eq!(engine_totals(""), None);
        assert_eq!(engine_totals("<html>vllm:prompt_tokens_total 1"), None);
        assert_eq!(engine_totals("vllm:prompt_tokens_total 1\n"), None);
        assert_eq!(
            engine_totals("vllm:prompt_tokens_total NaN\nvllm:generation_tokens_total x\n"),
            None
        );
    }
}
