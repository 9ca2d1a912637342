//! Waiting for a condition.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks at something that sends no event.
const PAUSE: Duration = Duration::from_millis(200);

/// Repeats `attempt` until it succeeds and returns how long that took.
///
/// # Errors
/// It did not succeed within `limit`; the error is that of the last attempt.
pub async fn eventually<T, F>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<(T, Duration)>
where
    F: Future<Output = Result<T>>,
{
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(error) if start.elapsed() > limit => {
                bail!("{what}: not within {limit:?}: {error:#}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
