#!/bin/sh
# First process of a lab host: undoes what a container engine withholds from a host, then
# becomes systemd.

# Settings and control groups are writable, as on a host.
# (Only the mount points change: the file systems below them are shared with the machine.)
for path in /proc/sys /sys /sys/fs/cgroup /sys/fs/cgroup/*; do
    if mountpoint -q "$path"; then
        mount -o remount,bind,rw "$path" || true
    fi
done
# The directory of control groups alone is a file system of the container's own.
mount -o remount,rw /sys/fs/cgroup 2>/dev/null || true
# A fresh host does not forward; whoever needs it must say so, as on real ones.
echo 0 >/proc/sys/net/ipv4/ip_forward
# Mounts of containers and volumes must reach this host's own containers.
mount --make-rshared /

# A host owns these files: it must be able to replace them by a rename.
for file in hosts hostname resolv.conf; do
    umount -l "/etc/$file" 2>/dev/null || true
done

# The engine's name server lives in redirect rules that a host does not have.
nft delete table ip nat 2>/dev/null || true
if grep -qx nat /proc/net/ip_tables_names 2>/dev/null; then
    iptables-legacy -t nat -F
    iptables-legacy -t nat -X
fi

exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    container=docker /lib/systemd/systemd
