//! The commands.

pub(crate) mod compare;
pub(crate) mod run;
