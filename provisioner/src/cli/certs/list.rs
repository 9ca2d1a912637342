//! `kprov certs list`: three views of each certificate, side by side.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::super::connect::{Asking, connect, every_host};
use super::super::output::{Console, Failure};
use super::super::status::table;
use super::super::{Exit, Source, Surroundings, prepare};
use super::{Opened, endpoints, failure};
use crate::execute::{chain, in_parallel};
use crate::pki::{self, Description, Surveyed};
use crate::preflight::Problem;

#[derive(Serialize)]
struct List {
    certificates: Vec<Row>,
    unreachable: Vec<Problem>,
    /// Days within which an end is worth a warning.
    warn_days: u32,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    kept: Surveyed,
    days_left: Option<i64>,
    /// What lies on the host; `None` where nobody looked.
    on_host: Option<View>,
    /// What the server on the host shows; `None` for clients' certificates.
    served: Option<View>,
}

/// A certificate as seen elsewhere than in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum View {
    /// The very same.
    Same,
    /// Another one.
    Other(Box<Description>),
    /// None.
    Missing,
    /// Nobody knows, and why.
    Unknown(String),
}

impl View {
    fn of(found: Option<Description>, kept: Option<&Description>) -> Self {
        match found {
            None => Self::Missing,
            Some(found) if Some(&found) == kept => Self::Same,
            Some(found) => Self::Other(Box::new(found)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Same => "same".to_owned(),
            Self::Other(found) => format!("other, ends {}", date(found.not_after)),
            Self::Missing => "missing".to_owned(),
            Self::Unknown(_) => "?".to_owned(),
        }
    }
}

pub(super) fn run(
    source: &Source,
    offline: bool,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let opened = Opened::new(source, surroundings, console)?.existing()?;
    let kept = pki::survey(&opened.inventory, &opened.access()).map_err(|e| failure(&e))?;
    let now = Timestamp::now();
    let mut rows: Vec<_> = kept.into_iter().map(|kept| Row::new(kept, now)).collect();
    let mut unreachable = Vec::new();
    if !offline {
        unreachable = look(source, surroundings, &opened, &mut rows, now)?;
    }
    let warn_days = opened.inventory.pki.warn_days;
    let list = List { certificates: rows, unreachable, warn_days };
    console.result(&list, || list.text())?;
    Ok(if list.unreachable.is_empty() { Exit::Ok } else { Exit::Unfit })
}

/// Looks at what the hosts have and serve.
fn look(
    source: &Source,
    surroundings: &Surroundings,
    opened: &Opened,
    rows: &mut Vec<Row>,
    now: Timestamp,
) -> Result<Vec<Problem>, Failure> {
    let inventory = &opened.inventory;
    // Asking etcd takes a client certificate; one that is made anew for that is not kept.
    let (_copy, pki) = prepare::certificates_of_copy(source, surroundings, inventory, &opened.dir)?;
    let servers = endpoints::all(inventory, &pki);
    let state_dir = &opened.dir;
    let asking = Asking { lock: None, force_unlock: false, source, surroundings, state_dir };
    let mut connected = connect(every_host(inventory), &asking);
    let paths = |host: &str| -> Vec<String> {
        rows.iter()
            .filter(|row| row.kept.host == host)
            .filter_map(|r| r.kept.path.clone())
            .collect()
    };
    let seen =
        in_parallel(connected.hosts.iter_mut().collect(), source.parallel, |(name, host)| {
            let texts = host.read(&paths(name)).map_err(|error| chain(&error));
            let shown: BTreeMap<_, _> = (servers.iter())
                .filter(|server| server.host == *name)
                .map(|server| {
                    let shown = host.served(&server.endpoint).map_err(|error| chain(&error));
                    (server.kind, shown)
                })
                .collect();
            (name.clone(), (texts, shown))
        });
    let seen: BTreeMap<_, _> = seen.into_iter().collect();
    for row in rows.iter_mut().filter(|row| !row.kept.host.is_empty()) {
        let kept = row.kept.description.as_ref();
        let Some((texts, shown)) = seen.get(&row.kept.host) else {
            row.on_host = Some(View::Unknown("the host is unreachable".to_owned()));
            continue;
        };
        row.on_host = row.kept.path.as_ref().map(|path| match texts {
            Ok(texts) => View::of(texts.get(path).and_then(|t| Description::of_pem(t)), kept),
            Err(error) => View::Unknown(error.clone()),
        });
        row.served = shown.get(row.kept.kind.as_str()).map(|shown| served(shown, kept));
    }
    for (host, (_, shown)) in &seen {
        rows.extend(shown.get("kubelet").map(|shown| kubelet(host, shown, now)));
    }
    Ok(connected.problems)
}

fn served(shown: &Result<Vec<Vec<u8>>, String>, kept: Option<&Description>) -> View {
    match shown {
        Ok(chain) => View::of(chain.first().and_then(|der| Description::of_der(der)), kept),
        Err(error) => View::Unknown(error.clone()),
    }
}

/// A kubelet gets its certificates from the cluster: only what it serves can be told.
fn kubelet(host: &str, shown: &Result<Vec<Vec<u8>>, String>, now: Timestamp) -> Row {
    let description = match shown {
        Ok(chain) => chain.first().and_then(|der| Description::of_der(der)),
        Err(_) => None,
    };
    let days_left = description.as_ref().map(|description| description.days_left(now));
    let view = match (shown, &description) {
        (Err(error), _) => View::Unknown(error.clone()),
        (Ok(_), Some(_)) => View::Same,
        (Ok(_), None) => View::Missing,
    };
    let kept = Surveyed {
        id: format!("kubelet.{host}"),
        kind: "kubelet".to_owned(),
        host: host.to_owned(),
        authority: "cluster (by request)".to_owned(),
        path: None,
        description,
    };
    Row { kept, days_left, on_host: None, served: Some(view) }
}

impl Row {
    fn new(kept: Surveyed, now: Timestamp) -> Self {
        let days_left = kept.description.as_ref().map(|description| description.days_left(now));
        Self { kept, days_left, on_host: None, served: None }
    }
}

impl List {
    fn text(&self) -> String {
        let header =
            ["CERTIFICATE", "HOST", "SUBJECT", "ENDS", "DAYS", "CA", "ON HOST", "SERVED", "NAMES"];
        let mut table = table(header);
        for row in &self.certificates {
            let description = row.kept.description.as_ref();
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let names: BTreeSet<_> = description.iter().flat_map(|d| &d.names).cloned().collect();
            table.add_row([
                row.kept.kind.clone(),
                Some(row.kept.host.clone()).filter(|h| !h.is_empty()).unwrap_or("-".to_owned()),
                or_dash(description.map(|description| description.subject.clone())),
                or_dash(description.map(|description| date(description.not_after))),
                or_dash(row.days_left.map(|days| days.to_string())),
                row.kept.authority.clone(),
                or_dash(row.on_host.as_ref().map(View::text)),
                or_dash(row.served.as_ref().map(View::text)),
                names.into_iter().collect::<Vec<_>>().join(" "),
            ]);
        }
        let mut out = format!("{table}\n");
        for problem in &self.unreachable {
            out.push_str(&format!("{}: {}\n", problem.host, problem.message));
        }
        let ends = |row: &&Row| row.days_left.is_some_and(|days| days < i64::from(self.warn_days));
        let ending = self.certificates.iter().filter(ends).count();
        if ending > 0 {
            let days = self.warn_days;
            out.push_str(&format!(
                "warning: {ending} end within {days} days; `kprov apply` renews "
            ));
            out.push_str("leaves, `kprov certs rotate-ca` authorities\n");
        }
        out
    }
}

fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(fingerprint: &str) -> Description {
        Description {
            subject: "CN=a".to_owned(),
            issuer: "CN=ca".to_owned(),
            names: BTreeSet::new(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::from_second(1_900_000_000).unwrap(),
            fingerprint: fingerprint.to_owned(),
        }
    }

    #[test]
    fn what_hosts_have_is_compared_with_what_is_kept() {
        let kept = description("aa");
        let view = |found| View::of(found, Some(&kept));
        assert_eq!(view(Some(description("aa"))), View::Same);
        assert_eq!(view(None).text(), "missing");
        assert_eq!(view(Some(description("bb"))).text(), "other, ends 2030-03-17");
    }

    #[test]
    fn the_table_has_all_columns_and_warns() {
        let kept = Surveyed {
            id: "apiserver.m-1".to_owned(),
            kind: "apiserver".to_owned(),
            host: "m-1".to_owned(),
            authority: "cluster".to_owned(),
            path: Some("/p.crt".to_owned()),
            description: Some(Description {
                names: ["10.0.0.1".to_owned(), "m-1".to_owned()].into(),
                ..description("aa")
            }),
        };
        let now = Timestamp::from_second(1_900_000_000 - 10 * 86_400).unwrap();
        let mut row = Row::new(kept, now);
        row.on_host = Some(View::Same);
        row.served = Some(View::Missing);
        let list = List { certificates: vec![row], unreachable: Vec::new(), warn_days: 30 };
        let text = list.text();
        let cells: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "apiserver",
                "m-1",
                "CN=a",
                "2030-03-17",
                "10",
                "cluster",
                "same",
                "missing",
                "10.0.0.1",
                "m-1"
            ]
        );
        assert!(text.contains("warning: 1 end within 30 days"), "{text}");
        let json = serde_json::to_value(&list).unwrap();
        assert_eq!(json["certificates"][0]["days_left"], 10);
        assert_eq!(json["certificates"][0]["on_host"], "same");
    }
}
