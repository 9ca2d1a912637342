//! One question, one answer, never longer than the time-out for each step.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use crate::http;
use crate::options::{Ask, Protocol};

/// Longest answer that is read over TCP, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Asks and returns the answer.
///
/// # Errors
/// A transport error, an HTTP status that is no success, or an address that does not parse.
pub(crate) fn ask(ask: &Ask) -> io::Result<String> {
    match ask.protocol {
        Protocol::Http => get(&ask.target, ask.timeout),
        Protocol::Tcp => ask_tcp(&ask.target, &ask.message, ask.timeout),
        Protocol::Udp => ask_udp(&ask.target, &ask.message, ask.timeout),
    }
}

/// Fetches an `http://` URL and returns the body of a 2xx answer.
///
/// # Errors
/// As [`ask`].
pub(crate) fn get(url: &str, timeout: Duration) -> io::Result<String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("the URL is not http://"))?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let target = if has_port(authority) { authority.to_owned() } else { format!("{authority}:80") };
    let mut stream = connect(&target, timeout)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: echo\r\n\
         Connection: close\r\n\r\n"
    )?;
    let (status, body) = http::read_answer(stream)?;
    if !(200..300).contains(&status) {
        return Err(io::Error::other(format!("{url}: HTTP {status}: {}", body.trim_end())));
    }
    Ok(body)
}

fn ask_tcp(target: &str, message: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = connect(target, timeout)?;
    writeln!(stream, "{message}")?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
    }
    Ok(line)
}

fn ask_udp(target: &str, message: &str, timeout: Duration) -> io::Result<String> {
    let peer = resolve(target)?;
    let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(peer)?;
    socket.send(message.as_bytes())?;
    let mut buffer = vec![0; 64 * 1024];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn connect(target: &str, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&resolve(target)?, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

fn resolve(target: &str) -> io::Result<SocketAddr> {
    target.to_socket_addrs()?.next().ok_or_else(|| wrong("the name has no address"))
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

fn wrong(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
