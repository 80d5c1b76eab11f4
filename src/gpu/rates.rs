//! Rates out of counters that wrap.

use std::time::Instant;

/// 2³²: fields 197 and 198 wrap there on GPUs whose counters are that wide.
const NARROW: u64 = 1 << 32;

/// Two counters that are read together.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<(Instant, u64, u64)>,
    wide: bool,
}

impl Meter {
    /// Units a second since the last reading, of both; `None` the first time.
    pub(super) fn read(&mut self, now: Instant, out: u64, into: u64) -> Option<(f64, f64)> {
        self.wide |= out >= NARROW || into >= NARROW;
        let (then, last_out, last_into) = self.last.replace((now, out, into))?;
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let out = self.grown(last_out, out)?;
        let into = self.grown(last_into, into)?;
        Some((out as f64 / seconds, into as f64 / seconds))
    }

    /// Whether a counter has been seen beyond 32 bits. A narrow one wraps within 70 ms at full PCIe 5 speed, so that a rate
    /// of it is only a lower bound: better ways go first.
    pub(super) fn is_wide(&self) -> bool {
        self.wide
    }

    fn grown(&self, last: u64, now: u64) -> Option<u64> {
        match now.checked_sub(last) {
            Some(grown) => Some(grown),
            None if !self.wide => now.checked_add(NARROW)?.checked_sub(last),
            // A wide counter that has gone back was reset.
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_survive_the_wrap_and_a_reset() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::default();
        assert_eq!(meter.read(at(0), NARROW - 1000, 0), None);
        assert_eq!(meter.read(at(2), 1000, 500), Some((1000.0, 250.0)));
        assert!(!meter.is_wide());
        assert_eq!(meter.read(at(2), 1000, 500), None, "no time has passed");
        assert_eq!(
            meter.read(at(3), NARROW + 1000, 500),
            Some((NARROW as f64, 0.0))
        );
        assert!(meter.is_wide());
        assert_eq!(meter.read(at(4), 0, 500), None, "reset");
        assert_eq!(meter.read(at(5), 10, 500), Some((10.0, 0.0)));
    }
}
