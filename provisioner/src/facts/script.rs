//! The one command that gathers a host's facts.

use std::fmt::Write as _;

use super::FactsQuery;
use crate::quote::{quote, words};
use crate::record::DIRECTORY;

mod preparation;

/// Where free space is asked for: the places that kprov and its components write to.
pub const FILE_SYSTEMS: [&str; 5] = ["/", "/usr", "/etc", "/var", DIRECTORY];

/// A wish to hold the host's lock from the facts on until the connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRequest {
    /// One line that says who holds the lock: person, machine, process, start, identity.
    pub owner: String,
}

/// Waits for a step script of a killed operator to end before looking at the host, in seconds.
const ORPHAN_WAIT_S: u32 = 90;

/// The script for a POSIX shell running as root. Each line of its answer starts with `=` and a
/// key; other lines are noise (a login banner, say) and are skipped by the reader.
///
/// With a lock the shell stays, holding the lock, until its standard input ends: whatever kills
/// the operator's process also frees the host.
#[must_use]
pub fn script(query: &FactsQuery, lock: Option<&LockRequest>) -> String {
    let mut out = String::from(BEGIN);
    if let Some(lock) = lock {
        out.push_str(&lock_part(&lock.owner));
    }
    let add = |out: &mut String, line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    add(&mut out, format!("df -Pk -- {} 2>/dev/null | awk '{DISK}'", words(FILE_SYSTEMS)));
    out.push_str("t=$(mktemp)\n");
    if query.docker {
        out.push_str(DOCKER);
    }
    if query.firewall {
        out.push_str(&preparation::firewall(query.address));
    }
    if !query.paths.is_empty() {
        add(&mut out, format!("set -- {}", words(query.paths.iter().map(String::as_str))));
        out.push_str(PATHS);
    }
    if !query.hashed.is_empty() {
        let files = words(query.hashed.iter().map(String::as_str));
        add(&mut out, format!("sha256sum -- {files} 2>/dev/null | sed 's/^/=sha256 /'"));
    }
    if query.programs || !query.large.is_empty() {
        out.push_str(LARGE);
        query.large.iter().for_each(|path| add(&mut out, format!("large {}", quote(path))));
    }
    if query.programs {
        out.push_str(&PROGRAMS.replace("@PROGRAMS@", crate::program::DIRECTORY));
    }
    for path in &query.data {
        let path = quote(path);
        add(
            &mut out,
            format!("[ -d {path} ] && [ -z \"$(ls -A {path})\" ] && say \"=empty\" {path}"),
        );
    }
    if !query.units.is_empty() {
        let units = words(query.units.iter().map(String::as_str));
        add(&mut out, format!("systemctl show --no-pager {UNIT_PROPERTIES} -- {units} {UNITS}"));
    }
    for key in &query.sysctls {
        let file = quote(&format!("/proc/sys/{}", sysctl_path(key)));
        let key = quote(key);
        add(
            &mut out,
            // Not `read`: it takes single bytes, and the kernel gives a setting in one piece only.
            format!("[ -r {file} ] && say \"=sysctl\" {key} \"$(cat {file} 2>/dev/null)\""),
        );
    }
    for module in &query.modules {
        let module = quote(module);
        add(&mut out, format!("module {module}"));
    }
    if !query.ports.is_empty() {
        let ports: String = query.ports.iter().fold(" ".to_owned(), |mut all, port| {
            let _ = write!(all, "{port} ");
            all
        });
        add(&mut out, format!("ss -tulnp 2>/dev/null | awk -v ports='{ports}' '{LISTENERS}'"));
    }
    out.push_str(&preparation::questions(query));
    out.push_str(preparation::UNFINISHED);
    out.push_str(RECORD);
    if lock.is_none() {
        out.push_str(HOLDER);
    }
    out.push_str("wait; cat \"$t\"; rm -f \"$t\"\n");
    out.push_str("say =end\n");
    if lock.is_some() {
        // The child must not inherit the lock: killing this shell has to free it.
        out.push_str("cat >/dev/null 9>&-\n");
    }
    out.replace("@DIR@", DIRECTORY)
}

