//! Changes of firewalls as shell functions, and the timer that takes them back.

use std::collections::{BTreeMap, BTreeSet};

use super::{SHARED, preparation};
use crate::firewall::{FirewallChange, FirewallKind, PODS_ZONE};
use crate::quote::{quote, words};

/// The unit of the timer.
pub(super) const UNDO: &str = "kprov-firewall-undo";

/// How long a change waits for its confirmation, in seconds: the time that a slow firewalld takes
/// for it, and that of a new connection.
pub(in crate::host) const GUARD_S: u32 = 120;

/// Adding what is there and removing what is not there succeeds and changes nothing.
pub(super) const FUNCTIONS: &str = r#"firewalld_keep() { # ZONE: what it was, for the day of a reset
  mkdir -p @DIR@/firewalld
  [ ! -f "@DIR@/firewalld/$1" ] || return 0
  firewall-cmd --permanent --zone="$1" --list-all >"@DIR@/firewalld/.new"
  if [ -f "/etc/firewalld/zones/$1.xml" ]; then : >"@DIR@/firewalld/.own-$1"; fi
  if [ -f "/etc/firewalld/zones/$1.xml.old" ]; then : >"@DIR@/firewalld/.old-$1"; fi
  mv -fT "@DIR@/firewalld/.new" "@DIR@/firewalld/$1"
}
firewalld_settle() { # ZONE: a file that was not there and says nothing new goes
  [ -f "@DIR@/firewalld/$1" ] || return 0
  firewall-cmd --permanent --zone="$1" --list-all 2>/dev/null |
    cmp -s - "@DIR@/firewalld/$1" || return 0
  [ -f "@DIR@/firewalld/.own-$1" ] || rm -f "/etc/firewalld/zones/$1.xml"
  [ -f "@DIR@/firewalld/.old-$1" ] || rm -f "/etc/firewalld/zones/$1.xml.old"
}
firewalld() { # add|remove ZONE RULES...
  op=$1 z=$2; shift 2
  n=$#
  for r in "$@"; do set -- "$@" "--$op-rich-rule=$r"; done
  shift "$n"
  if firewall-cmd --state >/dev/null 2>&1; then
    [ "$op" = remove ] || firewalld_keep "$z"
    firewall-cmd --permanent --zone="$z" "$@" >/dev/null
    firewall-cmd --zone="$z" "$@" >/dev/null
    [ "$op" = add ] || firewalld_settle "$z"
  else
    firewall-offline-cmd --zone="$z" "$@" >/dev/null
  fi
}
firewalld_pods() { # add|remove RANGE: a zone of their own, where the ports of hosts stay closed
  z=@ZONE@ c=firewall-offline-cmd
  if firewall-cmd --state >/dev/null 2>&1; then c='firewall-cmd --permanent'; fi
  if [ "$1" = add ]; then
    $c --get-zones | tr ' ' '\n' | grep -qxF $z || $c --new-zone=$z >/dev/null
    $c --zone=$z --set-target=ACCEPT >/dev/null
    for p in 2379-2380 10250; do
      rule="rule family=\"ipv4\" port port=\"$p\" protocol=\"tcp\" reject"
      $c --zone=$z --add-rich-rule="$rule" >/dev/null
    done
    $c --zone=$z --add-source="$2" >/dev/null
  else
    [ ! -f /etc/firewalld/zones/$z.xml ] || $c --delete-zone=$z >/dev/null
    rm -f /etc/firewalld/zones/$z.xml.old
  fi
  # A zone can be neither made nor removed while it is in use.
  [ "$c" = firewall-offline-cmd ] || firewall-cmd --reload >/dev/null
}
ufw_rule() { # add|remove ACTION PROTOCOL PORT TO ANY FROM IN
  case $1 in add) delete= ;; *) delete=delete ;; esac
  case $2-$3 in
    route:allow-*) set -- "$1" route $delete allow from "$7" to "$5" ;;
    # It has no ports.
    *-gre) set -- "$1" $delete allow proto "$3" from "$7" to "$5" ;;
    *) set -- "$1" $delete allow proto "$3" from "$7" to "$5" port "$4" ;;
  esac
  if [ "$1" = add ]; then set -- "$@" comment kprov; fi
  shift
  ufw "$@" >/dev/null
}
iptables_rule() { # add|remove RULE
  file=/etc/sysconfig/iptables
  if [ "$1" = add ]; then
    # As words: a rule has no quotes.
    iptables -w -C $2 2>/dev/null || iptables -w -I $2
    grep -qxF -- "-A $2" "$file" || edit "$file" awk -v rule="-A $2" '
      /^\*/ { on = /^\*filter/ }
      on && !done && !/^[*:#]/ { print rule; done = 1 }
      { print }
      END { exit !done }' || { echo "$file has no table called filter"; return 1; }
  else
    while iptables -w -D $2 2>/dev/null; do :; done
    if grep -sqxF -- "-A $2" "$file"; then
      edit "$file" awk -v rule="-A $2" '$0 != rule'
    fi
  fi
}
nftables_rule() { # add|remove MARK FAMILY TABLE CHAIN RULE
  file=/etc/nftables.conf
  if [ -f /etc/sysconfig/nftables.conf ]; then file=/etc/sysconfig/nftables.conf; fi
  handles=$(nft -a list chain "$3" "$4" "$5" 2>/dev/null |
    sed -n "s/.*\"$2\".* # handle \([0-9]*\)\$/\1/p")
  if [ "$1" = add ]; then
    [ -n "$handles" ] || nft insert rule "$3" "$4" "$5" "$6"
    if ! grep -qF -- "$2" "$file"; then
      export line="insert rule $3 $4 $5 $6"
      edit "$file" awk '{ print } END { print ENVIRON["line"] }'
    fi
  else
    for h in $handles; do nft delete rule "$3" "$4" "$5" handle "$h"; done
    if grep -sqF -- "$2" "$file"; then edit "$file" awk -v mark="$2" '!index($0, mark)'; fi
  fi
}
firewall_switch() { # KIND on|off
  case $1-$2 in
    ufw-on) ufw --force enable >/dev/null ;;
    ufw-off) ufw --force disable >/dev/null ;;
    nftables-*) echo "nftables cannot be switched"; return 1 ;;
    *-on) systemctl --quiet enable "$1" && systemctl start "$1" ;;
    *-off) systemctl --quiet disable "$1" && systemctl stop "$1" ;;
  esac
}
"#;

