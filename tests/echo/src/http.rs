//! As much of HTTP/1.1 as one request a connection needs.

use std::io::{self, BufRead, BufReader, Read, Write};

/// Longest request or answer head that is read, in bytes.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Longest body that is read, in bytes.
const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A request as far as anyone here looks at it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, undecoded.
    pub(crate) target: String,
}

impl Request {
    /// Reads one request; `None` if the peer closed without asking.
    ///
    /// # Errors
    /// The transport's error, or `InvalidData` for what is no HTTP request.
    pub(crate) fn read(stream: impl Read) -> io::Result<Option<Self>> {
        let mut lines = BufReader::new(stream.take(HEAD_BYTES_MAX));
        let mut first = String::new();
        if lines.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut words = first.split_whitespace();
        let (Some(method), Some(target), Some(_version)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(invalid("not a request line"));
        };
        let request = Self { method: method.to_owned(), target: target.to_owned() };
        loop {
            let mut header = String::new();
            if lines.read_line(&mut header)? == 0 {
                return Err(invalid("the request ends in its head"));
            }
            if header.trim_end().is_empty() {
                return Ok(Some(request));
            }
        }
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The value of a query parameter, percent-decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| decode(value))
    }
}

/// Writes a complete answer of plain text and announces the end of the connection.
///
/// # Errors
/// The transport's error.
pub(crate) fn answer(mut stream: impl Write, status: u16, body: &str) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
    let text = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// Reads an answer: its status and its body, up to the end of the stream.
///
/// # Errors
/// The transport's error, or `InvalidData` for what is no HTTP answer.
pub(crate) fn read_answer(stream: impl Read) -> io::Result<(u16, String)> {
    let mut lines = BufReader::new(stream.take(BODY_BYTES_MAX));
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid("not an HTTP answer"))?;
    loop {
        let mut header = String::new();
        if lines.read_line(&mut header)? == 0 {
            return Err(invalid("the answer ends in its head"));
        }
        if header.trim_end().is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    lines.read_to_end(&mut body)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = match (byte, tail) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|hex| u8::from_str_radix(hex, 16).ok()),
            _ => None,
        };
        if let Some(value) = escaped {
            bytes.push(value);
            rest = &tail[2..];
        } else {
            bytes.push(if byte == b'+' { b' ' } else { byte });
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_path_and_parameters() {
        let text = "GET /burn?ms=5&x=a%20b+c%2 HTTP/1.1\r\nHost: a\r\n\r\n";
        let request = Request::read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(request.path(), "/burn");
        assert_eq!(request.parameter("ms").as_deref(), Some("5"));
        assert_eq!(request.parameter("x").as_deref(), Some("a b c%2"));
        assert_eq!(request.parameter("y"), None);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert!(Request::read("".as_bytes()).unwrap().is_none());
        assert!(Request::read("hello\r\n\r\n".as_bytes()).is_err());
        assert!(Request::read("GET / HTTP/1.1\r\nHost: a\r\n".as_bytes()).is_err());
    }

    #[test]
    fn an_answer_is_read_back() {
        let mut wire = Vec::new();
        answer(&mut wire, 503, "no\n").unwrap();
        assert_eq!(read_answer(wire.as_slice()).unwrap(), (503, "no\n".to_owned()));
        assert!(read_answer("nonsense".as_bytes()).is_err());
    }
}
