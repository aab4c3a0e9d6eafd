#!/bin/sh
# Turn a bare Debian 12 into the appliance, or into the machine of the far end: provision.sh FILES WHEELHOUSE
#
# FILES is the directory `files` beside this script, WHEELHOUSE what wheelhouse.sh made. It may be run again, also on a
# machine at work: what is right already is not touched, and what it installs is the same each time. It holds no secret,
# asks no question, and decides nothing that is a machine's own: that is for the first boot.
set -eu

files=$1
wheelhouse=$2
here=$(cd "$(dirname "$0")" && pwd -P)
home=/opt/nexthop
changed=0

say() { printf 'provision: %s\n' "$*"; }

# put SOURCE DESTINATION MODE: install a file unless the same one is there.
put() {
    if ! cmp -s "$1" "$2" || [ "$(stat -c %a "$2")" != "$3" ]; then
        install -D -o root -g root -m "$3" "$1" "$2"
        say "$2"
        changed=1
    fi
}

wait_for_the_cloud() {
    # On its first boot cloud-init may hold apt's lock.
    if command -v cloud-init >/dev/null; then cloud-init status --wait >/dev/null 2>&1 || true; fi
}

install_packages() {
    missing=
    while read -r package; do
        case $package in "#"*) continue ;; esac
        state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || state=
        [ "$state" = installed ] || missing="$missing $package"
    done <"$files/../packages"
    if [ -n "$missing" ]; then
        say "installing$missing"
        apt-get -q -o DPkg::Lock::Timeout=300 update
        # shellcheck disable=SC2086  # a list of words
        apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install $missing
        changed=1
    fi
}

remove_compilers() {
    present=
    for package in gcc g++ make binutils python3-dev; do
        state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || state=
        [ "$state" = installed ] && present="$present $package"
    done
    if [ -n "$present" ]; then
        say "removing$present"
        # shellcheck disable=SC2086
        apt-get -q -y purge $present
        apt-get -q -y autoremove --purge
        changed=1
    fi
}

make_users() {
    for source in "$files"/sysusers.d/*.conf; do
        [ -e "$source" ] || continue
        put "$source" "/etc/sysusers.d/${source##*/}" 644
        systemd-sysusers "/etc/sysusers.d/${source##*/}"
    done
    [ -d /etc/nexthop ] || install -d -m 0755 /etc/nexthop
}

# A release is a virtual environment of its own; `current` names the one that runs. `nexthop upgrade` adds others.
install_release() {
    wheel=$(echo "$wheelhouse"/nexthop-*.whl)
    version=${wheel##*/nexthop-}
    hash=$(sha256sum "$wheel" | cut -c1-12)
    release=$home/releases/${version%%-*}-$hash
    for source in "$wheelhouse"/*.whl "$wheelhouse/wheelhouse.lock"; do
        put "$source" "$home/wheelhouse/${source##*/}" 644
    done
    if [ ! -e "$release/.complete" ]; then
        say "$release"
        rm -rf "$release"
        python3 -m venv --without-pip "$release"
        python3 "$(echo /usr/share/python-wheels/pip-*.whl)/pip" --quiet --no-input --disable-pip-version-check \
            --python "$release/bin/python" install --no-index --find-links "$wheelhouse" --require-hashes \
            -r "$wheelhouse/wheelhouse.lock"
        touch "$release/.complete"
        changed=1
    fi
    # A machine that was upgraded since keeps what it runs.
    [ -L "$home/current" ] || ln -s "releases/${release##*/}" "$home/current"
    [ -L "$home/bin" ] || ln -s current/bin "$home/bin"
    for program in nexthop nexthopd gtun gtund; do
        [ -L "/usr/local/bin/$program" ] || ln -s "$home/bin/$program" "/usr/local/bin/$program"
    done
}

install_settings() {
    for source in "$files"/sysctl.d/* "$files"/modules-load.d/* "$files"/tmpfiles.d/*; do
        [ -f "$source" ] && put "$source" "/etc/${source#"$files"/}" 644
    done
    for part in networkd journald resolved; do
        put "$files/$part.conf.d/nexthop.conf" "/etc/systemd/$part.conf.d/nexthop.conf" 644
    done
    put "$files/cloud.cfg.d/95_nexthop.cfg" /etc/cloud/cloud.cfg.d/95_nexthop.cfg 644
    put "$files/sshd_config.d/10-nexthop.conf" /etc/ssh/sshd_config.d/10-nexthop.conf 644
    for source in "$files"/libexec/*; do put "$source" "/usr/local/lib/nexthop/${source##*/}" 755; done
    put "$files/update-motd.d/50-nexthop" /etc/update-motd.d/50-nexthop 755
    put "$here/verify.sh" /usr/local/sbin/nexthop-verify 755
}

install_units() {
    (cd "$files/systemd" && find . -type f) | while read -r unit; do
        put "$files/systemd/${unit#./}" "/etc/systemd/system/${unit#./}" 644
    done
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    # What belongs to a role is enabled by the first boot, which is itself enabled here.
    for unit in nexthop-firstboot.service nexthop-untried.service; do
        systemctl is-enabled --quiet "$unit" || systemctl enable --quiet "$unit"
    done
}

# On a machine that is at work already, what a boot would do.
apply_settings() {
    [ -e /etc/nexthop/role ] && [ "$changed" = 1 ] || return 0
    systemctl restart systemd-modules-load.service
    systemd-tmpfiles --create /etc/tmpfiles.d/nexthop.conf
    sysctl --quiet --system >/dev/null || true
    systemctl try-restart systemd-networkd.service systemd-resolved.service systemd-journald.service \
        ssh.service
}

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PIP_ROOT_USER_ACTION=ignore
umask 022
wait_for_the_cloud
install_packages
remove_compilers
make_users
install_release
install_settings
install_units
apply_settings
say "done"
