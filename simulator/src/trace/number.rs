//! Decimal numbers of traces, without floating point.

/// The number times `10^digits`, cut off behind; `None` when it is none or too large.
pub(super) fn scaled(text: &str, digits: u32) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !plain(whole) || !plain(fraction) {
        return None;
    }
    // How many digits stand before the point when all is multiplied.
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(digits);
    let all = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat(b'0'));
    let point = usize::try_from(point.max(0)).ok()?;
    let known = whole.len() + fraction.len();
    let mut number = 0_i128;
    for (i, digit) in all.take(point).enumerate() {
        number = number.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        if i >= known && number == 0 {
            return Some(0);
        }
    }
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_read_in_all_notations() {
        for (text, expected) in [
            ("1", 1_000),
            ("-0.5", -500),
            ("+12.3456", 12_345),
            (".25", 250),
            ("3.", 3_000),
            ("1.5e-3", 1),
            ("2e+2", 200_000),
            ("0e999", 0),
            ("1e-99", 0),
        ] {
            assert_eq!(scaled(text, 3), Some(expected), "{text}");
        }
        for text in ["", ".", "-", "1,5", "1e", "nan", "0x1", " 1", "1e99", "1e999999999"] {
            assert_eq!(scaled(text, 3), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn thousandths_are_exact(number in -1_000_000_000_i64..1_000_000_000) {
            let sign = if number < 0 { "-" } else { "" };
            let size = number.abs();
            let text = format!("{sign}{}.{:03}", size / 1_000, size % 1_000);
            prop_assert_eq!(scaled(&text, 3), Some(number.into()));
        }
    }
}
