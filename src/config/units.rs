//! Sizes and durations as people write them.

use std::time::Duration;

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;

/// Longer is a slip, and the sum of an `Instant` and `Duration::MAX` panics.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Bare `K` and `M` are not among them: half of the world reads them as 1000.
const UNITS: &[(&str, u64)] = &[
    ("GiB", 1024 * MIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// `65536`, `64KiB`, `64 kib`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let unit = text.get(digits..)?.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// With the largest binary unit that leaves a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(name, factor)| {
        name.ends_with("iB") && bytes >= *factor && bytes.is_multiple_of(*factor)
    });
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// `3s`, `3.5s`, `1h 30m`; of the bare numbers only 0, which needs no unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST {
        Err("longer than a year".to_owned())
    } else {
        Ok(duration)
    }
}

/// So that [`parse_duration`] reads it back.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("65536", Some(65536)),
            ("64KiB", Some(64 * KIB)),
            ("64 kib", Some(64 * KIB)),
            ("4MiB", Some(4 * MIB)),
            ("1GiB", Some(1024 * MIB)),
            ("10MB", Some(10_000_000)),
            ("1kB", Some(1000)),
            ("7B", Some(7)),
            ("", None),
            ("KiB", None),
            ("64K", None),
            ("64M", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1 MiB x", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
        for (bytes, want) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1KiB"),
            (1536, "1536"),
            (64 * KIB, "64KiB"),
            (4 * MIB, "4MiB"),
            (1024 * MIB, "1GiB"),
        ] {
            assert_eq!(show_size(bytes), want);
            assert_eq!(parse_size(want), Some(bytes));
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("3s", Duration::from_secs(3)),
            ("3.5s", Duration::from_millis(3500)),
            ("3500ms", Duration::from_millis(3500)),
            ("10m", Duration::from_secs(600)),
            ("1h 30m", Duration::from_secs(5400)),
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse_duration(text), Ok(want), "{text}");
            assert_eq!(parse_duration(&show_duration(want)), Ok(want));
        }
        for text in [
            "",
            "3",
            "s",
            "-3s",
            "3 parsecs",
            "2years",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
