#!/bin/sh
# Runs once while the image is built, outside the new root, which is $1.
# Turns a plain Debian into a host that boots in a container.
set -eu
root=$1

chroot "$root" useradd --create-home --shell /bin/bash kprov
echo 'kprov ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/kprov"
chmod 0440 "$root/etc/sudoers.d/kprov"

# Every host makes its own host keys and machine id at its first boot.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
mkdir -p "$root/etc/ssh/sshd_config.d"
cat >"$root/etc/ssh/sshd_config.d/lab.conf" <<'END'
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_ecdsa_key
MaxStartups 100
MaxSessions 64
END
cat >"$root/etc/systemd/system/lab-host-keys.service" <<'END'
[Unit]
Description=Make the host keys of sshd
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ecdsa_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
ExecStart=/usr/bin/ssh-keygen -q -t ecdsa -N "" -f /etc/ssh/ssh_host_ecdsa_key

[Install]
WantedBy=ssh.service
END
chroot "$root" systemctl enable lab-host-keys.service ssh.service

mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=24M\n' >"$root/etc/systemd/journald.conf.d/lab.conf"

if [ -e "$root/usr/sbin/dockerd" ]; then
    mkdir -p "$root/etc/docker"
    # A bridge range that is neither the lab's network nor a cluster's pods or services.
    # Containers outlive a restart of dockerd, as a host of a cluster wants it.
    cat >"$root/etc/docker/daemon.json" <<'END'
{
  "bip": "192.168.251.1/24",
  "default-address-pools": [{ "base": "192.168.252.0/22", "size": 26 }],
  "live-restore": true,
  "storage-driver": "overlay2"
}
END
    # Which hosts start Docker at boot is decided when a host is made.
    chroot "$root" systemctl disable docker.service docker.socket containerd.service
fi

# What belongs to a machine with its own kernel and consoles.
for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
    systemd-udev-trigger.service systemd-modules-load.service systemd-remount-fs.service \
    getty.target console-getty.service getty@.service getty-static.service \
    systemd-logind.service systemd-networkd.service systemd-timesyncd.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer motd-news.timer systemd-ask-password-wall.path \
    systemd-ask-password-console.path sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount nftables.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
    "$root"/var/log/apt "$root"/usr/share/locale "$root"/usr/share/doc "$root"/usr/share/man
