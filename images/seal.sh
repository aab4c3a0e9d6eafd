#!/bin/sh
# The last step of making an image: remove what must not be the same in two machines made from it, and what nobody needs.
#
# Afterwards the machine has no host key, no machine id, no random seed, no authorised key, no password, no history and
# no log; cloud-init takes the next boot for the first. What was secret is overwritten where it lay before it is removed:
# an image holds every block, also those that no file has any more. Only for an image that is about to be stored: it
# locks everybody out.
set -eu

# Who writes at shutdown, or goes on writing, must not do so after this.
systemctl stop systemd-random-seed.service systemd-journald.socket systemd-journald-dev-log.socket \
    systemd-journald-audit.socket systemd-journald.service 2>/dev/null || true

overwrite() { find "$@" -type f -exec shred -n 1 -z -u {} + 2>/dev/null || true; }
overwrite /etc/ssh -name 'ssh_host_*_key'
overwrite /var/lib/cloud /var/lib/nexthop /var/lib/gtund /var/log/cloud-init*.log
overwrite /root /home '(' -name '.*_history' -o -name .lesshst -o -name authorized_keys ')'
usermod --password '!*' root
overwrite /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/shadow- /etc/gshadow-
rm -rf /var/lib/cloud /var/lib/nexthop /var/lib/gtund /etc/nexthop/* /root/.cache /root/.ssh
rm -f /etc/ssh/ssh_host_*_key.pub /etc/ssh/sshd_config.d/00-build.conf /etc/ssh/sshd_config.d/50-cloud-init.conf
rm -f /etc/systemd/network/10-cloud-init-* /etc/sudoers.d/90-cloud-init-users /var/lib/dhcp/*.leases

truncate -s 0 /etc/machine-id
rm -f /var/lib/dbus/machine-id

apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/journal/* /var/cache/debconf/*-old /tmp/* /var/tmp/*
find /var/log -type f -exec truncate -s 0 {} +

# A disk that is told which blocks are free does not store them.
sync
fstrim / 2>/dev/null || true
sync
