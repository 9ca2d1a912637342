//! The questions about packages, swap, blocks, labels and firewalls.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::FactsQuery;
use crate::quote::{quote, words};

/// What begins and ends a block of ours within a file, as a pattern of `awk`.
const BLOCK_BEGIN: &str = "# kprov begin";
const BLOCK_END: &str = "# kprov end";

/// The questions besides those of firewalls.
pub(super) fn questions(query: &FactsQuery) -> String {
    let mut out = String::new();
    if !query.packages.is_empty() {
        let names = words(query.packages.iter().map(String::as_str));
        let _ = writeln!(out, "set -- {names}");
        out.push_str(PACKAGES);
    }
    if query.swap {
        out.push_str(SWAP);
    }
    for path in &query.blocks {
        let path = quote(path);
        let _ = writeln!(
            out,
            "grep -qs '^{BLOCK_BEGIN}' {path} && say \"=block $(awk '/^{BLOCK_BEGIN}/ {{ on = 1; \
             next }} /^{BLOCK_END}/ {{ on = 0 }} on' {path} | sha256sum | cut -c 1-64)\" {path}"
        );
    }
    let labelled = query.paths.iter().map(String::as_str);
    if !query.paths.is_empty() {
        let _ = writeln!(out, "[ -z \"$enforcing\" ] || {{ set -- {}", words(labelled));
        out.push_str(LABELS);
    }
    out
}

/// A package counts when it is installed whole.
const PACKAGES: &str = r#"if command -v dpkg-query >/dev/null 2>&1 && [ -s /var/lib/dpkg/status ]; then
  dpkg-query -W -f '=package ${Status} ${Package}\n' "$@" 2>/dev/null |
    sed -n 's/^=package install ok installed /=package /p'
else for p in "$@"; do rpm -q --quiet -- "$p" 2>/dev/null && say "=package $p"; done; fi
"#;

/// An installation that was broken off; see `host::script`.
pub(super) const UNFINISHED: &str = r#"[ -f @DIR@/packages.before ] &&
  ! [ @DIR@/packages -nt @DIR@/packages.before ] && say "=packages-unfinished"
"#;

/// What is on now, and what the next boot would switch on.
const SWAP: &str = r#"awk 'NR > 1 { print "=swap " $1 }' /proc/swaps 2>/dev/null
awk '$1 !~ /^#/ && $3 == "swap" { print "=swap fstab:" $1 }' /etc/fstab 2>/dev/null
"#;

/// `restorecon` says in two ways what it would do, an old one and a new one.
const LABELS: &str = r#"restorecon -n -v -- "$@" 2>/dev/null | sed -n \
  -e 's/^Would relabel \(.*\) from [^ ]* to [^ ]*$/=mislabelled \1/p' \
  -e 's/^restorecon reset \(.*\) context [^ ]*$/=mislabelled \1/p'; }
"#;

/// The rules of a firewall that is on. The programs of firewalld are slow, so that they run while
/// other questions are answered.
pub(super) fn firewall(address: Option<Ipv4Addr>) -> String {
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    FIREWALL.replace("@ADDRESS@", &address)
}

const FIREWALL: &str = r#"case $firewall in
firewalld)
  { i=$(ip -o -4 address show to @ADDRESS@ 2>/dev/null | awk 'NR == 1 { print $2 }')
    z=$([ -n "$i" ] && firewall-cmd --get-zone-of-interface="$i" 2>/dev/null) ||
      z=$(firewall-cmd --get-default-zone 2>/dev/null)
    say "=zone $z"
    firewall-cmd --zone="$z" --list-rich-rules 2>/dev/null | sed "s/^/=runtime $z /"
    firewall-cmd --permanent --zone="$z" --list-rich-rules 2>/dev/null | sed "s/^/=permanent $z /"
    if [ -f /etc/firewalld/zones/kprov.xml ]; then
      sed -n 's/.*<source address="\([^"]*\)".*/=permanent kprov zone \1/p' \
        /etc/firewalld/zones/kprov.xml
      firewall-cmd --zone=kprov --list-sources 2>/dev/null | tr ' ' '\n' |
        sed -n 's/^\(.\{1,\}\)$/=runtime kprov zone \1/p'
    fi
  } >>"$t" 2>/dev/null 9>&- & ;;
ufw)
  cat /etc/ufw/user.rules /lib/ufw/user.rules 2>/dev/null | sed -n 's/^### tuple ### //p' |
    sed -e 's/ comment=[0-9a-f]*$//' -e 's/^/=permanent /' ;;
iptables)
  grep -o 'kprov-[0-9a-f]\{12\}' /etc/sysconfig/iptables 2>/dev/null | sed 's/^/=permanent /'
  iptables -w -S 2>/dev/null | grep -o 'kprov-[0-9a-f]\{12\}' | sed 's/^/=runtime /' ;;
nftables)
  grep -ho 'kprov-[0-9a-f]\{12\}' /etc/sysconfig/nftables.conf /etc/nftables.conf 2>/dev/null |
    sed 's/^/=permanent /'
  nft list ruleset 2>/dev/null | awk '
    $1 == "table" { family = $2; table = $3 }
    $1 == "chain" { chain = $2 }
    $1 == "type" && $2 == "filter" && ($4 == "input" || $4 == "forward") &&
      (family == "inet" || family == "ip") && table !~ /^(kube|flannel|docker|firewalld)/ &&
      chain !~ /^[A-Z]/ { print "=chain " $4 " " family " " table " " chain }
    match($0, /kprov-[0-9a-f]+/) { print "=runtime " substr($0, RSTART, RLENGTH) }' ;;
esac
"#;
