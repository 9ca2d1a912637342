//! Confidence intervals of means of few values.

/// Student's t at 97.5 % by degrees of freedom from 1 on, so that 95 % are within.
const T: [f64; 28] = [
    12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004,
    2.262_157, 2.228_139, 2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_450, 2.119_905,
    2.109_816, 2.100_922, 2.093_024, 2.085_963, 2.079_614, 2.073_873, 2.068_658, 2.063_899,
    2.059_539, 2.055_529, 2.051_831, 2.048_407,
];
/// The normal distribution's, from thirty values on.
const NORMAL: f64 = 1.959_964;

/// Half the width of the 95 % confidence interval of the values' mean; `None` for fewer than two
/// values, which do not say how much they vary.
pub(super) fn half_width(values: &[f64]) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|f| *f > 0)?;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / freedom as f64 / values.len() as f64).sqrt();
    Some(T.get(freedom - 1).copied().unwrap_or(NORMAL) * error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_have_wide_intervals() {
        let near = |found: Option<f64>, expected: f64| {
            let found = found.unwrap();
            assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
        };
        assert_eq!(half_width(&[]), None);
        assert_eq!(half_width(&[3.0]), None);
        // Deviation √2, error 1.
        near(half_width(&[1.0, 3.0]), 12.7062);
        // Deviation √2.5, error √0.5.
        near(half_width(&[1.0, 2.0, 3.0, 4.0, 5.0]), 2.776_445 * 0.5_f64.sqrt());
        // Alternating 0 and 1: of thirty values the variance is 7.5/29, of 29 it is 7.2414/28.
        let values: Vec<f64> = (0..30).map(|i| f64::from(i % 2)).collect();
        near(half_width(&values), 1.959_964 * (7.5_f64 / 29.0 / 30.0).sqrt());
        near(half_width(&values[..29]), 2.048_407 * (7.241_379_f64 / 28.0 / 29.0).sqrt());
    }

    #[test]
    fn the_quantiles_fall_towards_the_normal_one() {
        let mut quantiles = T.to_vec();
        quantiles.push(NORMAL);
        assert!(quantiles.windows(2).all(|pair| pair[0] > pair[1]));
    }
}
