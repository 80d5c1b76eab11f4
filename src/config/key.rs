//! One key of the configuration: its name, its flag, and how it gets into [`Config`] and out again.

use std::path::PathBuf;

use super::Config;
use super::value::{Mistake, Value};

/// A row of the table.
pub(super) struct Key {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// With its dashes.
    pub(super) flag: Option<&'static str>,
    /// Comma-separated in the environment, repeatable as a flag.
    pub(super) list: bool,
    /// Its value is neither printed nor repeated in an error.
    pub(super) secret: bool,
    pub(super) write: fn(&mut Draft, &Value) -> Result<(), Vec<Mistake>>,
    /// As a TOML literal.
    pub(super) read: fn(&Draft) -> String,
}

/// A configuration under construction: [`Config`], but where two keys make one field they stand apart, so that each
/// can come from another layer.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
}

// === impl Key ===

impl Key {
    pub(super) const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    pub(super) const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// `server.listen`
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `TOKENGLASS_SERVER__LISTEN`
    pub(super) fn variable(&self) -> String {
        format!("TOKENGLASS_{}__{}", self.section, self.name).to_ascii_uppercase()
    }
}

// === impl Draft ===

impl From<Config> for Draft {
    fn from(config: Config) -> Self {
        let tls = config.server.tls.clone();
        let (tls_cert, tls_key) = tls.map_or((None, None), |tls| (Some(tls.cert), Some(tls.key)));
        Self {
            config,
            tls_cert,
            tls_key,
        }
    }
}
