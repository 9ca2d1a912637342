//! Waiting for something that others do.

use std::thread;
use std::time::{Duration, Instant};

/// Looks until there is what was looked for, or `until` has come; `pause` apart. It is looked at
/// least once, and the last look is not earlier than `until`.
///
/// # Errors
/// What was missing at the last look.
pub fn poll<T, E>(
    until: Instant,
    pause: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        // Before the look, so that what comes at the last moment is still seen.
        let last = Instant::now() >= until;
        match look() {
            Err(_) if !last => thread::sleep(pause),
            found => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_until_there_is_something() {
        let mut looks = 0;
        let until = Instant::now() + Duration::from_secs(60);
        let found = poll(until, Duration::ZERO, || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(()) }
        });
        assert_eq!(found, Ok(3));
    }

    #[test]
    fn the_last_look_says_what_is_missing() {
        let mut looks = 0;
        let found: Result<(), _> = poll(Instant::now(), Duration::from_secs(60), || {
            looks += 1;
            Err(looks)
        });
        assert_eq!(found, Err(1));
    }
}
