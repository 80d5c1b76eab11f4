//! The eight promises of transparency, each a test named after it.
