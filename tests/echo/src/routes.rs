//! What each HTTP path does.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz`, `/readyz` | 200 `ok`, or 503 after `/fail`, `/unready` (each toggles) |
//! | `/exit/N` | leaves with exit code N after answering |
//! | `/burn?ms=` `/sleep?ms=` | answers after that much processor time or waiting |
//! | `/alloc?mb=` | keeps that much more memory in use |
//! | `/env/NAME` `/file?path=` | a variable of the environment, a file |
//! | `/write?path=&text=` | writes a file |
//! | `/call?url=` | what another server answers to this one |
//! | anything else | the identity line with `path=` and `client=` |

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client;
use crate::http::Request;
use crate::identity::{Identity, plain};

/// Longest wait or burn that is granted.
const DELAY_MAX: Duration = Duration::from_secs(600);
/// Most memory that one request may add, in MiB.
const ALLOC_MIB_MAX: usize = 4096;

/// The state that paths change.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) identity: Identity,
    healthy: AtomicBool,
    ready: AtomicBool,
    ballast: Mutex<Vec<Vec<u8>>>,
}

/// An answer, and what happens after it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Exit code with which the process leaves.
    pub(crate) exit: Option<i32>,
}

impl Outcome {
    fn new(status: u16, body: impl Into<String>) -> Self {
        let mut body = body.into();
        if !body.ends_with('\n') {
            body.push('\n');
        }
        Self { status, body, exit: None }
    }
}

impl Routes {
    /// Makes a healthy and ready server.
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            healthy: AtomicBool::new(true),
            ready: AtomicBool::new(true),
            ballast: Mutex::new(Vec::new()),
        }
    }

    /// Answers a request that came in on `own` from `peer`.
    pub(crate) fn respond(&self, request: &Request, own: IpAddr, peer: IpAddr) -> Outcome {
        let path = request.path();
        match path {
            "/healthz" | "/livez" => probe(&self.healthy),
            "/readyz" => probe(&self.ready),
            "/fail" => toggle(&self.healthy, "healthy"),
            "/unready" => toggle(&self.ready, "ready"),
            "/burn" => delayed(request, burn),
            "/sleep" => delayed(request, std::thread::sleep),
            "/alloc" => self.allocate(request),
            "/file" => file(request),
            "/write" => write(request),
            "/call" => call(request),
            _ => {
                if let Some(code) = path.strip_prefix("/exit/") {
                    return exit(code);
                }
                if let Some(name) = path.strip_prefix("/env/") {
                    return std::env::var(name)
                        .map_or_else(|_| Outcome::new(404, "not set"), |v| Outcome::new(200, v));
                }
                let line = self.identity.line(own);
                Outcome::new(200, format!("{line} path={path} client={}", plain(peer)))
            }
        }
    }

    fn allocate(&self, request: &Request) -> Outcome {
        let mib = request.parameter("mb").and_then(|text| text.parse::<usize>().ok());
        let Some(mib) = mib.filter(|mib| *mib <= ALLOC_MIB_MAX) else {
            return Outcome::new(400, "mb= is missing or too large");
        };
        // Not zeroes: those would never become resident.
        let block = vec![0xA5; mib * 1024 * 1024];
        match self.ballast.lock() {
            Ok(mut ballast) => {
                ballast.push(block);
                Outcome::new(200, format!("allocated {mib} MiB"))
            }
            Err(_) => Outcome::new(500, "an earlier request failed"),
        }
    }
}

fn probe(state: &AtomicBool) -> Outcome {
    if state.load(Ordering::Relaxed) {
        Outcome::new(200, "ok")
    } else {
        Outcome::new(503, "failing on request")
    }
}

fn toggle(state: &AtomicBool, name: &str) -> Outcome {
    let was = state.fetch_xor(true, Ordering::Relaxed);
    Outcome::new(200, format!("{name}={}", !was))
}

fn exit(code: &str) -> Outcome {
    match code.parse::<u8>() {
        Ok(code) => {
            Outcome { exit: Some(i32::from(code)), ..Outcome::new(200, format!("exit {code}")) }
        }
        Err(_) => Outcome::new(400, "the exit code is not a number up to 255"),
    }
}

