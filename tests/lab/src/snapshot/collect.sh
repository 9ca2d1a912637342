# Prints what a host is, in sections that two snapshots compare line by line. Leaves out what
# changes by itself: times, counters, indexes, process numbers, caches.

# Also where the classic layout of files lies.
roots='/etc /usr/local /opt /root /home /srv /k8s /data1 /var/lib /var/spool/cron'

section() { printf '== %s\n' "$1"; }

section files
for root in $roots; do
    [ -e "$root" ] || continue
    find "$root" -xdev \
        \( -path /var/lib/docker -o -path /var/lib/containerd -o -path /var/lib/systemd \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/rpm -o -path /var/lib/dnf -o -path /var/lib/sudo \
        -o -path /var/lib/private -o -path /etc/machine-id -o -path /etc/ld.so.cache \
        -o -path /etc/.pwd.lock \) -prune \
        -o \( -type f -printf 'f %m %u:%g %p\0' \) \
        -o \( -type l -printf 'l %u:%g %p -> %l\0' \) \
        -o \( -printf '%y %m %u:%g %p\0' \)
done | sort -z | tr '\0' '\n'
section contents
for root in $roots; do
    [ -e "$root" ] || continue
    find "$root" -xdev \
        \( -path /var/lib/docker -o -path /var/lib/containerd -o -path /var/lib/systemd \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/rpm -o -path /var/lib/dnf -o -path /var/lib/sudo \
        -o -path /var/lib/private -o -path /etc/machine-id -o -path /etc/ld.so.cache \
        -o -path /etc/.pwd.lock \) -prune -o -type f -print0
done | sort -z | xargs -0 -r sha256sum
# Large and rarely touched: size and time tell as much as a hash.
section programs
find /usr/bin /usr/sbin /usr/lib/systemd /usr/lib/modules-load.d /usr/lib/sysctl.d -xdev \
    ! -type d -printf '%y %m %u:%g %s %TY-%Tm-%Td %p\n' 2>/dev/null | sort

section unit-files
systemctl list-unit-files --no-legend --no-pager --full |
    awk '$2 != "transient" && $2 != "generated" { print $1, $2 }' | sort
section units
systemctl list-units --all --plain --no-legend --no-pager --full \
    --type=service,socket,timer,path,target |
    awk '$3 != "inactive" { print $1, $3, $4 }' |
    grep -Ev '^(user@|user-runtime-dir@|session-|systemd-tmpfiles-clean|run-|modprobe@)' | sort

section sysctls
sysctl -a 2>/dev/null |
    grep -E '^(net\.(ipv4|ipv6|bridge|core|netfilter|unix)|vm|kernel|fs|user)\.' |
    grep -Ev '\.(neigh|conf)\.(veth|cali|cni|br-)|^kernel\.(random|ns_last_pid|pty\.nr|sched_domain|perf_event_max_sample_rate)|^kernel\.(hostname|domainname)|^fs\.(dentry|inode|file-nr|aio-nr|quota|overlay)|nf_conntrack_(count|buckets)|tcp_fastopen_key|\.stable_secret|^vm\.stat' |
    sed 's/[[:space:]]\{1,\}/ /g' | sort

section links
ip -o link show | sed -E 's/^[0-9]+: //; s/@[^:]*//' |
    awk '$1 !~ /^veth/ { line = $1
        for (i = 2; i < NF; i++) if ($i == "mtu" || $i == "master") line = line " " $i " " $(i + 1)
        print line }' | sort
section addresses
ip -o address show | awk '$3 == "inet" || $4 !~ /^fe80/ { print $2, $3, $4 }' |
    grep -v '^veth' | sort
section routes
{ ip route show table all; ip -6 route show table all; } |
    sed -E 's/ linkdown//; s/[[:space:]]+$//' |
    grep -Ev 'fe80|ff00|dev veth|expires' | sort -u
section rules
ip rule show
section neighbours
{ ip neigh show nud permanent; bridge fdb show 2>/dev/null | grep ' dst '; } | sort
section listening
# The engine's name server, and containerd's streams: at a port that is new each time.
ss -H -l -t -u -n | awk '{ print $1, $5 }' |
    grep -Ev ' 127\.0\.0\.11:| 127\.0\.0\.1:(3[3-9]|[45][0-9]|6[0-5])[0-9]{3}$' | sort -u

section firewall
nft --stateless list ruleset 2>/dev/null
for table in $(cat /proc/net/ip_tables_names 2>/dev/null); do
    iptables-legacy-save -t "$table" 2>/dev/null | grep -v '^#' | sed -E 's/ \[[0-9:]+\]$//'
done
command -v ipset >/dev/null && ipset list -n

section mounts
findmnt --raw --noheadings --output TARGET,FSTYPE |
    grep -Ev '^/(run|var/lib/docker|var/lib/containerd|proc|sys)' | sort
section control-groups
find /sys/fs/cgroup -maxdepth 3 -type d -name '*kube*' 2>/dev/null | sort

section docker
if systemctl --quiet is-active docker.service; then
    docker ps --all --format 'container {{.Names}} {{.Image}} {{.State}}' | sort
    docker images --all --format 'image {{.Repository}}:{{.Tag}} {{.ID}}' | sort
    docker network ls --format 'network {{.Name}} {{.Driver}}' | sort
    docker volume ls --format 'volume {{.Name}}' | sort
fi
