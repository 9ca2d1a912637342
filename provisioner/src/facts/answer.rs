//! Reading what the facts script printed.

use super::{DockerFact, Facts, Listener, LoadedImage, ModuleFact, PathFact, UnitFact};
use crate::distribution::PackageManager;
use crate::firewall::{FirewallFact, FirewallKind};
use crate::record::{FORMAT, Record};
use crate::state::{Mode, Owner, Protocol};

/// Why an answer gives no facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Somebody else holds the host's lock.
    #[error("locked by {owner}")]
    Locked {
        /// What the holder says about itself.
        owner: String,
    },
    /// A script of an earlier, killed run does not end.
    #[error("a step of an earlier, interrupted run is still working on this host")]
    Busy,
    /// The answer ends early or never began.
    #[error("the facts command did not answer: {output}")]
    Incomplete {
        /// The last lines that came instead.
        output: String,
    },
    /// The commands did not run as root.
    #[error("commands run as user {uid} instead of root")]
    NotRoot {
        /// The user id they ran as.
        uid: String,
    },
}

/// A boot has a name of so many characters.
const BOOT_ID_LEN: usize = 36;

/// Reads the output of [`super::script`].
///
/// `clock_ms` is the operator's clock, in milliseconds since the Unix epoch, at the moment that
/// belongs to the host's `=clock` line.
///
/// # Errors
/// When the host refused or did not finish.
pub fn parse(output: &str, clock_ms: i64) -> Result<Facts, FactsError> {
    let mut facts = Facts::default();
    let mut ended = false;
    let mut uid = None;
    let mut unit: Option<(String, UnitFact)> = None;
    let mut digests = Vec::new();
    for line in output.lines() {
        let Some(line) = line.strip_prefix('=') else { continue };
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "clock" => facts.clock_skew_ms = clock(rest).map_or(0, |host| host - clock_ms),
            "uid" => uid = Some(rest.to_owned()),
            "locked" => return Err(FactsError::Locked { owner: holder(rest, output) }),
            "busy" => return Err(FactsError::Busy),
            "sha256" => digests.extend(rest.split_once("  ")),
            "unit" => unit_line(&mut facts, &mut unit, rest),
            "end" => ended = true,
            _ => fact(&mut facts, key, rest),
        }
    }
    unit_line(&mut facts, &mut unit, "");
    match uid {
        Some(uid) if uid != "0" => return Err(FactsError::NotRoot { uid }),
        Some(_) if ended => {}
        _ => return Err(FactsError::Incomplete { output: last_lines(output, 5) }),
    }
    for (digest, path) in digests {
        if let Some(PathFact::File { sha256, .. }) = facts.paths.get_mut(path) {
            *sha256 = digest.parse().ok();
        }
    }
    Ok(facts)
}

/// The last `count` lines that are no facts, for an error.
pub(crate) fn last_lines(output: &str, count: usize) -> String {
    let noise = |line: &&str| !line.starts_with('=') && !line.trim().is_empty();
    let lines: Vec<_> = output.lines().filter(noise).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The owner file has the holder's line and, below it, the process that holds the lock.
fn holder(first: &str, output: &str) -> String {
    let pid = output
        .lines()
        .skip_while(|line| !line.starts_with("=locked"))
        .nth(1)
        .and_then(|line| line.trim().parse::<u32>().ok());
    match (first.is_empty(), pid) {
        (true, _) => "a process that did not say who it is".to_owned(),
        (false, Some(pid)) => format!("{first} (holding process {pid} on the host)"),
        (false, None) => first.to_owned(),
    }
}

fn clock(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(seconds.parse::<i64>().ok()? * 1000 + digits.parse::<i64>().unwrap_or(0))
}

fn fact(facts: &mut Facts, key: &str, rest: &str) {
    match key {
        "kernel" => rest.clone_into(&mut facts.kernel),
        "arch" => rest.clone_into(&mut facts.arch),
        "systemd" => facts.systemd = true,
        "machine" => facts.machine = Some(rest.to_owned()).filter(|text| text.len() > BOOT_ID_LEN),
        "module-tree" => facts.module_tree = true,
        "memory" => facts.memory = rest.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024)),
        "staged" => facts.staged = true,
        "fence" => facts.fence = rest.trim().parse().unwrap_or(0),
        "holder" => facts.holder = Some(rest.to_owned()),
        "firewall" => facts.firewall = FirewallKind::of_name(rest).map(FirewallFact::new),
        "firewall-guarded" => facts.firewall_guarded = true,
        "zone" | "permanent" | "runtime" | "chain" => firewall_line(facts, key, rest),
        "packages-unfinished" => facts.packages_unfinished = true,
        "manager" => facts.managers.extend(PackageManager::of_program(rest)),
        "package" => _ = facts.packages.insert(rest.to_owned()),
        "swap" => _ = facts.swaps.insert(rest.to_owned()),
        "selinux" => facts.selinux_enforcing = true,
        "mislabelled" => _ = facts.mislabelled.insert(rest.to_owned()),
        "time-service" => facts.time_service = Some(rest.to_owned()),
        "container" => facts.container = Some(rest.to_owned()),
        "os" => os_release(facts, rest),
        "lacks" => _ = facts.missing_programs.insert(rest.to_owned()),
        "path" => path_line(facts, rest),
        "empty" => {
            if let Some(PathFact::Directory { empty, .. }) = facts.paths.get_mut(rest) {
                *empty = true;
            }
        }
        "listen" => facts.listeners.extend(listener(rest)),
        "docker" => {
            facts.docker = match rest.strip_prefix("running ") {
                Some(version) => DockerFact::Running { version: version.to_owned() },
                None => DockerFact::Stopped,
            };
        }
        "engine-setting" => _ = facts.engine_settings.insert(rest.to_owned()),
        "record" => record(facts, rest),
        "link" => {
            if let Some((path, target)) = rest.split_once('|') {
                let link = PathFact::Link { target: target.to_owned() };
                facts.paths.insert(path.to_owned(), link);
            }
        }
        _ => {
            if let Some((first, second)) = rest.split_once(' ') {
                pair(facts, key, first, second);
            }
        }
    }
}

