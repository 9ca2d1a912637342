//! Packages, swap, blocks and labels as shell functions.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::distribution::PackageManager;
use crate::quote::{quote, words};

/// `edit` changes somebody else's file: whatever else is in it stays, and so do its attributes.
pub(super) const EDIT: &str = r#"edit() { # FILE PROGRAM...: the file becomes what the program makes of it
  f=$(readlink -f -- "$1"); shift
  rm -f -- "$f.kprov-new"; cp -a -- "$f" "$f.kprov-new" || return 1
  "$@" <"$f" >"$f.kprov-new" || { rm -f -- "$f.kprov-new"; return 1; }
  if cmp -s -- "$f" "$f.kprov-new"; then rm -f -- "$f.kprov-new"; else mv -fT -- "$f.kprov-new" "$f"; fi
}
"#;

/// What was installed before is noted first, and what came with an installation afterwards: the
/// difference is what a reset removes. A note that is newer than the list belongs to an
/// installation that was broken off.
pub(super) const FUNCTIONS: &str = r##"installed() { # MANAGER
  case $1 in
    apt-get) dpkg-query -W -f '${Status} ${Package}\n' | sed -n 's/^install ok installed //p' ;;
    *) rpm -qa --qf '%{NAME}\n' ;;
  esac | sort -u
}
unfinished() { [ -f @DIR@/packages.before ] && ! [ @DIR@/packages -nt @DIR@/packages.before ]; }
offline=
install_packages() { # MANAGER NAMES...; with a folder in $offline, its files
  m=$1; shift
  mkdir -p @DIR@
  if ! unfinished; then
    # First: iptables makes tables when it is asked for one.
    nft list tables 2>/dev/null | sed 's/^table //' >@DIR@/nft-tables || :
    iptables -w -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p' >@DIR@/forward-policy || :
    [ ! -f /etc/firewalld/zones/docker.xml ] || : >@DIR@/docker-zone
    installed "$m" >@DIR@/packages.new
    sync @DIR@/packages.new; mv -fT @DIR@/packages.new @DIR@/packages.before
  fi
  case $m in
    apt-get)
      export DEBIAN_FRONTEND=noninteractive
      if [ -n "$offline" ]; then
        dpkg --force-confold --refuse-downgrade --skip-same-version --install "$offline"/*.deb 8>&-
      else
      dpkg --configure -a 8>&-
      apt-get -q update 8>&- || note "apt-get update failed; the lists that are there are used"
      apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold \
        --no-install-recommends install "$@" 8>&-
      fi ;;
    *)
      if [ -n "$offline" ]; then "$m" -q -y --disablerepo='*' install "$offline"/*.rpm 8>&-
      else "$m" -q -y install "$@" 8>&-; fi ;;
  esac
  for p in "$@"; do
    installed "$m" | grep -qxF -- "${p%%=*}" || rpm -q --quiet -- "$p" 2>/dev/null ||
      { echo "$m did not install $p"; return 1; }
  done
  installed "$m" >@DIR@/packages.after
  { cat @DIR@/packages 2>/dev/null || :; comm -13 @DIR@/packages.before @DIR@/packages.after; } |
    sort -u >@DIR@/packages.new
  sync @DIR@/packages.new; mv -fT @DIR@/packages.new @DIR@/packages
  rm -f @DIR@/packages.before @DIR@/packages.after
}
units_of() { # MANAGER NAMES...: what systemd may run of these packages, sockets first
  m=$1; shift
  { case $m in apt-get) dpkg-query -L "$@" ;; *) rpm -ql "$@" ;; esac; } 2>/dev/null |
    sed -n 's,^.*/systemd/system/\([^/@]*\.\(service\|socket\|timer\|path\)\)$,\1,p' |
    sort -u | sort -t . -k 2 -r
}
remove_packages() { # MANAGER
  installed "$1" >@DIR@/packages.after
  { cat @DIR@/packages 2>/dev/null || :
    if unfinished; then comm -13 @DIR@/packages.before @DIR@/packages.after; fi
  } | sort -u | comm -12 - @DIR@/packages.after >@DIR@/packages.new
  names=$(cat @DIR@/packages.new)
  [ -n "$names" ] || return 0
  # Not all packages stop what they have started: a unit must not outlive its file.
  for u in $(units_of "$1" $names); do
    case $(systemctl is-enabled "$u" 2>/dev/null) in enabled) systemctl -q disable "$u" || : ;; esac
    systemctl stop "$u" 2>/dev/null || note "$u of a package that is removed did not stop"
  done
  # Neither program removes what others need, nor asks a repository for anything.
  case $1 in
    apt-get) DEBIAN_FRONTEND=noninteractive dpkg --purge $names 8>&- || : ;;
    *)
      # All or nothing; else one after the other, those first that nobody needs.
      rpm -e $names 8>&- || while removed=; do
        for p in $names; do
          if rpm -q --quiet "$p" && rpm -e "$p" 2>/dev/null 8>&-; then removed=1; fi
        done
        [ -n "$removed" ] || break
      done ;;
  esac
  kept=$(installed "$1" | comm -12 - @DIR@/packages.new | tr '\n' ' ')
  [ -z "$kept" ] || note "kept packages that others need: $kept"
  systemctl daemon-reload
}
remove_engine_network() {
  ip link delete docker0 2>/dev/null || :
  for t in nat filter; do
    iptables-save -t $t 2>/dev/null | awk '
      /^-A / && (/DOCKER/ || /docker0/) && $2 !~ /^DOCKER/ { sub(/^-A/, "-D"); print }
    ' | while read -r rule; do eval "iptables -w -t $t $rule" || :; done
    chains=$(iptables-save -t $t 2>/dev/null | sed -n 's/^:\(DOCKER[^ ]*\) .*/\1/p')
    for c in $chains; do iptables -w -t $t -F "$c" || :; done
    for c in $chains; do iptables -w -t $t -X "$c" || :; done
  done
  # The engine makes a zone of its own in firewalld.
  z=/etc/firewalld/zones/docker.xml
  if [ -f $z ] && [ ! -f @DIR@/docker-zone ] && firewall-cmd --state >/dev/null; then
    firewall-cmd --permanent --delete-zone=docker >/dev/null && firewall-cmd --reload >/dev/null
    rm -f $z.old
  fi
  policy=$(cat @DIR@/forward-policy 2>/dev/null) || :
  [ -z "$policy" ] || iptables -w -P FORWARD "$policy"
  [ -f @DIR@/nft-tables ] && command -v nft >/dev/null 2>&1 || return 0
  # Tables that iptables made for the engine and that hold nothing any more.
  for t in nat filter mangle raw; do
    ! grep -qx "ip $t" @DIR@/nft-tables || continue
    nft list table ip $t 2>/dev/null | awk '
      NF && $1 != "table" && $1 != "chain" && $1 != "type" && $1 != "}" || /policy drop/ { used = 1 }
      END { exit used || !NR }' && nft delete table ip $t || :
  done
}
swap_off() { # SWAPS...
  if [ -f /etc/fstab ]; then
    edit /etc/fstab awk '$1 !~ /^#/ && $3 == "swap" { print "#kprov# " $0; next } { print }'
  fi
  for p in "$@"; do
    case $p in /*) ! awk '{ print $1 }' /proc/swaps | grep -qxF -- "$p" || swapoff -- "$p" ;; esac
  done
}
swap_on() { # SWAPS...
  [ ! -f /etc/fstab ] || edit /etc/fstab sed 's/^#kprov# //'
  for p in "$@"; do
    case $p in /*)
      awk '{ print $1 }' /proc/swaps | grep -qxF -- "$p" || swapon -- "$p" ||
        note "swap $p cannot be switched on again" ;;
    esac
  done
}
write_block() { # PATH TEXT
  [ -e "$1" ] || ( umask 022; : >"$1" )
  begin='# kprov begin'
  [ -z "$(tail -c 1 -- "$1")" ] || begin='# kprov begin (no end of line before)'
  export block="$2" begin
  edit "$1" awk '
    function put() { printf "%s\n%s# kprov end\n", begin, ENVIRON["block"]; done = 1 }
    BEGIN { begin = ENVIRON["begin"] }
    /^# kprov begin/ { on = 1; begin = $0; put(); next }
    /^# kprov end/ { on = 0; next }
    !on { print }
    END { if (!done) put() }'
}
remove_block() { # PATH EXISTED
  [ -f "$1" ] || return 0
  edit "$1" awk '
    /^# kprov begin/ { on = 1; cut = /no end of line before/; last = 1; next }
    /^# kprov end/ { on = 0; next }
    !on { printf "%s%s", between, $0; between = "\n"; last = 0 }
    END { if (between != "" && !(last && cut)) printf "\n" }'
  [ "$2" = true ] || [ -s "$1" ] || rm -f -- "$1"
}
"##;

pub(super) fn install(
    manager: PackageManager,
    packages: &BTreeSet<String>,
    files: &BTreeMap<String, Digest>,
) -> String {
    let install = format!("install_packages {manager} {}", listed(packages));
    if files.is_empty() {
        return install;
    }
    // Package managers tell a file from a package by its name.
    let link = |(name, digest): (&String, &Digest)| {
        format!("ln -f @DIR@/staging/{digest} @DIR@/staging/packages/{}\n", quote(name))
    };
    let links: String = files.iter().map(link).collect();
    format!("mkdir -p @DIR@/staging/packages\n{links}offline=@DIR@/staging/packages; {install}")
}

pub(super) fn swap(function: &str, swaps: &BTreeSet<String>) -> String {
    format!("{function} {}", listed(swaps))
}

pub(super) fn write_block(path: &str, text: &str) -> String {
    format!("write_block {} {}", quote(path), quote(text))
}

/// A policy that knows no label for the path leaves it as it is.
pub(super) fn relabel(path: &str) -> String {
    format!("restorecon -F -- {} || note {}", quote(path), quote(&format!("{path} has no label")))
}

fn listed(names: &BTreeSet<String>) -> String {
    words(names.iter().map(String::as_str))
}
