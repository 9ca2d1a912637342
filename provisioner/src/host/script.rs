//! Steps as a script for a POSIX shell running as root.

use std::fmt::Write as _;
use std::time::Duration;

use crate::digest::Digest;
use crate::facts::sysctl_path;
use crate::quote::quote;
use crate::record::{DIRECTORY, Prior};
use crate::step::Step;

use super::packing;

mod firewall;
mod preparation;
mod probe;

pub(super) use firewall::GUARD_S;
pub(super) use probe::{END_PROBE, NO_PROBE, probe, receive_probe};

/// Exit code of a script that found its lock taken over.
pub(super) const LOCK_LOST: i32 = 76;

/// Longest wait for systemd to call a unit active, in seconds: its own limit is 90 by default.
const START_WAIT_S: u32 = 120;

/// Who may write: the holder of the lock, unless a later run has written since.
pub(super) struct Claim<'a> {
    /// The one line that names the run.
    pub(super) owner: &'a str,
    /// The run's generation.
    pub(super) generation: u64,
}

/// The script that runs `steps`. It prints `=step N` when step N begins, `=note TEXT` for notes
/// and `=failed N CODE` at a failure; all other lines are output of commands.
///
/// All of it is one function, so a script that was cut short in transit does nothing.
pub(super) fn steps(claim: &Claim<'_>, steps: &[Step]) -> String {
    let mut out = prelude(claim);
    out.push_str(HEARTBEAT);
    let functions = [SHARED, FUNCTIONS, preparation::EDIT, preparation::FUNCTIONS];
    let firewall = [firewall::FUNCTIONS, firewall::GUARD];
    functions.into_iter().chain(firewall).for_each(|text| out.push_str(text));
    out.push_str("main() {\n:\n");
    for (number, step) in steps.iter().enumerate() {
        let _ = writeln!(out, "s {number}; {}", of_step(step));
    }
    out.push_str("}\nmain </dev/null\nsay =done\n");
    filled(&out)
}

/// The script that confirms a change of the firewall.
pub(super) fn confirm(claim: &Claim<'_>) -> String {
    filled(&format!("{}{}", prelude(claim), firewall::CONFIRM))
}

fn filled(text: &str) -> String {
    text.replace("@DIR@", DIRECTORY)
        .replace("@WAIT@", &START_WAIT_S.to_string())
        .replace("@UNDO@", firewall::UNDO)
        .replace("@GUARD@", &firewall::GUARD_S.to_string())
        .replace("@ZONE@", crate::firewall::PODS_ZONE)
}

/// The command that unpacks a tar stream of uploads, packed ([`packing`]), into an empty staging area and checks it.
/// The shell's standard input is the stream itself, so this one is an argument, not a stream.
pub(super) fn unpack(claim: &Claim<'_>) -> String {
    let text = format!(
        "{}mkdir -p @DIR@ @DIR@/staging\nrm -rf @DIR@/staging/*\ncd @DIR@/staging\n\
         {} | tar -xf - --no-same-owner\nsha256sum --quiet -c SUMS\nsay =done\n",
        prelude(claim),
        packing::RECEIVE
    );
    text.replace("@DIR@", DIRECTORY)
}

/// The script that runs a command of the operator's. It prints `=code CODE` at the end; all other
/// lines are the command's.
pub(super) fn command(claim: &Claim<'_>, command: &str, limit: Duration) -> String {
    // Whole seconds are what every `timeout` understands.
    let limit_s = limit.as_secs().max(1);
    let text = format!(
        "{}{HEARTBEAT}main() {{\ncode=0\n\
         timeout -k {KILL_AFTER_S} {limit_s} sh -c {} 8>&- || code=$?\n\
         say \"=code $code\"\n}}\nmain </dev/null\n",
        prelude(claim),
        quote(command)
    );
    text.replace("@DIR@", DIRECTORY)
}

/// Whether an exit code of [`command`] says that the command's time was over.
pub(super) fn was_killed(code: i32) -> bool {
    [124, 137].contains(&code)
}

/// How long a command may take to end when it is asked to, in seconds.
const KILL_AFTER_S: u32 = 2;

/// The name of the list of digests within the staging area.
pub(super) const SUMS: &str = "SUMS";

/// The script that kills the holder of the lock.
pub(super) fn break_lock() -> &'static str {
    r#"[ -f /run/kprov/owner ] || exit 0
exec 9>>/run/kprov/lock
flock -n 9 && exit 0
{ read -r who && read -r pid; } </run/kprov/owner
echo "=holder $who"
kill -KILL "$pid"
"#
}

