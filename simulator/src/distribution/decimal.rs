//! [`Decimal`]: a number with up to three digits after the point, exactly.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number from 0 to 1,000,000,000 with up to three digits after the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(u64);

/// Why a text is no [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number from 0 to 1000000000 with up to three digits after the point")]
pub struct DecimalError;

const THOUSANDTHS_MAX: u64 = 1_000_000_000_000;

impl Decimal {
    /// So many thousandths.
    pub const fn from_thousandths(thousandths: u64) -> Self {
        Self(thousandths)
    }

    /// In thousandths.
    pub const fn thousandths(self) -> u64 {
        self.0
    }
}

impl Display for Decimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:03}", self.0 % 1_000);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}", self.0 / 1_000),
            digits => write!(f, "{}.{digits}", self.0 / 1_000),
        }
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let fraction = fraction.trim_end_matches('0');
        if !digits(whole) || fraction.len() > 3 || !(fraction.is_empty() || digits(fraction)) {
            return Err(DecimalError);
        }
        let whole: u64 = whole.parse().map_err(|_| DecimalError)?;
        let part: u64 = format!("{fraction:0<3}").parse().map_err(|_| DecimalError)?;
        match whole.checked_mul(1_000).map(|w| w + part) {
            Some(thousandths) if thousandths <= THOUSANDTHS_MAX => Ok(Self(thousandths)),
            _ => Err(DecimalError),
        }
    }
}

impl Serialize for Decimal {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            serializer.serialize_u64(self.0 / 1_000)
        } else {
            serializer.serialize_f64(self.0 as f64 / 1_000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl Visitor<'_> for Written {
    type Value = Decimal;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        DecimalError.fmt(f)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Decimal, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Decimal, E> {
        number.to_string().parse().map_err(E::custom)
    }

    /// The shortest text of a number is the one it was read from.
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Decimal, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_short_numbers_are_taken() {
        for (text, thousandths) in
            [("0", 0), ("99.9", 99_900), ("1.001", 1_001), ("2.5000", 2_500), ("7.", 7_000)]
        {
            assert_eq!(text.parse(), Ok(Decimal(thousandths)), "{text}");
        }
        for text in ["", ".5", "-1", "1e3", "0.0001", "1.2.3", "1000000001", "nan"] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(thousandths in 0..=THOUSANDTHS_MAX) {
            let number = Decimal(thousandths);
            prop_assert_eq!(number.to_string().parse(), Ok(number));
            let json = serde_json::to_string(&number).unwrap();
            prop_assert_eq!(serde_json::from_str::<Decimal>(&json).unwrap(), number);
        }
    }
}
