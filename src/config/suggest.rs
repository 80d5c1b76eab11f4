//! did-you-mean.

use super::keys::{KEYS, sections};

/// What is this near enough to be meant? Jaro-Winkler above 0.8 is one or two letters in words of this length; a lower
/// bar suggests things that only puzzle.
pub(crate) fn nearest<'a>(word: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    among
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&word, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// For an unknown name at the top of the file: a section, or the keys of that name that want a section.
pub(super) fn for_section(word: &str) -> Vec<String> {
    let keys = named(word);
    if !keys.is_empty() {
        return keys;
    }
    nearest(word, sections())
        .map(str::to_owned)
        .into_iter()
        .collect()
}

/// For an unknown name in a section: the same name elsewhere, else a like one here, else a like one anywhere.
pub(super) fn for_key(section: &str, word: &str) -> Vec<String> {
    let keys = named(word);
    if !keys.is_empty() {
        return keys;
    }
    let here = KEYS
        .iter()
        .filter(|key| key.section == section)
        .map(|key| key.name);
    if let Some(name) = nearest(word, here) {
        return vec![format!("{section}.{name}")];
    }
    nearest(word, KEYS.iter().map(|key| key.name))
        .map(named)
        .unwrap_or_default()
}

/// For an unknown variable.
pub(super) fn for_variable(word: &str) -> Option<String> {
    let variables: Vec<_> = KEYS.iter().map(super::key::Key::variable).collect();
    let candidates = variables
        .iter()
        .map(String::as_str)
        .chain([super::environment::CONFIG]);
    nearest_variable(word, candidates).map(str::to_owned)
}

/// All begin with `TOKENGLASS_`, which makes Jaro-Winkler find everything alike: the rest is compared, by letters.
fn nearest_variable<'a>(word: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.trim_start_matches(super::environment::PREFIX);
    among
        .into_iter()
        .map(|candidate| {
            let rest = candidate.trim_start_matches(super::environment::PREFIX);
            (
                strsim::normalized_damerau_levenshtein(word, rest),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn named(name: &str) -> Vec<String> {
    KEYS.iter()
        .filter(|key| key.name == name)
        .map(super::key::Key::path)
        .collect()
}

/// `, did you mean "a" or "b"?`, or nothing.
pub(super) fn did_you_mean(candidates: &[String]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let quoted: Vec<_> = candidates
        .iter()
        .map(|candidate| format!("\"{candidate}\""))
        .collect();
    format!(", did you mean {}?", quoted.join(" or "))
}
