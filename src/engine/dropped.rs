//! Lines that are not shown, and why.

/// The `reason` label of `tokenglass_engine_lines_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No sample, type or help that can be read.
    Malformed,
    /// A series that has been there before, whatever the order of its labels; the first stays.
    Duplicate,
    /// A family of ours, or another one of upstream's, has the name or one that is derived from it.
    NameTaken,
    /// Another upstream has the family with another type; the first stays.
    TypeConflict,
    /// More series than anybody wants to show.
    TooMany,
}

crate::outcome::labels!(Reason {
    Malformed => "malformed",
    Duplicate => "duplicate",
    NameTaken => "name_taken",
    TypeConflict => "type_conflict",
    TooMany => "too_many",
});

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped([u64; Reason::ALL.len()]);

impl Dropped {
    /// `lines` more.
    pub fn add(&mut self, reason: Reason, lines: usize) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += lines as u64;
        }
    }

    /// All of another.
    pub fn merge(&mut self, other: &Self) {
        self.merge_times(other, 1);
    }

    /// All of another, so many times.
    pub fn merge_times(&mut self, other: &Self, times: u64) {
        for (mine, more) in self.0.iter_mut().zip(other.0) {
            *mine += more * times;
        }
    }

    /// How many for this reason.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }
}