/// What only the run itself does, not the timer.
pub(super) const GUARD: &str = r#"guard_firewall() { # SCRIPT
  undo=@DIR@/firewall-undo.sh text=$1
  mkdir -p @DIR@
  # What a killed run has not confirmed is taken back too, after what this one does.
  if systemctl is-active --quiet @UNDO@.timer; then text="$text
$(cat "$undo")"; fi
  systemctl stop @UNDO@.timer 2>/dev/null || :
  systemctl reset-failed @UNDO@.service 2>/dev/null || :
  write "$text" "$undo"
  out=$(systemd-run --unit=@UNDO@ --on-active=@GUARD@ --timer-property=AccuracySec=1s \
    /bin/sh "$undo" 2>&1) || { echo "$out"; return 1; }
}
"#;

/// Disarms the timer; run over a new connection, by the holder of the lock.
pub(super) const CONFIRM: &str = r#"if ! systemctl is-active --quiet @UNDO@.timer; then
  echo "nobody confirmed the change of the firewall in time: it was taken back"
  exit 1
fi
systemctl stop @UNDO@.timer
rm -f -- @DIR@/firewall-undo.sh
say =done
"#;

/// The commands of a change.
pub(super) fn change(change: &FirewallChange) -> String {
    match change {
        FirewallChange::Rules { kind, open, close } => {
            // What is new is open before what is old is closed.
            let commands: Vec<_> = rules(*kind, "add", open)
                .into_iter()
                .chain(rules(*kind, "remove", close))
                .collect();
            if commands.is_empty() { ":".to_owned() } else { commands.join("; ") }
        }
        FirewallChange::Switch { kind, on } => {
            format!("firewall_switch {kind} {}", if *on { "on" } else { "off" })
        }
    }
}

fn rules(kind: FirewallKind, verb: &str, rules: &BTreeSet<String>) -> Vec<String> {
    match kind {
        FirewallKind::Firewalld => firewalld(verb, rules),
        FirewallKind::Ufw => {
            let words_of = |rule: &String| words(rule.split(' '));
            rules.iter().map(|rule| format!("ufw_rule {verb} {}", words_of(rule))).collect()
        }
        FirewallKind::Iptables => {
            rules.iter().map(|rule| format!("iptables_rule {verb} {}", quote(rule))).collect()
        }
        FirewallKind::Nftables => rules.iter().map(|rule| nftables(verb, rule)).collect(),
    }
}

/// One command a zone: each call takes part of a second.
fn firewalld(verb: &str, rules: &BTreeSet<String>) -> Vec<String> {
    let mut zones: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut commands = Vec::new();
    for rule in rules {
        let (zone, rest) = rule.split_once(' ').unwrap_or(("public", rule));
        match rest.strip_prefix("zone ") {
            Some(range) if zone == PODS_ZONE => {
                commands.push(format!("firewalld_pods {verb} {}", quote(range)));
            }
            _ => zones.entry(zone).or_default().push(rest),
        }
    }
    // A reload forgets what is not permanent; so the zone of pods, which needs one, comes first.
    commands.extend(
        zones
            .into_iter()
            .map(|(zone, rules)| format!("firewalld {verb} {} {}", quote(zone), words(rules))),
    );
    commands
}

fn nftables(verb: &str, rule: &str) -> String {
    let mark = FirewallKind::Nftables.key(rule);
    let mut parts = rule.splitn(4, ' ');
    let mut part = || quote(parts.next().unwrap_or_default());
    let (family, table, chain) = (part(), part(), part());
    format!("nftables_rule {verb} {mark} {family} {table} {chain} {}", part())
}

/// The command that arms the timer with what takes `changes` back.
pub(super) fn guard(undo: &[FirewallChange]) -> String {
    let commands: String = undo.iter().map(|undo| format!("{}\n", change(undo))).collect();
    let script = format!(
        "export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         say() {{ :; }}\n{SHARED}{}{FUNCTIONS}{commands}rm -f -- @DIR@/firewall-undo.sh\n",
        preparation::EDIT
    );
    format!("guard_firewall {}", quote(&script))
}