/// The path below `/proc/sys` of a dotted key; a key with slashes is a path already.
pub(crate) fn sysctl_path(key: &str) -> String {
    if key.contains('/') { key.to_owned() } else { key.replace('.', "/") }
}

fn lock_part(owner: &str) -> String {
    let owner = quote(owner);
    format!(
        r#"mkdir -p -m 0700 /run/kprov
exec 9>>/run/kprov/lock
if ! flock -n 9; then say "=locked" "$(cat /run/kprov/owner 2>/dev/null)"; exit 75; fi
printf '%s\n%s\n' {owner} "$$" >/run/kprov/owner
trap 'rm -f /run/kprov/owner' EXIT
exec 8>>/run/kprov/busy
if ! flock -w {ORPHAN_WAIT_S} 8; then say "=busy"; exit 75; fi
exec 8>&-
"#
    )
}

const BEGIN: &str = r#"export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
say() { printf '%s\n' "$*"; }
module() {
  if [ -d "/sys/module/$1" ]; then say "=module $1 loaded"
  elif modprobe -n -q "$1" 2>/dev/null; then say "=module $1 loadable"
  else say "=module $1 unknown"; fi
}
say "=clock $(date +%s.%N)"
say "=uid $(id -u)"
say "=kernel $(uname -r)"
say "=machine $(cat /proc/sys/kernel/random/boot_id 2>/dev/null) $(readlink /proc/1/ns/mnt)"
say "=arch $(uname -m)"
[ -d "/lib/modules/$(uname -r)" ] && say "=module-tree"
sed -n 's/^MemTotal: *\([0-9]*\) kB$/=memory \1/p' /proc/meminfo 2>/dev/null
[ -d /run/systemd/system ] && say "=systemd"
[ -s /run/systemd/container ] && say "=container $(cat /run/systemd/container)"
for p in apt-get dnf yum; do command -v $p >/dev/null 2>&1 && say "=manager $p"; done
case $(getenforce 2>/dev/null) in Enforcing) enforcing=1; say "=selinux" ;; *) enforcing= ;; esac
firewall=
if systemctl is-active --quiet firewalld 2>/dev/null; then firewall=firewalld
elif grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf; then firewall=ufw
elif systemctl is-active --quiet iptables 2>/dev/null; then firewall=iptables
elif systemctl is-active --quiet nftables 2>/dev/null; then firewall=nftables
fi
[ -z "$firewall" ] || say "=firewall $firewall"
systemctl is-active --quiet kprov-firewall-undo.timer 2>/dev/null && say "=firewall-guarded"
for u in chronyd chrony ntpd ntp ntpsec openntpd systemd-timesyncd; do
  systemctl is-active --quiet $u 2>/dev/null && { say "=time-service $u"; break; }
done
sed -n 's/^\(ID\|ID_LIKE\|VERSION_ID\|PRETTY_NAME\)=/=os \1 /p' /etc/os-release 2>/dev/null
for p in flock tar gzip sha256sum stat systemctl systemd-run ss awk; do
  command -v "$p" >/dev/null 2>&1 || say "=lacks $p"
done
"#;

const DISK: &str = r#"NR > 1 { print "=disk " $4 " " $6 }"#;

/// Docker's answers take the longest, so they are gathered while the files are read.
const DOCKER: &str = r#"if command -v docker >/dev/null 2>&1; then
  { v=$(docker version --format '{{.Server.Version}}' 2>/dev/null) && [ -n "$v" ] &&
    echo "=docker running $v" || echo "=docker stopped"; } >>"$t" 9>&- &
  docker image ls --no-trunc --format '=image {{.ID}} {{.Repository}}:{{.Tag}}' >>"$t" 2>/dev/null 9>&- &
fi
for k in bip bridge ip-masq mtu; do
  grep -qs "\"$k\"[[:space:]]*:" /etc/docker/daemon.json && say "=engine-setting $k"
done
"#;

