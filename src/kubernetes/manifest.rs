//! `tokenglass inject`: manifests in, manifests out, edited as text, so that comments, order, quoting and whatever we know
//! nothing of stay as they are. What was written is read again and must be what the edits say, or the object is refused.

mod document;
mod emit;
mod kinds;
mod report;
mod rewrite;
mod scalar;
mod text;
mod tree;

pub use self::report::{Report, Verdict};
pub use self::rewrite::{Rewritten, Unreadable, rewrite, values};
pub use self::tree::Syntax;
