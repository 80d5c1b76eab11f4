//! Numbers, quickly: most of an exposition is small whole ones.

use std::io::Write as _;

/// As both formats have it: the shortest form that reads back the same.
pub(super) fn write(value: f64, out: &mut Vec<u8>) {
    // Below 2^53 a whole number is exact.
    if value.fract() == 0.0 && (0.0..9e15).contains(&value) && value.is_sign_positive() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, positive and small"
        )]
        return whole(value as u64, out);
    }
    let _infallible = if value == f64::INFINITY {
        write!(out, "+Inf")
    } else if value == f64::NEG_INFINITY {
        write!(out, "-Inf")
    } else {
        // NaN is NaN.
        write!(out, "{value}")
    };
}

/// A whole number.
pub(super) fn whole(mut value: u64, out: &mut Vec<u8>) {
    // 2^64 has 20 digits.
    let mut digits = [0; 20];
    let mut left = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        left -= 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(left..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_the_same() {
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (1234567890123.0, "1234567890123"),
            (0.25, "0.25"),
            (-3.0, "-3"),
            (1e300, &format!("{}", 1e300)),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = Vec::new();
            write(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        let mut out = Vec::new();
        whole(u64::MAX, &mut out);
        assert_eq!(out, u64::MAX.to_string().as_bytes());
    }
}
