//! Rates out of counters that wrap.

use std::time::Instant;

/// 2³²: fields 197 and 198 wrap there on GPUs whose counters are that wide.
const NARROW: u64 = 1 << 32;

/// Bytes a second; PCIe 6 with 16 lanes has 121 GB/s each way. More than this is a counter that was reset, not one that wrapped.
const PCIE_MOST: f64 = 128e9;

/// Two counters that are read together.
#[derive(Debug)]
pub(super) struct Meter {
    last: Option<(Instant, u64, u64)>,
    wide: bool,
    /// What can be, in units a second.
    most: f64,
}

impl Meter {
    /// Of bytes over PCIe, whose counters are of 32 bits or of 64: they do not say.
    pub(super) fn pcie() -> Self {
        Self {
            last: None,
            wide: false,
            most: PCIE_MOST,
        }
    }

    /// Of KiB over NVLink: 64 bits, always.
    pub(super) fn nvlink() -> Self {
        Self {
            last: None,
            wide: true,
            most: f64::INFINITY,
        }
    }

    /// Units a second since the last reading, of both; `None` the first time.
    pub(super) fn read(&mut self, now: Instant, out: u64, into: u64) -> Option<(f64, f64)> {
        self.wide |= out >= NARROW || into >= NARROW;
        let (then, last_out, last_into) = self.last.replace((now, out, into))?;
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        // Of two that have both gone back, neither has wrapped: that is a reset. If they have, they do so at nearly every poll.
        if out < last_out && into < last_into {
            return None;
        }
        let out = self.grown(last_out, out)? as f64 / seconds;
        let into = self.grown(last_into, into)? as f64 / seconds;
        (out <= self.most && into <= self.most).then_some((out, into))
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
        let mut meter = Meter::pcie();
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
    #[test]
    fn nvlink_counters_do_not_wrap() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::nvlink();
        assert_eq!(meter.read(at(0), 3_000_000, 10), None);
        assert_eq!(meter.read(at(1), 0, 20), None, "reset");
        assert_eq!(meter.read(at(2), 7, 20), Some((7.0, 0.0)));
    }

    #[test]
    fn what_cannot_be_is_no_rate() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = Meter::pcie();
        assert_eq!(meter.read(at(0), 3_000_000, 3_000_000), None);
        assert_eq!(meter.read(at(200), 0, 0), None, "both were reset");
        assert_eq!(meter.read(at(1200), 7, 8), Some((7.0, 8.0)));
        assert_eq!(meter.read(at(1210), 0, 8), None, "4 GB in 10 ms");
        assert_eq!(meter.read(at(1220), 0, 8), Some((0.0, 0.0)));
    }
}
