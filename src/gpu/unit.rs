//! Units: what NVML gives, and what each naming profile shows.

/// The unit in which a family is shown, and with it the way there from the unit in which NVML gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things, a code or a bit mask.
    Count,
    /// °C, as NVML has it.
    Celsius,
    /// From milliwatts.
    Watts,
    /// As NVML has it.
    Millijoules,
    /// From millijoules.
    Joules,
    /// As NVML has it.
    Megahertz,
    /// From megahertz.
    Hertz,
    /// 0 to 100, as NVML has it.
    Percent,
    /// 0 to 1, from percent.
    Ratio,
    /// 0 to 1 already.
    Fraction,
    /// From bytes, cut off as DCGM does.
    Mebibytes,
    /// As NVML has it.
    Bytes,
    /// 1024 bytes a second, from bytes a second.
    KibibytesPerSecond,
    /// 1 000 000 bytes a second, from bytes a second.
    MegabytesPerSecond,
    /// As it is.
    BytesPerSecond,
    /// As NVML has it.
    Nanoseconds,
}

impl Unit {
    /// As the help text says it; empty for a mere number.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Celsius => "C",
            Self::Watts => "W",
            Self::Millijoules => "mJ",
            Self::Joules => "J",
            Self::Megahertz => "MHz",
            Self::Hertz => "Hz",
            Self::Percent => "%",
            Self::Ratio | Self::Fraction => "0 to 1",
            Self::Mebibytes => "MiB",
            Self::Bytes => "bytes",
            Self::KibibytesPerSecond => "KB/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::BytesPerSecond => "bytes/s",
            Self::Nanoseconds => "ns",
        }
    }

    /// From what NVML gives.
    #[must_use]
    pub fn convert(self, raw: f64) -> f64 {
        match self {
            Self::Count
            | Self::Celsius
            | Self::Millijoules
            | Self::Megahertz
            | Self::Percent
            | Self::Fraction
            | Self::Bytes
            | Self::BytesPerSecond
            | Self::Nanoseconds => raw,
            Self::Watts | Self::Joules => raw / 1e3,
            Self::Hertz => raw * 1e6,
            Self::Ratio => raw / 100.0,
            Self::Mebibytes => (raw / 1_048_576.0).trunc(),
            Self::KibibytesPerSecond => raw / 1024.0,
            Self::MegabytesPerSecond => raw / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        for (unit, raw, shown) in [
            (Unit::Watts, 347_250.0, 347.25),
            (Unit::Joules, 1_234_567.0, 1_234.567),
            (Unit::Millijoules, 1_234_567.0, 1_234_567.0),
            (Unit::Hertz, 1_980.0, 1_980_000_000.0),
            (Unit::Ratio, 57.0, 0.57),
            (Unit::Mebibytes, 85_520_809_983.0, 81_558.0),
            (Unit::KibibytesPerSecond, 2_048.0, 2.0),
            (Unit::MegabytesPerSecond, 2_500_000.0, 2.5),
        ] {
            assert!((unit.convert(raw) - shown).abs() < 1e-9, "{unit:?}");
        }
    }
}
