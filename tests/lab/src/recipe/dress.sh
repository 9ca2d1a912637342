#!/bin/sh
# Runs once while an image is built, after customize.sh, outside the new root, which is $1. Dresses a
# Debian as $2: its release files, its package manager with a local repository that has Docker, and
# its firewall. Docker itself is not left installed.
set -eu
root=$1 kind=$2

release() { # ID VERSION NAME LIKE
    version_id=$2
    rm -f "$root/etc/os-release"
    cat >"$root/usr/lib/os-release" <<ENDRELEASE
NAME="$3"
VERSION="$2"
ID="$1"
ID_LIKE="$4"
VERSION_ID="$2"
PRETTY_NAME="$3 $2"
ENDRELEASE
    ln -s ../usr/lib/os-release "$root/etc/os-release"
    rm -f "$root/etc/debian_version" "$root/etc/issue"
}

# What belongs to Docker, and must be gone when its packages are not installed.
engine="docker.io containerd runc tini"
present=
for package in $engine; do
    if chroot "$root" dpkg-query -W "$package" >/dev/null 2>&1; then present="$present $package"; fi
done
mkdir -p "$root/srv/packages"

remove_engine() {
    chroot "$root" dpkg --purge --force-depends $present
    # Its package makes it; without it there would be one more difference after an installation.
    chroot "$root" groupadd --force --system docker
    rm -rf "$root/etc/docker" "$root/var/lib/docker" "$root/var/lib/containerd"
    mkdir -p "$root/var/lib/docker" "$root/var/lib/containerd"
}

# A configuration that suits a host within a host: it is not part of the package.
configure_engine() { # DIRECTORY
    mkdir -p "$1/etc/docker"
    cp "$root/etc/docker/daemon.json" "$1/etc/docker/daemon.json"
}

# CentOS 7's own package names programs otherwise, and its unit takes options from several files.
# Docker's bridge has its usual range: nothing of the package says another one.
rename_engine() { # DIRECTORY
    mkdir -p "$1/usr/bin" "$1/etc/sysconfig"
    mv "$1/usr/sbin/dockerd" "$1/usr/bin/dockerd-current"
    rm -f "$1"/usr/lib/systemd/system/docker.socket
    sed -i '/"bip"/d' "$1/etc/docker/daemon.json"
    echo "OPTIONS='--log-level=info'" >"$1/etc/sysconfig/docker"
    echo "DOCKER_STORAGE_OPTIONS=" >"$1/etc/sysconfig/docker-storage"
    printf '# DOCKER_NETWORK_OPTIONS=--mtu=1450\nDOCKER_NETWORK_OPTIONS=\n' \
        >"$1/etc/sysconfig/docker-network"
    cat >"$1/usr/lib/systemd/system/docker.service" <<'ENDUNIT'
[Unit]
Description=Docker Application Container Engine
After=network.target

[Service]
Type=notify
NotifyAccess=main
EnvironmentFile=-/etc/sysconfig/docker
EnvironmentFile=-/etc/sysconfig/docker-storage
EnvironmentFile=-/etc/sysconfig/docker-network
Environment=GOTRACEBACK=crash
ExecStart=/usr/bin/dockerd-current \
          --exec-opt native.cgroupdriver=cgroupfs \
          $OPTIONS \
          $DOCKER_STORAGE_OPTIONS \
          $DOCKER_NETWORK_OPTIONS
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutStartSec=0
Restart=on-abnormal
KillMode=process

[Install]
WantedBy=multi-user.target
ENDUNIT
}

rpm_of() { # NAME VERSION REQUIRES FILES-FROM-DEBIAN-PACKAGES...
    name=$1 version=$2 requires=$3
    shift 3
    top=$root/tmp/rpm
    rm -rf "$top"
    mkdir -p "$top/SPECS" "$top/files"
    for package in "$@"; do
        case " $present " in *" $package "*) ;; *) continue ;; esac
        chroot "$root" dpkg-query -L "$package" | while read -r path; do
            # Its lists know /lib as a directory, which is a link to the one in /usr.
            case $path in
            /lib/*|/bin/*|/sbin/*) path=/usr$path ;;
            # Nobody has scripts of that kind there.
            /etc/init.d/*) continue ;;
            esac
            if [ -f "$root$path" ]; then echo ".$path"; fi
        done >"$top/list"
        tar -C "$root" -cf - --no-recursion --files-from="$top/list" | tar -C "$top/files" -xf -
    done
    case " $* " in *" docker.io "*) configure_engine "$top/files" ;; esac
    if [ "$kind" = centos7 ]; then rename_engine "$top/files"; fi
    {
        printf 'Name: %s\nVersion: %s\nRelease: 1\nSummary: %s for the lab\nLicense: Apache-2.0\n' \
            "$name" "$version" "$name"
        printf 'AutoReqProv: no\n'
        [ -z "$requires" ] || printf 'Requires: %s\n' "$requires"
        printf '%%description\nBuilt from packages of Debian.\n%%install\n'
        printf 'cp -a /tmp/rpm/files/. %%{buildroot}/\n%%files\n'
        # Its own directories go with a package; others stay.
        [ ! -d "$top/files/etc/docker" ] || echo '%dir "/etc/docker"'
        (cd "$top/files" && find . \( -type f -o -type l \) -printf '"/%P"\n')
    } >"$top/SPECS/$name.spec"
    chroot "$root" rpmbuild --quiet --define '_topdir /tmp/rpm' --define '_build_id_links none' \
        --define '__os_install_post %{nil}' --define '_binary_payload w1.gzdio' \
        -bb "/tmp/rpm/SPECS/$name.spec"
    cp "$top"/RPMS/*/*.rpm "$root/srv/packages/"
    rm -rf "$top"
}