fn prelude(claim: &Claim<'_>) -> String {
    format!(
        r#"set -eu
umask 077
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
say() {{ printf '%s\n' "$*"; }}
n=0
trap 'c=$?; [ "$c" = 0 ] || say "=failed $n $c"' EXIT
exec 8>>/run/kprov/busy
flock -w 10 8 || exit {LOCK_LOST}
{{ read -r who && read -r pid; }} </run/kprov/owner || exit {LOCK_LOST}
[ "$who" = {owner} ] && kill -0 "$pid" || exit {LOCK_LOST}
f=0; [ ! -f @DIR@/fence ] || read -r f <@DIR@/fence || :
case $f in ''|*[!0-9]*) f=0 ;; esac
[ "$f" -le {generation} ] || exit {LOCK_LOST}
if [ "$f" -lt {generation} ]; then
  mkdir -p @DIR@; echo {generation} >@DIR@/fence.new
  sync @DIR@/fence.new; mv -fT -- @DIR@/fence.new @DIR@/fence
fi
"#,
        owner = quote(claim.owner),
        generation = claim.generation,
    )
}

/// A line every few seconds, so that a silent host is a dead one even while a unit takes its time
/// to start. Its sleep must not hold the output open, nor the lock.
const HEARTBEAT: &str = r#"( while :; do sleep 5 >/dev/null 2>&1; say =alive; done ) 8>&- &
heart=$!
trap 'c=$?; kill "$heart" 2>/dev/null; [ "$c" = 0 ] || say "=failed $n $c"' EXIT
"#;

/// What the timer that takes changes back needs as well.
const SHARED: &str = r#"note() { say "=note $*"; }
"#;

