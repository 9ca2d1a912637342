//! Powers, logarithms and the normal distribution with integers alone: `exp` and `ln` of floating
//! point differ between platforms, and a run must not.
//!
//! Numbers are fixed point with [`BITS`] bits after the point; results are right to one part in a
//! million, the normal distribution to one in a thousand.

/// Bits after the point.
pub(super) const BITS: u32 = 32;
/// One.
pub(super) const ONE: u64 = 1 << BITS;
/// The natural logarithm of two.
pub(super) const LN_2: u64 = 2_977_044_472;
/// How many standard deviations the 99th percentile is above the median, in 1/65536.
pub(super) const Z_99: i64 = 152_460;

/// Steps of [`POWERS`] from one power of two to the next.
const STEPS: usize = 256;

/// `2^(i/256)`.
const POWERS: [u64; STEPS + 1] = powers();

/// By how many standard deviations, in 1/65536, a draw is above the median that is exceeded with a
/// probability of `2^-(1 + i/8) * (1 - (i%8)/16)`: eight steps for each halving, down to one draw
/// in 65,536, where the distribution is cut off.
#[rustfmt::skip]
const NORMAL: [i64; 121] = [
    0, 5_139, 10_310, 15_545, 20_882, 26_362, 32_032, 37_954, 44_203, 47_482,
    50_884, 54_428, 58_140, 62_048, 66_191, 70_616, 75_389, 77_933, 80_600, 83_408,
    86_377, 89_536, 92_917, 96_565, 100_540, 102_675, 104_924, 107_304, 109_834, 112_540,
    115_453, 118_613, 122_076, 123_944, 125_918, 128_013, 130_248, 132_646, 135_235, 138_055,
    141_156, 142_834, 144_610, 146_500, 148_519, 150_691, 153_042, 155_608, 158_437, 159_970,
    161_597, 163_329, 165_184, 167_181, 169_346, 171_714, 174_330, 175_750, 177_257, 178_865,
    180_588, 182_445, 184_462, 186_670, 189_113, 190_440, 191_851, 193_356, 194_971, 196_714,
    198_608, 200_683, 202_983, 204_233, 205_563, 206_982, 208_507, 210_153, 211_943, 213_907,
    216_085, 217_270, 218_531, 219_878, 221_325, 222_888, 224_590, 226_458, 228_531, 229_660,
    230_861, 232_145, 233_525, 235_017, 236_642, 238_426, 240_408, 241_487, 242_636, 243_865,
    245_187, 246_616, 248_173, 249_884, 251_785, 252_821, 253_924, 255_104, 256_374, 257_747,
    259_244, 260_890, 262_719, 263_716, 264_779, 265_915, 267_138, 268_462, 269_905, 271_492,
    273_257,
];

const fn powers() -> [u64; STEPS + 1] {
    // With 62 bits after the point: eight square roots of two give 2^(1/256).
    let mut step: u128 = 2 << 62;
    let mut roots = 0;
    while roots < STEPS.trailing_zeros() {
        step = (step << 62).isqrt();
        roots += 1;
    }
    let mut table = [0; STEPS + 1];
    let mut power: u128 = 1 << 62;
    let mut i = 0;
    while i < STEPS {
        #[expect(clippy::cast_possible_truncation, reason = "less than two with 32 bits")]
        let rounded = ((power + (1 << 29)) >> 30) as u64;
        table[i] = rounded;
        power = (power * step) >> 62;
        i += 1;
    }
    table[STEPS] = 2 * ONE;
    table
}

/// The logarithm to base two, of 1 when the number is 0.
pub(super) fn log2(number: u64) -> u64 {
    let zeros = number.max(1).leading_zeros();
    // Between one and two.
    let mantissa = (number.max(1) << zeros) >> 31;
    let i = POWERS.partition_point(|p| *p <= mantissa).saturating_sub(1).min(STEPS - 1);
    let part = ((mantissa - POWERS[i]) << 24) / (POWERS[i + 1] - POWERS[i]);
    (u64::from(63 - zeros) << BITS) + (u64::try_from(i).unwrap_or(0) << 24) + part
}

