//! The effective configuration, for people: TOML that loads again, and where each value came from.

use super::key::{Draft, Key};
use super::keys::KEYS;
use super::kind::quote;
use super::load::Loaded;
use super::origin::Origin;

/// What is printed in place of a secret.
const HIDDEN: &str = "<hidden>";

/// One line a key, `listen = "0.0.0.0:8080"  # from flag --listen`. Secrets are hidden.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let draft = Draft::from(loaded.config.clone());
    let mut text = String::new();
    let mut section = "";
    for (index, key) in KEYS.iter().enumerate() {
        if key.section != section {
            if !section.is_empty() {
                text.push('\n');
            }
            section = key.section;
            text.push_str(&format!("[{section}]\n"));
        }
        text.push_str(&line(key, &draft, loaded.origins.at(index)));
        text.push('\n');
    }
    text
}

pub(super) fn line(key: &Key, draft: &Draft, origin: &Origin) -> String {
    let literal = match (key.read)(draft) {
        // That there is no secret is none.
        set if key.secret && set != quote("") => quote(HIDDEN),
        shown => shown,
    };
    let setting = format!("{} = {literal}", key.name);
    // A path may hold a line feed, and would then end the comment.
    let origin = origin.to_string().replace(char::is_control, "?");
    format!("{setting:<44}  # from {origin}")
}
