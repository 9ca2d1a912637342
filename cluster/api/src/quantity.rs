//! Kubernetes quantities (`250m`, `1.5Gi`, `1e3`) and the compact units derived from them.
//!
//! Source: kubernetes 1.33, `k8s.io/apimachinery/pkg/api/resource`.

use serde::{Deserialize, Serialize};

/// CPU in thousandths of a core.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MilliCpu(pub i64);

/// Memory or storage in bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Bytes(pub i64);

/// How a quantity is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// An exact amount, in units of 10⁻⁹, with the notation it was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why text is no quantity; worded as Kubernetes words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct QuantityError;

const NANO: i128 = 1_000_000_000;
/// Amounts saturate here (2⁶³−1 whole units), as they do in Kubernetes.
const LIMIT: i128 = (i64::MAX as i128) * NANO;

const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl Quantity {
    /// Parses a quantity. Precision beyond 10⁻⁹ is rounded up, size beyond 2⁶³ saturates.
    ///
    /// # Errors
    /// The text does not match Kubernetes' grammar.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if let Some(plain) = Self::parse_plain(text.as_bytes()) {
            return Ok(plain);
        }
        let text = text.trim();
        let end = text
            .char_indices()
            .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && "+-".contains(*c))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(end);
        let (negative, digits) = match number.as_bytes().first() {
            Some(b'-') => (true, &number[1..]),
            Some(b'+') => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (format, exponent, shift) = parse_suffix(suffix)?;
        let magnitude = scale(whole, fraction, exponent, shift);
        let nano = if negative { -magnitude } else { magnitude };
        Ok(Self { nano, format })
    }

    /// What most quantities are: a few digits, and a unit that everybody knows.
    fn parse_plain(text: &[u8]) -> Option<Self> {
        let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        let (number, suffix) = text.split_at(digits);
        let (format, unit) = match suffix {
            b"" => (Format::DecimalSi, NANO),
            b"m" => (Format::DecimalSi, NANO / 1_000),
            b"Ki" => (Format::BinarySi, NANO << 10),
            b"Mi" => (Format::BinarySi, NANO << 20),
            b"Gi" => (Format::BinarySi, NANO << 30),
            _ => return None,
        };
        let number = number.iter().fold(0_u64, |n, b| n * 10 + u64::from(b - b'0'));
        Some(Self { nano: i128::from(number) * unit, format })
    }

    /// A whole amount in decimal notation.
    pub const fn whole(value: i64) -> Self {
        Self { nano: value as i128 * NANO, format: Format::DecimalSi }
    }

    /// Thousandths in decimal notation.
    pub const fn from_milli(value: i64) -> Self {
        Self { nano: value as i128 * (NANO / 1_000), format: Format::DecimalSi }
    }

    /// A whole amount in binary notation (`Ki`, `Mi`, …).
    pub const fn from_bytes(value: i64) -> Self {
        Self { nano: value as i128 * NANO, format: Format::BinarySi }
    }

    /// Whole units, rounded up.
    pub fn value(self) -> i64 {
        saturate(div_ceil(self.nano, NANO))
    }

    /// Thousandths, rounded up.
    pub fn milli(self) -> i64 {
        saturate(div_ceil(self.nano, NANO / 1_000))
    }

    /// As CPU.
    pub fn cpu(self) -> MilliCpu {
        MilliCpu(self.milli())
    }

    /// As bytes.
    pub fn bytes(self) -> Bytes {
        Bytes(self.value())
    }

    /// Billionths in decimal notation.
    pub const fn from_nano(value: i64) -> Self {
        Self { nano: value as i128, format: Format::DecimalSi }
    }

    /// The sum, in the notation of the first unless that is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(self.nano + other.nano, other.format)
    }

    /// The difference, in the notation of the first unless that is zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.with(self.nano - other.nano, other.format)
    }

    fn with(self, nano: i128, format: Format) -> Self {
        let format = if self.is_zero() { format } else { self.format };
        Self { nano: nano.clamp(-LIMIT, LIMIT), format }
    }

    /// Whether the amount is below zero.
    pub const fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Whether the amount is zero.
    pub const fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// The exact amount in units of 10⁻⁹, for comparison.
    pub const fn nano(self) -> i128 {
        self.nano
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl std::fmt::Display for Quantity {
    /// Writes the canonical form: the largest suffix that leaves a whole number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nano % NANO == 0 {
            let whole = self.nano / NANO;
            // Kubernetes falls back to decimal notation for small binary amounts.
            if whole.abs() >= 1024 {
                let (suffix, bits) = BINARY
                    .iter()
                    .rev()
                    .find(|(_, bits)| whole % (1_i128 << bits) == 0)
                    .map_or(("", 0), |(s, b)| (*s, *b));
                return write!(f, "{}{suffix}", whole >> bits);
            }
            return write!(f, "{whole}");
        }
        let (suffix, power) = DECIMAL
            .iter()
            .rev()
            .find(|(_, power)| self.nano % pow10(power + 9) == 0)
            .copied()
            .unwrap_or(("n", -9));
        let amount = self.nano / pow10(power + 9);
        match self.format {
            Format::DecimalExponent if power != 0 => write!(f, "{amount}e{power}"),
            _ => write!(f, "{amount}{suffix}"),
        }
    }
}

