//! The one clock of a process: wall-clock time that never goes back.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use api::Time;

/// Reads wall-clock time once and the monotonic clock from then on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Time,
    since: Instant,
}

impl Clock {
    /// Starts at the present wall-clock time.
    pub fn new() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Time::ZERO + elapsed, since: Instant::now() }
    }

    /// The present time.
    pub fn now(&self) -> Time {
        self.start + self.since.elapsed()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