fn delayed(request: &Request, act: impl Fn(Duration)) -> Outcome {
    let delay =
        request.parameter("ms").and_then(|text| text.parse().ok()).map(Duration::from_millis);
    match delay {
        Some(delay) if delay <= DELAY_MAX => {
            act(delay);
            Outcome::new(200, format!("done after {} ms", delay.as_millis()))
        }
        _ => Outcome::new(400, "ms= is missing or too large"),
    }
}

fn burn(duration: Duration) {
    let start = Instant::now();
    let mut value = 1_u64;
    while start.elapsed() < duration {
        for _ in 0..10_000 {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005));
        }
    }
}

fn file(request: &Request) -> Outcome {
    let Some(path) = request.parameter("path") else {
        return Outcome::new(400, "path= is missing");
    };
    match std::fs::read(&path) {
        Ok(bytes) => Outcome::new(200, String::from_utf8_lossy(&bytes)),
        Err(error) => Outcome::new(404, format!("{path}: {error}")),
    }
}

fn write(request: &Request) -> Outcome {
    let Some(path) = request.parameter("path") else {
        return Outcome::new(400, "path= is missing");
    };
    let text = request.parameter("text").unwrap_or_default();
    match std::fs::write(&path, &text) {
        Ok(()) => Outcome::new(200, format!("wrote {} bytes", text.len())),
        Err(error) => Outcome::new(500, format!("{path}: {error}")),
    }
}

fn call(request: &Request) -> Outcome {
    let Some(url) = request.parameter("url") else {
        return Outcome::new(400, "url= is missing");
    };
    match client::get(&url, Duration::from_secs(3)) {
        Ok(body) => Outcome::new(200, body),
        Err(error) => Outcome::new(502, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(routes: &Routes, target: &str, status: u16, body: &str) {
        let request = Request { method: "GET".to_owned(), target: target.to_owned() };
        let own = IpAddr::from([10, 244, 0, 2]);
        let peer = "::ffff:10.244.1.3".parse().unwrap();
        let outcome = routes.respond(&request, own, peer);
        assert_eq!((outcome.status, outcome.body.trim_end()), (status, body), "{target}");
    }

    fn routes() -> Routes {
        Routes::new(Identity::from_environment(&|name| match name {
            "HOSTNAME" => Some("echo-1".to_owned()),
            "VERSION" => Some("2".to_owned()),
            _ => None,
        }))
    }

    #[test]
    fn the_identity_is_the_answer_to_any_path() {
        let line = "pod=echo-1 ip=10.244.0.2 version=2 path=/a client=10.244.1.3";
        check(&routes(), "/a?b=c", 200, line);
    }

    #[test]
    fn probes_follow_the_toggles() {
        let routes = routes();
        check(&routes, "/healthz", 200, "ok");
        check(&routes, "/fail", 200, "healthy=false");
        check(&routes, "/healthz", 503, "failing on request");
        check(&routes, "/readyz", 200, "ok");
        check(&routes, "/fail", 200, "healthy=true");
        check(&routes, "/healthz", 200, "ok");
    }

    #[test]
    fn wrong_parameters_are_refused() {
        check(&routes(), "/burn", 400, "ms= is missing or too large");
        check(&routes(), "/sleep?ms=99999999", 400, "ms= is missing or too large");
        check(&routes(), "/exit/300", 400, "the exit code is not a number up to 255");
        check(&routes(), "/file?path=/none", 404, "/none: No such file or directory (os error 2)");
        check(&routes(), "/write?text=x", 400, "path= is missing");
        let error = "/none/x: No such file or directory (os error 2)";
        check(&routes(), "/write?path=/none/x&text=x", 500, error);
    }

    #[test]
    fn exit_is_answered_before_it_happens() {
        let request = Request { method: "GET".to_owned(), target: "/exit/3".to_owned() };
        let any = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(routes().respond(&request, any, any).exit, Some(3));
    }
}