/// Every function leaves a path either as it was or as it should be: the new object is made
/// beside its target and renamed over it.
const FUNCTIONS: &str = r#"s() { n=$1; say "=step $1"; }
put() { # SOURCE TARGET MODE OWNER
  cp --reflink=auto -- "$1" "$2.kprov-new"
  chown -- "$4" "$2.kprov-new"; chmod -- "$3" "$2.kprov-new"
  mv -fT -- "$2.kprov-new" "$2"
}
keep_digest() { # PATH DIGEST: for the next facts, where reading the file would take long
  [ "$(stat -c %s -- "$1")" -ge 1048576 ] || return 0
  mkdir -p @DIR@/digests
  c="@DIR@/digests/$(printf '%s' "$1" | tr / _)"
  printf '%s\n%s\n' "$(stat -c '%i %s %y %z' -- "$1")" "$2" >"$c.new"; mv -fT -- "$c.new" "$c"
}
write() { # TEXT TARGET
  printf '%s\n' "$1" >"$2.new"; sync "$2.new"; mv -fT -- "$2.new" "$2"
}
link() { # TARGET PATH
  rm -f -- "$2.kprov-new"; ln -s -- "$1" "$2.kprov-new"; mv -fT -- "$2.kprov-new" "$2"
}
directory() { # PATH MODE OWNER
  if [ -e "$1" ] && [ ! -d "$1" ]; then rm -f -- "$1"; fi
  [ -d "$1" ] || mkdir -- "$1"
  chown -- "$3" "$1"; chmod -- "$2" "$1"
}
back_up() { # PATH
  mkdir -p "@DIR@/prior${1%/*}"
  cp -a -- "$1" "@DIR@/prior$1.new"; sync "@DIR@/prior$1.new"
  mv -fT -- "@DIR@/prior$1.new" "@DIR@/prior$1"
}
give_back() { # PATH
  if [ ! -e "@DIR@/prior$1" ]; then note "$1 cannot be restored: its old bytes are gone"; return 0; fi
  cp -a -- "@DIR@/prior$1" "$1.kprov-new"; mv -fT -- "$1.kprov-new" "$1"
}
remove() { # PATH
  rm -f -- "$1.kprov-new"
  if [ -L "$1" ] || [ ! -d "$1" ]; then rm -f -- "$1"; return 0; fi
  rmdir -- "$1" 2>/dev/null || note "kept $1: it holds $(ls -A "$1" | head -n 5 | tr '\n' ' ')"
}
start() { # UNIT
  systemctl reset-failed "$1" 2>/dev/null || :
  code=0; timeout @WAIT@ systemctl restart "$1" 8>&- || code=$?
  # One that lost its first race with what it depends on is given the time to try again.
  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    systemctl is-active --quiet "$1" && return 0
    case $(systemctl show -p ActiveState "$1") in
      *=activating|*=deactivating|*=reloading) sleep 0.5 ;;
      *) break ;;
    esac
  done
  echo "$1 is $(systemctl show -p ActiveState -p SubState -p Result "$1" | tr '\n' ' ')"
  [ "$code" != 0 ] || code=3
  return "$code"
}
stop() { systemctl stop "$1" 2>/dev/null || ! systemctl is-active --quiet "$1"; }
have_docker() {
  command -v docker >/dev/null 2>&1 || return 1
  docker version >/dev/null 2>&1 || { systemctl start docker && docker version >/dev/null; } 2>&1
}
load_image() { # ARCHIVE REFERENCE MARK
  docker load -q -i "@DIR@/staging/$1"
  id=$(docker image ls --no-trunc --format '{{.ID}}' "$2" | head -n 1)
  [ -n "$id" ] || { echo "the archive holds no image named $2"; return 1; }
  mkdir -p @DIR@/images; write "$1 $id $2" "@DIR@/images/$3"
}
remove_containers() {
  have_docker || return 0
  ids=$(docker ps -aq --filter name=^/k8s_)
  [ -z "$ids" ] || docker rm -f -v $ids >/dev/null
  docker network ls --format '{{.Name}}' | while read -r network; do
    case $network in k8s_*|kube-*|kprov|kprov-*) docker network rm "$network" >/dev/null || : ;; esac
  done
}
remove_data() { # PATH
  awk -v p="$1/" 'index($2, p) == 1 { print $2 }' /proc/mounts | sort -r | while read -r m; do
    umount -l -- "$(printf '%b' "$m")" || note "$m is still mounted"
  done
}
remove_network() {
  rm -rf -- /run/flannel
  # Bridges of others bear no mark of ours.
  if command -v ovs-vsctl >/dev/null 2>&1; then
    for b in $(ovs-vsctl -t 10 --bare --columns=name find Bridge external_ids:kprov=overlay); do
      ovs-vsctl -t 10 --if-exists del-br "$b"
    done
  fi
  # Routes of flanneld bear its number, and go with no device where they need none of their own.
  ip -4 route flush table main proto 88 || :
  for l in /sys/class/net/*; do
    l=${l##*/}
    case $l in flannel.*|flannel-*|cni0|kbr0|kube-*|kprov-*) ip link delete "$l" || : ;; esac
  done
  if command -v nft >/dev/null 2>&1; then
    nft list tables 2>/dev/null | while read -r _ family table; do
      case $table in kube-*|flannel*) nft delete table "$family" "$table" || : ;; esac
    done
  fi
  for i in iptables ip6tables; do
    command -v "$i-save" >/dev/null 2>&1 || continue
    for t in nat filter mangle; do
      "$i-save" -t "$t" 2>/dev/null | awk '
        /^-A / && / -j (KUBE|FLANNEL)-/ && $2 !~ /^(KUBE|FLANNEL)-/ { sub(/^-A/, "-D"); print }
      ' | while read -r rule; do eval "$i -t $t $rule" || :; done
      chains=$("$i-save" -t "$t" 2>/dev/null | sed -n 's/^:\(\(KUBE\|FLANNEL\)-[^ ]*\) .*/\1/p')
      for c in $chains; do "$i" -t "$t" -F "$c" || :; done
      for c in $chains; do "$i" -t "$t" -X "$c" || :; done
    done
  done
}
"#;

