use std::collections::HashSet;
use std::path::Path;

use super::sources;
use crate::config::keys::{KEYS, sections};
use crate::config::{Config, Origin};

#[test]
fn the_shipped_file_has_every_key_and_changes_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tokenglass.toml");
    let loaded = sources(&[]).with_file(Some(path)).load().unwrap();
    assert_eq!(loaded.config, Config::default());
    for key in KEYS {
        let origin = loaded.origins.of(&key.path());
        assert!(
            matches!(origin, Origin::File { .. }),
            "{} is missing",
            key.path()
        );
    }
}

#[test]
fn the_table_is_sound() {
    let paths: HashSet<_> = KEYS.iter().map(|key| key.path()).collect();
    let variables: HashSet<_> = KEYS.iter().map(|key| key.variable()).collect();
    assert_eq!(paths.len(), KEYS.len());
    assert_eq!(variables.len(), KEYS.len());
    // Each section stands in one piece, as `show` needs it.
    let sections = sections();
    assert_eq!(
        sections.iter().collect::<HashSet<_>>().len(),
        sections.len()
    );
    let default = Config::default();
    assert_ne!(default.server.listen, default.admin.listen);
}