/// A fact of two parts, the first of which has no blanks.
fn pair(facts: &mut Facts, key: &str, first: &str, second: &str) {
    match key {
        "disk" => {
            if let Ok(kib) = first.parse::<u64>() {
                facts.disk_free.insert(second.to_owned(), kib.saturating_mul(1024));
            }
        }
        "sysctl" => {
            // The kernel separates lists by tabs; files and people use blanks.
            let value = second.split_whitespace().collect::<Vec<_>>().join(" ");
            facts.sysctls.insert(first.to_owned(), value);
        }
        "module" => {
            let state = match second {
                "loaded" => ModuleFact::Loaded,
                "loadable" => ModuleFact::Loadable,
                _ => ModuleFact::Unknown,
            };
            facts.modules.insert(first.to_owned(), state);
        }
        "block" => {
            if let Ok(digest) = first.parse() {
                facts.blocks.insert(second.to_owned(), digest);
            }
        }
        "image" => _ = facts.images.insert(second.to_owned(), first.to_owned()),
        "started" => {
            if let Ok(digest) = second.parse() {
                facts.started.insert(first.to_owned(), digest);
            }
        }
        "loaded" => {
            if let (Ok(archive), Some((id, reference))) = (first.parse(), second.split_once(' ')) {
                let image = LoadedImage { archive, id: id.to_owned() };
                facts.loaded.insert(reference.to_owned(), image);
            }
        }
        _ => {}
    }
}

/// A line about the firewall whose kind came before.
fn firewall_line(facts: &mut Facts, key: &str, rest: &str) {
    let Some(firewall) = &mut facts.firewall else { return };
    match key {
        "zone" if !rest.is_empty() => rest.clone_into(&mut firewall.zone),
        "permanent" => {
            firewall.permanent.insert(rest.to_owned());
            // What ufw keeps is what holds: it has no other rules.
            if firewall.kind == FirewallKind::Ufw {
                firewall.runtime.insert(rest.to_owned());
            }
        }
        "runtime" => _ = firewall.runtime.insert(rest.to_owned()),
        "chain" => match rest.split_once(' ') {
            Some(("input", chain)) => _ = firewall.input.insert(chain.to_owned()),
            Some((_, chain)) => _ = firewall.forward.insert(chain.to_owned()),
            None => {}
        },
        _ => {}
    }
}

fn os_release(facts: &mut Facts, rest: &str) {
    let Some((key, value)) = rest.split_once(' ') else { return };
    let value = value.trim_matches(['"', '\'']).to_owned();
    match key {
        "ID" => facts.os.id = value,
        "ID_LIKE" => facts.os.id_like = value,
        "VERSION_ID" => facts.os.version_id = value,
        "PRETTY_NAME" => facts.os.pretty_name = value,
        _ => {}
    }
}

fn path_line(facts: &mut Facts, rest: &str) {
    let fields: Vec<_> = rest.splitn(5, '|').collect();
    let [kind, mode, owner, len, path] = fields[..] else { return };
    let Ok(mode) = u32::from_str_radix(mode, 8) else { return };
    let (mode, owner) = (Mode(mode), Owner(owner.to_owned()));
    let fact = match kind {
        "regular file" | "regular empty file" => {
            let len = len.parse().unwrap_or(0);
            PathFact::File { mode, owner, sha256: None, len }
        }
        "directory" => PathFact::Directory { mode, owner, empty: false },
        // Its own line brings the target.
        "symbolic link" => return,
        _ => PathFact::Other,
    };
    facts.paths.insert(path.to_owned(), fact);
}

/// Properties come one a line, units apart by an empty one; the order within a unit is systemd's.
fn unit_line(facts: &mut Facts, unit: &mut Option<(String, UnitFact)>, line: &str) {
    let Some((key, value)) = line.split_once('=') else {
        if let Some((name, fact)) = unit.take()
            && !name.is_empty()
        {
            facts.units.insert(name, fact);
        }
        return;
    };
    let (name, fact) = unit.get_or_insert_default();
    match key {
        "Id" => value.clone_into(name),
        "LoadState" => value.clone_into(&mut fact.load),
        "ActiveState" => value.clone_into(&mut fact.active),
        "UnitFileState" => value.clone_into(&mut fact.enablement),
        "NeedDaemonReload" => fact.needs_reload = value == "yes",
        _ => {}
    }
}

fn listener(rest: &str) -> Option<Listener> {
    let mut fields = rest.splitn(4, ' ');
    let protocol = match fields.next()? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let port = fields.next()?.parse().ok()?;
    let mut name = || fields.next().filter(|name| *name != "-").map(str::to_owned);
    Some(Listener { protocol, port, unit: name(), program: name() })
}

fn record(facts: &mut Facts, json: &str) {
    match serde_json::from_str::<Record>(json) {
        Ok(record) if record.format > FORMAT => {
            facts.record_error = Some(format!(
                "its format is {}, and this kprov knows formats up to {FORMAT}",
                record.format
            ));
        }
        Ok(record) => facts.record = Some(record),
        Err(error) => facts.record_error = Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