fn of_step(step: &Step) -> String {
    let q = |text: &str| quote(text);
    match step {
        Step::BackUp { path } => format!("back_up {}", q(path)),
        Step::WriteRecord { record } => {
            format!("mkdir -p @DIR@; write {} @DIR@/record.json", quote(&record.to_json()))
        }
        Step::Forget { unit } => format!("rm -f -- @DIR@/started/{}", q(unit)),
        Step::MakeDirectory { path, mode, owner } => {
            format!("directory {} {mode} {}", q(path), q(&owner.0))
        }
        Step::Install { path, mode, owner, sha256 } => {
            let (path, owner) = (q(path), q(&owner.0));
            format!("put @DIR@/staging/{sha256} {path} {mode} {owner}; keep_digest {path} {sha256}")
        }
        Step::SetAttributes { path, mode, owner } => {
            let (path, owner) = (q(path), q(&owner.0));
            format!("chown -- {owner} {path}; chmod -- {mode} {path}")
        }
        Step::Link { path, target } => format!("link {} {}", q(target), q(path)),
        Step::Restore { path, prior } => restore(path, prior),
        Step::Sysctl { key, value } => {
            format!(
                "printf '%s\\n' {} >{}",
                q(value),
                q(&format!("/proc/sys/{}", sysctl_path(key)))
            )
        }
        Step::LoadModule { module } => format!("modprobe -- {}", q(module)),
        Step::UnloadModule { module } => format!("modprobe -q -r -- {} || :", q(module)),
        Step::Reload => "systemctl daemon-reload".to_owned(),
        // Asked first, because enabling what is enabled can still move links of old init scripts.
        Step::Enable { unit } => format!(
            "systemctl --quiet is-enabled {unit} 2>/dev/null || systemctl --quiet enable {unit}",
            unit = q(unit)
        ),
        Step::EnableQuietly { unit } => format!(
            "systemctl --quiet is-enabled {unit} 2>/dev/null || systemctl --quiet --no-reload \
             enable {unit}",
            unit = q(unit)
        ),
        Step::Disable { unit } => format!(
            "! systemctl --quiet is-enabled {unit} 2>/dev/null || systemctl --quiet disable {unit}",
            unit = q(unit)
        ),
        Step::Start { unit } => {
            format!("systemctl is-active --quiet {unit} || start {unit}", unit = q(unit))
        }
        Step::Restart { unit } => format!("start {}", q(unit)),
        Step::Stop { unit } => format!("stop {}", q(unit)),
        Step::MarkStarted { unit, inputs } => {
            format!("mkdir -p @DIR@/started; write {inputs} @DIR@/started/{}", q(unit))
        }
        Step::LoadImage { reference, archive } => {
            let mark = Digest::of(reference.as_bytes());
            format!("load_image {archive} {} {mark}", q(reference))
        }
        Step::RemoveImage { reference } => {
            format!("have_docker && docker image rm -f {} >/dev/null 2>&1 || :", q(reference))
        }
        Step::RemoveContainers => "remove_containers".to_owned(),
        Step::RemoveNetwork => "remove_network 2>/dev/null".to_owned(),
        Step::SetAside { path } => format!(
            "[ ! -e {path} ] || mv -T -- {path} \"$(printf %s {path}).kprov-aside.$(date -u \
             +%Y%m%dT%H%M%SZ)\"",
            path = q(path)
        ),
        Step::RemoveData { path, prior } => remove_data(path, prior),
        Step::RemoveEngineNetwork => "remove_engine_network 2>/dev/null".to_owned(),
        Step::InstallPackages { manager, packages, files } => {
            preparation::install(*manager, packages, files)
        }
        Step::RemovePackages { manager } => format!("remove_packages {manager}"),
        Step::SwapOff { swaps } => preparation::swap("swap_off", swaps),
        Step::SwapOn { swaps } => preparation::swap("swap_on", swaps),
        Step::WriteBlock { path, text } => preparation::write_block(path, text),
        Step::RemoveBlock { path, existed } => format!("remove_block {} {existed}", q(path)),
        Step::Relabel { path } => preparation::relabel(path),
        Step::GuardFirewall { undo } => firewall::guard(undo),
        Step::ChangeFirewall { change } => firewall::change(change),
        // A host does this between two scripts; see `shell`.
        Step::ConfirmFirewall => ":".to_owned(),
        Step::ResetFailed => "systemctl reset-failed 2>/dev/null || :".to_owned(),
        Step::ClearStaging => "rm -rf -- @DIR@/staging".to_owned(),
        Step::RemoveRecord => "rm -rf -- @DIR@ /run/kprov".to_owned(),
    }
}

fn restore(path: &str, prior: &Prior) -> String {
    let quoted = quote(path);
    match prior {
        Prior::Absent => format!("remove {quoted}"),
        Prior::File { .. } => format!("give_back {quoted}"),
        Prior::Link { target } => format!("link {} {quoted}", quote(target)),
        Prior::Directory { mode, owner, .. } => {
            format!("directory {quoted} {mode} {}", quote(&owner.0))
        }
        Prior::Other => ":".to_owned(),
    }
}

fn remove_data(path: &str, prior: &Prior) -> String {
    let quoted = quote(path);
    let rest = match prior {
        Prior::Absent => format!("rm -rf --one-file-system -- {quoted}"),
        Prior::Directory { empty: true, .. } => {
            format!("[ ! -d {quoted} ] || find {quoted} -xdev -mindepth 1 -delete")
        }
        _ => format!("note kept {quoted}: it was in use before kprov"),
    };
    format!("remove_data {quoted}; {rest}")
}

#[cfg(test)]
mod tests;