const PATHS: &str = r#"stat -c '=path %F|%a|%U:%G|%s|%n' -- "$@" 2>/dev/null
for p in "$@"; do [ -L "$p" ] && say "=link $p|$(readlink -- "$p")"; done
"#;

/// A digest that was kept when the file was put in place holds as long as inode, length and times
/// are the same; the change time cannot be set by anybody.
const LARGE: &str = r#"large() { # PATH
  s=$(stat -c '%i %s %y %z' -- "$1" 2>/dev/null) || return 0
  c="@DIR@/digests/$(printf '%s' "$1" | tr / _)"
  if [ -f "$c" ] && { IFS= read -r k && read -r d; } <"$c" && [ "$k" = "$s" ]; then :
  else d=$(sha256sum -- "$1" 2>/dev/null | cut -c 1-64); fi
  say "=sha256 $d  $1"
}
"#;

/// Also builds that nobody asked for by name: which ones there are, only the host's record says.
const PROGRAMS: &str = r#"for p in @PROGRAMS@/*; do
  [ -f "$p" ] && [ ! -L "$p" ] || continue
  stat -c '=path %F|%a|%U:%G|%s|%n' -- "$p" 2>/dev/null; large "$p"
done
"#;

const UNIT_PROPERTIES: &str =
    "-p Id -p LoadState -p ActiveState -p UnitFileState -p NeedDaemonReload";
const UNITS: &str = "2>/dev/null | sed 's/^/=unit /'";

const LISTENERS: &str = r#"{
  n = split($5, a, ":"); port = a[n]
  if (!index(ports, " " port " ")) next
  unit = "-"; program = "-"
  if (match($0, /pid=[0-9]+/)) {
    file = "/proc/" substr($0, RSTART + 4, RLENGTH - 4) "/cgroup"
    while ((getline line < file) > 0)
      if (match(line, /[^\/]*\.service/)) unit = substr(line, RSTART, RLENGTH)
    close(file)
  }
  if (match($0, /\(\("[^"]*"/)) program = substr($0, RSTART + 3, RLENGTH - 4)
  print "=listen " $1 " " port " " unit " " program
}"#;

const RECORD: &str = r#"[ -f @DIR@/record.json ] && say "=record $(cat @DIR@/record.json)"
for f in @DIR@/started/*; do
  [ -f "$f" ] && read -r d <"$f" && say "=started ${f##*/} $d"
done
for f in @DIR@/images/*; do
  [ -f "$f" ] && read -r l <"$f" && say "=loaded $l"
done
[ -d @DIR@/staging ] && say "=staged"
[ -f @DIR@/fence ] && say "=fence $(cat @DIR@/fence)"
"#;

/// Not by trying the lock: that would be in the way of somebody who takes it at this moment.
const HOLDER: &str = r#"[ -f /run/kprov/owner ] && { read -r who && read -r pid; } </run/kprov/owner &&
  kill -0 "$pid" 2>/dev/null && say "=holder $who"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_valid_shell() {
        let mut query = FactsQuery { docker: true, ..FactsQuery::default() };
        query.paths.insert("/etc/it's".to_owned());
        query.hashed.insert("/etc/it's".to_owned());
        query.large.insert("/usr/local/bin/etcd".to_owned());
        query.programs = true;
        query.data.insert("/var/lib/etcd".to_owned());
        query.units.insert("etcd.service".to_owned());
        query.sysctls.insert("net.ipv4.ip_forward".to_owned());
        query.modules.insert("br_netfilter".to_owned());
        query.ports.insert(2379);
        query.packages.insert("curl".to_owned());
        query.blocks.insert("/etc/it's".to_owned());
        query.swap = true;
        query.firewall = true;
        query.address = Some(std::net::Ipv4Addr::new(10, 0, 0, 1));
        let lock = LockRequest { owner: "me 'here'".to_owned() };
        let text = script(&query, Some(&lock));
        let status = std::process::Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
        assert!(status.success(), "{text}");
    }

    #[test]
    fn sysctl_keys_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/x"), "net/ipv4/conf/eth0.1/x");
    }
}