# rpm keeps its list where the distribution has it; Debian's tools are out of sight.
hide_debian() {
    mkdir -p "$root/etc/rpm"
    printf '%%_dbpath %%{_var}/lib/rpm\n' >"$root/etc/rpm/macros"
    chroot "$root" rpm --initdb
    # What a package of the distribution's release files would tell.
    mkdir -p "$root/etc/dnf/vars" && echo "$version_id" >"$root/etc/dnf/vars/releasever"
    mkdir -p "$root/usr/lib/lab"
    for program in apt apt-get apt-cache dpkg dpkg-query; do
        mv "$root/usr/bin/$program" "$root/usr/lib/lab/$program"
    done
}

yum_repository() { # FILE NAME
    cat >"$root/etc/yum.repos.d/$1" <<ENDREPO
[$2]
name=$2
baseurl=file:///srv/packages
enabled=1
gpgcheck=0
ENDREPO
}

case $kind in
ubuntu)
    release ubuntu 22.04 Ubuntu debian
    mkdir -p "$root/var/cache/apt/archives/partial"
    # What Open vSwitch needs and the host has not, dependencies included.
    chroot "$root" apt-get -qq update
    switch=$(chroot "$root" apt-get -s --no-install-recommends install openvswitch-switch |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    chroot "$root" sh -c "cd /srv/packages && apt-get -qq download $(echo $present $switch)"
    for file in "$root"/srv/packages/*.deb; do
        dpkg-deb --field "$file"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${file##*/}" "$(stat -c %s "$file")" \
            "$(sha256sum "$file" | cut -d' ' -f1)"
    done >"$root/srv/packages/Packages"
    cp "$root/etc/docker/daemon.json" "$root/srv/daemon.json"
    remove_engine
    # The engine's package leaves a configuration that is there alone.
    mkdir -p "$root/etc/docker"
    mv "$root/srv/daemon.json" "$root/etc/docker/daemon.json"
    # No mirror of Ubuntu is asked for anything.
    rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
    # As `ufw allow OpenSSH` leaves it. While it is off it asks the kernel for nothing.
    chroot "$root" ufw allow proto tcp from any to any port 22
    sed -i 's/^ENABLED=.*/ENABLED=yes/' "$root/etc/ufw/ufw.conf"
    chroot "$root" systemctl enable ufw.service
    ;;
centos7)
    release centos 7 "CentOS Linux" "rhel fedora"
    echo "CentOS Linux release 7.9.2009 (Core)" >"$root/etc/centos-release"
    rpm_of docker 1.13.1 "" $engine
    chroot "$root" createrepo_c --quiet /srv/packages
    remove_engine
    hide_debian
    # Its program is yum; dnf came later.
    rm -f "$root/usr/bin/dnf"
    mv "$root/usr/bin/dnf-3" "$root/usr/bin/yum"
    mkdir -p "$root/etc/yum.repos.d"
    yum_repository CentOS-Base.repo extras
    mkdir -p "$root/etc/sysconfig"
    cat >"$root/etc/sysconfig/iptables" <<'ENDRULES'
# sample configuration for iptables service
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
ENDRULES
    chmod 600 "$root/etc/sysconfig/iptables"
    cat >"$root/etc/systemd/system/iptables.service" <<'ENDUNIT'
[Unit]
Description=IPv4 firewall with iptables
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/iptables-restore /etc/sysconfig/iptables
ExecStop=/usr/sbin/iptables -F

[Install]
WantedBy=basic.target
ENDUNIT
    chroot "$root" systemctl enable iptables.service
    ;;
centos9)
    release centos 9 "CentOS Stream" "rhel fedora"
    echo "CentOS Stream release 9" >"$root/etc/centos-release"
    rpm_of containerd.io 1.6 "" containerd runc
    rpm_of docker-ce-cli 20.10 "" tini
    rpm_of docker-ce 20.10 "containerd.io, docker-ce-cli" docker.io
    chroot "$root" createrepo_c --quiet /srv/packages
    remove_engine
    hide_debian
    mkdir -p "$root/etc/yum.repos.d"
    chroot "$root" systemctl enable firewalld.service
    ;;
*)
    echo "there is no kind of host called $kind" >&2
    exit 1
    ;;
esac
case $kind in
centos*)
    ln -sf centos-release "$root/etc/redhat-release"
    mkdir -p "$root/etc/selinux"
    printf 'SELINUX=disabled\nSELINUXTYPE=targeted\n' >"$root/etc/selinux/config"
    ;;
esac
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/cache/dnf
