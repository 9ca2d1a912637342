//! A container's log as one plain text stream.
//!
//! Source: kubernetes 1.33, `pkg/kubelet/server/server.go` (`getContainerLogs`) and
//! `pkg/apis/core/validation` (`ValidatePodLogOptions`).

use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::LogsOptions;
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;

use super::answer::{Answer, BodyError, Refusal, of_type, whole};
use super::query::Query;

/// Which part of a log is wanted, and whether what is still to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Goes on until the container ends.
    pub(crate) follow: bool,
    /// Of the attempt before the present one.
    pub(crate) previous: bool,
    /// Puts the time before each line.
    pub(crate) timestamps: bool,
    /// Only lines from this second on, since the Unix epoch.
    pub(crate) since_secs: Option<i64>,
    /// Only this many lines from the end.
    pub(crate) tail_lines: Option<u64>,
    /// Ends after this many bytes.
    pub(crate) limit_bytes: Option<u64>,
}

impl LogOptions {
    /// Reads a query.
    pub(crate) fn parse(query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let undecodable = || Refusal::bad_request(r#"{"message": "Unable to decode query."}"#);
        let number = |name: &str| -> Result<Option<i64>, Refusal> {
            match query.get(name) {
                None | Some("") => Ok(None),
                Some(text) => text.parse().map(Some).map_err(|_| undecodable()),
            }
        };
        let (since_seconds, tail, limit) =
            (number("sinceSeconds")?, number("tailLines")?, number("limitBytes")?);
        let since_time = match query.get("sinceTime") {
            None | Some("") => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| undecodable())?),
        };
        let invalid = since_seconds.is_some_and(|n| n < 1)
            || tail.is_some_and(|n| n < 0)
            || limit.is_some_and(|n| n < 1)
            || (since_seconds.is_some() && since_time.is_some());
        if invalid {
            let message = r#"{"message": "Invalid request."}"#;
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
        let ago = since_seconds.and_then(|n| u64::try_from(n).ok()).map(Duration::from_secs);
        let since = ago.map(|ago| now.as_second() - i64::try_from(ago.as_secs()).unwrap_or(0));
        Ok(Self {
            follow: query.switch("follow"),
            previous: query.switch("previous"),
            timestamps: query.switch("timestamps"),
            since_secs: since.or(since_time.map(Timestamp::as_second)),
            tail_lines: tail.and_then(|n| u64::try_from(n).ok()),
            limit_bytes: limit.and_then(|n| u64::try_from(n).ok()),
        })
    }

    fn for_docker(&self) -> LogsOptions {
        // The runtime takes 32 bits; what is before its time is everything.
        let since = self.since_secs.unwrap_or_default().max(0);
        LogsOptions {
            follow: self.follow,
            stdout: true,
            stderr: true,
            since: i32::try_from(since).unwrap_or(i32::MAX),
            until: 0,
            timestamps: self.timestamps,
            tail: self.tail_lines.map_or_else(|| "all".to_owned(), |n| n.to_string()),
        }
    }
}

/// Streams the log of a container; both its streams in the order they were written.
pub(crate) fn answer(docker: &Docker, id: &str, options: &LogOptions) -> Answer {
    const TEXT: &str = "text/plain";
    if options.tail_lines == Some(0) && !options.follow {
        return of_type(StatusCode::OK, TEXT, whole(""));
    }
    let lines = docker
        .logs(id, Some(options.for_docker()))
        .map(|item| item.map(|line| line.into_bytes()).map_err(BodyError::from));
    let frames = cut(lines, options.limit_bytes).map(|item| item.map(Frame::data));
    of_type(StatusCode::OK, TEXT, StreamBody::new(frames).boxed_unsync())
}

/// Ends a stream after a number of bytes.
fn cut<S>(
    lines: S,
    limit: Option<u64>,
) -> impl stream::Stream<Item = Result<Bytes, BodyError>> + Send
where
    S: stream::Stream<Item = Result<Bytes, BodyError>> + Send,
{
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    lines.scan(limit, |left, item| {
        if *left == 0 {
            return future::ready(None);
        }
        future::ready(Some(item.map(|mut bytes| {
            bytes.truncate(*left);
            *left -= bytes.len();
            bytes
        })))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str) -> Result<LogOptions, StatusCode> {
        let now = Timestamp::from_second(1_000_000).unwrap();
        LogOptions::parse(&Query::parse(query), now).map_err(|refusal| refusal.code)
    }

    #[test]
    fn options() {
        let options = check("follow=true&tailLines=0&sinceSeconds=10&limitBytes=7").unwrap();
        assert_eq!(
            options,
            LogOptions {
                follow: true,
                since_secs: Some(999_990),
                tail_lines: Some(0),
                limit_bytes: Some(7),
                ..LogOptions::default()
            }
        );
        let docker = options.for_docker();
        assert_eq!((docker.since, docker.tail.as_str()), (999_990, "0"));
        let options = check("sinceTime=1970-01-01T00:00:05Z&timestamps=true&previous=1").unwrap();
        assert_eq!(options.since_secs, Some(5));
        assert!(options.timestamps && options.previous && !options.follow);
        assert_eq!(options.for_docker().tail, "all");
        assert_eq!(check("").unwrap(), LogOptions::default());
        for bad in ["tailLines=x", "sinceTime=yesterday", "limitBytes=1.5"] {
            assert_eq!(check(bad), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
        for bad in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceSeconds=1&sinceTime=1970-01-01T00:00:05Z",
        ] {
            assert_eq!(check(bad), Err(StatusCode::UNPROCESSABLE_ENTITY), "{bad}");
        }
        let far = check(&format!("sinceSeconds={}", i64::MAX)).unwrap();
        assert_eq!(far.for_docker().since, 0);
    }

    #[tokio::test]
    async fn limits_cut_in_the_middle_of_a_line() {
        let lines = ["abc\n", "def\n", "ghi\n"];
        let cut_at = async |limit| {
            let lines = stream::iter(lines).map(|l| Ok(Bytes::from_static(l.as_bytes())));
            let got: Vec<_> = cut(lines, limit).map(Result::unwrap).collect().await;
            String::from_utf8(got.concat()).unwrap()
        };
        assert_eq!(cut_at(None).await, "abc\ndef\nghi\n");
        assert_eq!(cut_at(Some(6)).await, "abc\nde");
        assert_eq!(cut_at(Some(4)).await, "abc\n");
    }
}