/// `number * 2^exponent`, at most `u64::MAX`.
pub(super) fn times_power_of_two(number: u64, exponent: i64) -> u64 {
    let whole = exponent >> BITS;
    let rest = u64::try_from(exponent & ((1 << BITS) - 1)).unwrap_or(0);
    let i = usize::try_from(rest >> 24).unwrap_or(0);
    let part = rest & ((1 << 24) - 1);
    let power = POWERS[i] + (((POWERS[i + 1] - POWERS[i]) * part) >> 24);
    let product = u128::from(number) * u128::from(power);
    let shifted = match i64::from(BITS) - whole {
        right @ 0..128 => product >> right,
        left @ -63..0
            if product.leading_zeros() >= left.unsigned_abs().try_into().unwrap_or(128) =>
        {
            product << -left
        }
        128.. => 0,
        _ => u128::MAX,
    };
    u64::try_from(shifted).unwrap_or(u64::MAX)
}

/// The value of the normal distribution, in 1/65536 of its standard deviation, at `fraction/2^64`.
pub(super) fn normal(fraction: u64) -> i64 {
    let half = 1 << 63;
    if fraction < half { -above(fraction) } else { above((!fraction).saturating_add(1)) }
}

/// The value that is exceeded with a probability of `tail/2^64`, of at most a half.
fn above(tail: u64) -> i64 {
    let last = NORMAL[NORMAL.len() - 1];
    // One half has one zero less than a quarter.
    let tail = tail.min(1 << 63);
    let octave = match tail.checked_sub(1) {
        None => return last,
        Some(less) => usize::try_from(less.leading_zeros()).unwrap_or(0).saturating_sub(1),
    };
    let index = octave * 8;
    if index + 8 >= NORMAL.len() {
        return last;
    }
    // The octave goes down from `top` to half of it in eight steps.
    let top = 1_u64 << (63 - octave);
    let step = top / 16;
    let down = top - tail;
    let i = usize::try_from(down / step).unwrap_or(0).min(7);
    let rest = i128::from(down - step * u64::try_from(i).unwrap_or(0));
    let (low, high) = (NORMAL[index + i], NORMAL[index + i + 1]);
    low + i64::try_from(i128::from(high - low) * rest / i128::from(step)).unwrap_or(0)
}

#[cfg(test)]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "compares with floating point"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(log2(1), 0);
        assert_eq!(log2(1 << 40), 40 << BITS);
        assert_eq!(times_power_of_two(5, 3 << BITS), 40);
        assert_eq!(times_power_of_two(40, -(3 << BITS)), 5);
        assert_eq!(times_power_of_two(u64::MAX, 1 << BITS), u64::MAX);
        assert_eq!(times_power_of_two(1, 64 << BITS), u64::MAX);
        assert_eq!(times_power_of_two(1, 3_000 << BITS), u64::MAX);
        assert_eq!(times_power_of_two(u64::MAX, -(200 << BITS)), 0);
        assert_eq!(normal(1 << 63), 0);
        assert_eq!(normal(u64::MAX), 273_257);
        assert_eq!(normal(0), -273_257);
        let at_99 = u64::MAX / 100 * 99;
        assert!((normal(at_99) - Z_99).abs() < 70, "{}", normal(at_99));
    }

    proptest! {
        #[test]
        fn logarithms_are_those_of_floating_point(number in 1..u64::MAX) {
            let exact = (number as f64).log2();
            let ours = log2(number) as f64 / ONE as f64;
            prop_assert!((exact - ours).abs() < 2e-6, "{exact} {ours}");
        }

        #[test]
        fn powers_are_those_of_floating_point(number in 1_u64..1 << 40, exponent in -10.0..20.0) {
            let exact = number as f64 * f64::powf(2.0, exponent);
            let ours = times_power_of_two(number, (exponent * ONE as f64) as i64) as f64;
            prop_assert!((exact - ours).abs() <= 1.0 + exact * 2e-6, "{exact} {ours}");
        }

        #[test]
        fn the_normal_distribution_rises_evenly(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(normal(a.min(b)) <= normal(a.max(b)));
            prop_assert_eq!(normal(a), -normal((!a).saturating_add(1)));
        }
    }
}