/// Returns the notation, the power of ten and the power of two of a suffix.
fn parse_suffix(suffix: &str) -> Result<(Format, i32, u32), QuantityError> {
    if let Some((_, bits)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::BinarySi, 0, *bits));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::DecimalSi, *power, 0));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let power: i32 = exponent.parse().map_err(|_| QuantityError)?;
    Ok((Format::DecimalExponent, power, 0))
}

/// `whole.fraction × 10^exponent × 2^shift` in units of 10⁻⁹, rounded up, at most [`LIMIT`].
fn scale(whole: &str, fraction: &str, exponent: i32, shift: u32) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let mut mantissa: i128 = 0;
    let mut dropped = 0;
    let mut rounded = false;
    for digit in whole.bytes().chain(fraction.bytes()) {
        // 24 digits hold every representable amount; more can only round or saturate.
        if mantissa < 10_i128.pow(23) {
            mantissa = mantissa * 10 + i128::from(digit - b'0');
        } else {
            dropped += 1;
            rounded |= digit != b'0';
        }
    }
    if mantissa == 0 {
        return 0;
    }
    let fraction_len = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let power = exponent.saturating_add(dropped).saturating_sub(fraction_len).saturating_add(9);
    let shifted = mantissa.saturating_mul(1_i128 << shift);
    let nano = match power {
        0.. => shifted.saturating_mul(10_i128.checked_pow(power.unsigned_abs()).unwrap_or(LIMIT)),
        _ => match 10_i128.checked_pow(power.unsigned_abs()) {
            Some(divisor) => div_ceil(shifted, divisor),
            None => 1,
        },
    };
    nano.saturating_add(i128::from(rounded && power <= 0)).min(LIMIT)
}

const fn pow10(power: i32) -> i128 {
    10_i128.pow(power.unsigned_abs())
}

const fn div_ceil(a: i128, b: i128) -> i128 {
    let quotient = a / b;
    if a % b > 0 { quotient + 1 } else { quotient }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        let check = |text: &str, canonical: &str, value: i64, milli: i64| {
            let q = Quantity::parse(text).unwrap();
            assert_eq!(q.to_string(), canonical, "{text}");
            assert_eq!((q.value(), q.milli()), (value, milli), "{text}");
        };
        check("0.5", "500m", 1, 500);
        check("1000m", "1", 1, 1000);
        check("250m", "250m", 1, 250);
        check("1Gi", "1Gi", 1 << 30, (1 << 30) * 1000);
        check("1024Mi", "1Gi", 1 << 30, (1 << 30) * 1000);
        check("1.5Gi", "1536Mi", 3 << 29, (3 << 29) * 1000);
        check("100", "100", 100, 100_000);
        check("1e3", "1e3", 1000, 1_000_000);
        check("5k", "5k", 5000, 5_000_000);
        check("-1", "-1", -1, -1000);
        check("0", "0", 0, 0);
        check("0.1n", "1n", 1, 1);
        check("16384E", "9223372036854775807", i64::MAX, i64::MAX);
    }

    #[test]
    fn what_is_no_quantity() {
        for text in ["", "a", "1.2.3", "1Gb", "--1", "1e", ".", "1 Gi", "0x1"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn plain_quantities_are_what_others_are(number in "[0-9]{1,9}", unit in 0_usize..5) {
            let unit = ["", "m", "Ki", "Mi", "Gi"][unit];
            let plain = Quantity::parse(&format!("{number}{unit}")).unwrap();
            // A sign is not plain.
            prop_assert_eq!(plain, Quantity::parse(&format!("+{number}{unit}")).unwrap());
        }

        #[test]
        fn never_panics(text in "[-+]?[0-9.eEinumkKMGTP+-]{0,40}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn canonical_text_is_a_fixed_point(value in 0_i64..1 << 40, suffix in 0_usize..6) {
            let suffix = ["m", "", "k", "Ki", "Mi", "u"][suffix];
            let q = Quantity::parse(&format!("{value}{suffix}")).unwrap();
            let again = Quantity::parse(&q.to_string()).unwrap();
            prop_assert_eq!(q.nano(), again.nano());
            prop_assert_eq!(q.to_string(), again.to_string());
        }
    }
}
