//! When to ask again.

/// Rounds between two tries of what keeps failing.
const LONGEST: u32 = 4;

/// Every so many rounds; after a failure sooner or later than that, and later each time.
#[derive(Debug)]
pub(super) struct Pace {
    every: u32,
    left: u32,
    failures: u32,
}

impl Pace {
    /// Due at once, and then each `every` rounds.
    pub(super) fn new(every: u32) -> Self {
        Self {
            every,
            left: 0,
            failures: 0,
        }
    }

    /// A round begins: whether to ask in it.
    pub(super) fn due(&mut self) -> bool {
        let due = self.left == 0;
        self.left = self.left.saturating_sub(1);
        due
    }

    /// It was asked.
    pub(super) fn asked(&mut self, ok: bool) {
        let rounds = if ok {
            self.failures = 0;
            self.every
        } else {
            let rounds = LONGEST.min(1 << self.failures);
            self.failures = (self.failures + 1).min(LONGEST);
            rounds
        };
        self.left = rounds.saturating_sub(1);
    }

    /// Due in the next round, whatever was.
    pub(super) fn reset(&mut self) {
        self.left = 0;
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(pace: &mut Pace, ok: bool, count: usize) -> String {
        let ask = |_| {
            let due = pace.due();
            if due {
                pace.asked(ok);
            }
            if due { 'x' } else { '.' }
        };
        (0..count).map(ask).collect()
    }

    #[test]
    fn what_works_is_asked_in_turn_and_what_fails_ever_less() {
        assert_eq!(rounds(&mut Pace::new(1), true, 4), "xxxx");
        assert_eq!(rounds(&mut Pace::new(5), true, 11), "x....x....x");
        let mut pace = Pace::new(1);
        assert_eq!(rounds(&mut pace, false, 12), "xx.x...x...x");
        pace.reset();
        assert_eq!(rounds(&mut pace, true, 2), "xx");
    }
}
