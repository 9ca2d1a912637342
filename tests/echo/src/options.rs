//! The command line and the environment, parsed once.

use std::time::Duration;

/// Printed by `--help` and after a wrong command line.
pub(crate) const HELP: &str = "\
Answers with the name of its pod, and asks others for theirs.

Usage:
  echo [serve] [--http PORT] [--tcp PORT] [--udp PORT] [--term-ms MS]
  echo get [--timeout-ms MS] http://HOST[:PORT][/PATH]
  echo tcp [--timeout-ms MS] HOST:PORT [MESSAGE]
  echo udp [--timeout-ms MS] HOST:PORT [MESSAGE]

Ports default to HTTP_PORT, TCP_PORT and UDP_PORT, else 8080, 9090 and 9091; 0 turns one off.
--term-ms (or TERM_MS) waits before leaving on SIGTERM. A client waits 3000 ms by default; it
prints the answer and exits 0, or exits 1.

Paths: / /healthz /readyz /fail /unready /exit/N /burn?ms= /sleep?ms= /alloc?mb= /env/NAME
       /file?path= /write?path=&text= /call?url=

Examples:
  echo serve --http 80
  echo get http://10.254.0.20/healthz
  echo udp 10.244.1.3:9091 hello";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print the help.
    Help,
    /// Answer requests until SIGTERM.
    Serve(Serve),
    /// Ask a server once.
    Ask(Ask),
}

/// Ports and behaviour of the server; port 0 means "do not listen".
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    pub(crate) http: u16,
    pub(crate) tcp: u16,
    pub(crate) udp: u16,
    /// How long the server lingers after SIGTERM.
    pub(crate) term: Duration,
}

/// How a client asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Tcp,
    Udp,
}

/// One question to a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) protocol: Protocol,
    /// A URL for HTTP, else `HOST:PORT`.
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) timeout: Duration,
}

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);

/// Parses the arguments after the program's name.
///
/// # Errors
/// A sentence that names the wrong argument.
pub(crate) fn parse(
    arguments: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Command, String> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "-h" | "--help" | "help")) {
        return Ok(Command::Help);
    }
    let (word, rest) = match arguments.split_first() {
        Some((word, rest)) if !word.starts_with('-') => (word.as_str(), rest),
        _ => ("serve", arguments),
    };
    match word {
        "serve" => parse_serve(rest, environment).map(Command::Serve),
        "get" => parse_ask(Protocol::Http, rest).map(Command::Ask),
        "tcp" => parse_ask(Protocol::Tcp, rest).map(Command::Ask),
        "udp" => parse_ask(Protocol::Udp, rest).map(Command::Ask),
        other => Err(format!("unknown command {other:?}")),
    }
}

fn parse_serve(
    arguments: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Serve, String> {
    let from_environment = |name: &str, default: u16| match environment(name) {
        Some(text) if !text.is_empty() => number(name, &text),
        _ => Ok(default),
    };
    let mut serve = Serve {
        http: from_environment("HTTP_PORT", 8080)?,
        tcp: from_environment("TCP_PORT", 9090)?,
        udp: from_environment("UDP_PORT", 9091)?,
        term: Duration::from_millis(u64::from(from_environment("TERM_MS", 0)?)),
    };
    let mut words = arguments.iter();
    while let Some(flag) = words.next() {
        let (flag, value) = flag_value(flag, &mut words)?;
        match flag.as_str() {
            "--http" => serve.http = number(&flag, &value)?,
            "--tcp" => serve.tcp = number(&flag, &value)?,
            "--udp" => serve.udp = number(&flag, &value)?,
            "--term-ms" => serve.term = Duration::from_millis(number(&flag, &value)?),
            _ => return Err(format!("unknown argument {flag:?}")),
        }
    }
    Ok(serve)
}

fn parse_ask(protocol: Protocol, arguments: &[String]) -> Result<Ask, String> {
    let mut timeout = TIMEOUT_DEFAULT;
    let mut plain = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            plain.push(word.clone());
            continue;
        }
        let (flag, value) = flag_value(word, &mut words)?;
        match flag.as_str() {
            "--timeout-ms" => timeout = Duration::from_millis(number(&flag, &value)?),
            _ => return Err(format!("unknown argument {flag:?}")),
        }
    }
    if timeout.is_zero() {
        return Err("--timeout-ms: must be at least 1".to_owned());
    }
    let mut plain = plain.into_iter();
    let target = plain.next().ok_or("a target is missing")?;
    let message = plain.next().unwrap_or_else(|| "hello".to_owned());
    if let Some(extra) = plain.next() {
        return Err(format!("unexpected argument {extra:?}"));
    }
    Ok(Ask { protocol, target, message, timeout })
}

/// Splits `--flag=value`, or takes the next word as the value.
fn flag_value<'a>(
    word: &str,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<(String, String), String> {
    if let Some((flag, value)) = word.split_once('=') {
        return Ok((flag.to_owned(), value.to_owned()));
    }
    let value = words.next().ok_or_else(|| format!("{word}: a value is missing"))?;
    Ok((word.to_owned(), value.clone()))
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name}: {text:?} is not a number in range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Command, &str>) {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let environment = |name: &str| (name == "UDP_PORT").then(|| "53".to_owned());
        assert_eq!(parse(&arguments, &environment), expected.map_err(str::to_owned), "{line}");
    }

    fn serve(http: u16, tcp: u16, udp: u16, term_ms: u64) -> Result<Command, &'static str> {
        Ok(Command::Serve(Serve { http, tcp, udp, term: Duration::from_millis(term_ms) }))
    }

    #[test]
    fn flags_win_over_the_environment_and_the_defaults() {
        check("", serve(8080, 9090, 53, 0));
        check("serve --http 80 --tcp=0", serve(80, 0, 53, 0));
        check("--udp 5 --term-ms 70000", serve(8080, 9090, 5, 70_000));
    }

    #[test]
    fn clients_take_a_target_and_a_message() {
        let ask = |protocol, target: &str, message: &str, ms| {
            Ok(Command::Ask(Ask {
                protocol,
                target: target.to_owned(),
                message: message.to_owned(),
                timeout: Duration::from_millis(ms),
            }))
        };
        check("get http://a/b", ask(Protocol::Http, "http://a/b", "hello", 3000));
        check("tcp --timeout-ms 5 a:1 hi", ask(Protocol::Tcp, "a:1", "hi", 5));
        check("udp a:1", ask(Protocol::Udp, "a:1", "hello", 3000));
    }

    #[test]
    fn mistakes_are_named() {
        check("dance", Err("unknown command \"dance\""));
        check("get", Err("a target is missing"));
        check("serve --http x", Err("--http: \"x\" is not a number in range"));
        check("serve --http", Err("--http: a value is missing"));
        check("tcp a:1 b c", Err("unexpected argument \"c\""));
        check("get --timeout-ms 0 http://a", Err("--timeout-ms: must be at least 1"));
        check("--help", Ok(Command::Help));
    }
}
