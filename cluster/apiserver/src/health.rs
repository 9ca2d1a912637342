//! `/healthz`, `/livez`, `/readyz`: open to everybody, each check also by its own path.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::answer::{self, Answer};
use crate::query::Query;
use crate::server::Server;

/// A store that takes longer is not healthy.
const STORE_SECONDS_MAX: Duration = Duration::from_secs(2);

/// One check.
struct Check {
    name: &'static str,
    /// Whether it must hold for the process to be kept.
    live: bool,
}

const CHECKS: [Check; 5] = [
    Check { name: "ping", live: true },
    Check { name: "log", live: true },
    Check { name: "etcd", live: false },
    Check { name: "informer-sync", live: false },
    Check { name: "shutdown", live: false },
];

/// The paths of all health checks.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    ["healthz", "livez", "readyz"].into_iter().flat_map(|endpoint| {
        let checks = CHECKS.iter().filter(move |check| endpoint != "livez" || check.live);
        let each = checks.map(move |check| format!("/{endpoint}/{}", check.name));
        std::iter::once(format!("/{endpoint}")).chain(each)
    })
}

/// Answers a health check; `None` when the path is another.
pub(crate) async fn check(
    server: &Server,
    method: &Method,
    path: &str,
    query: &Query,
) -> Option<Answer> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next()?;
    if !matches!(endpoint, "healthz" | "livez" | "readyz") || *method != Method::GET {
        return None;
    }
    let one = parts.next().unwrap_or_default();
    let wanted = |check: &&Check| {
        let excluded = query.pairs().any(|(name, v)| name == "exclude" && v == check.name);
        let of_endpoint = endpoint != "livez" || check.live;
        if one.is_empty() { of_endpoint && !excluded } else { check.name == one }
    };
    let checks: Vec<&Check> = CHECKS.iter().filter(wanted).collect();
    if checks.is_empty() && !one.is_empty() {
        return Some(answer::text(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    let mut report = String::new();
    let mut well = true;
    for check in checks {
        if holds(server, check.name).await {
            report.push_str(&format!("[+]{} ok\n", check.name));
        } else {
            well = false;
            report.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
        }
    }
    if !well {
        report.push_str(&format!("{endpoint} check failed\n"));
        return Some(answer::text(StatusCode::INTERNAL_SERVER_ERROR, report));
    }
    if query.pairs().any(|(name, _)| name == "verbose") {
        report.push_str(&format!("{endpoint} check passed\n"));
        return Some(answer::text(StatusCode::OK, report));
    }
    Some(answer::text(StatusCode::OK, "ok"))
}

async fn holds(server: &Server, check: &str) -> bool {
    match check {
        "etcd" => {
            let answered = server.hub.store_revision();
            matches!(tokio::time::timeout(STORE_SECONDS_MAX, answered).await, Ok(Ok(_)))
        }
        "informer-sync" => server.is_ready(),
        "shutdown" => !*server.stopping.borrow(),
        _ => true,
    }
}
