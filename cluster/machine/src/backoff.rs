//! Exponential back-off as a function of the number of failures.

use std::time::Duration;

/// Doubles from `first` to `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// No delay is longer.
    pub max: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row; zero after none.
    pub fn delay(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        self.first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_saturates() {
        let b = Backoff { first: Duration::from_millis(10), max: Duration::from_secs(1) };
        let ms: Vec<u128> = [0, 1, 2, 3, 8, 40, 400].map(|n| b.delay(n).as_millis()).into();
        assert_eq!(ms, [0, 10, 20, 40, 1000, 1000, 1000]);
    }
}
