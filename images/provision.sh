#!/bin/sh
# Turn a bare Debian 12 or 13 into the appliance: provision.sh REQUIREMENTS.LOCK DIRECTORY-OF-THE-WHEEL
#
# Packer runs it once while it makes the image. It installs packages, the wheel in a virtual environment of its own,
# and the kernel settings that a router needs at boot; nexthopd checks those again while it runs. It holds no secret and
# asks no question. Units for systemd are still to come.
set -eu

lock=$1
dist=$2
home=/opt/nexthop

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

if command -v cloud-init >/dev/null; then
    cloud-init status --wait >/dev/null || true # its own first-boot apt run holds the lock
fi

apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install \
    ca-certificates gcc iproute2 iptables libc6-dev nftables python3 python3-dev python3-venv

/usr/bin/python3 -m venv "$home"
# python-iptables is a source package: its setuptools, pinned in the same file, goes first.
sed -n '/^setuptools==/,/[^\\]$/p' "$lock" >"$home/setuptools.lock"
pip() { "$home/bin/python" -m pip --quiet --no-input --disable-pip-version-check "$@"; }
pip install --require-hashes -r "$home/setuptools.lock"
pip install --require-hashes --no-build-isolation --use-pep517 -r "$lock"
pip install --no-deps --no-index "$dist"/nexthop-*.whl
for program in nexthop nexthopd gtun gtund; do
    ln -sf "$home/bin/$program" "/usr/local/bin/$program"
done

getent group nexthop >/dev/null || groupadd --system nexthop
install -d -m 0755 /etc/nexthop
install -d -m 0700 /var/lib/nexthop

cat >/etc/sysctl.d/80-nexthop.conf <<'END'
# A router. nexthopd sets what belongs to single devices.
net.ipv4.ip_forward = 1
net.ipv4.conf.all.rp_filter = 2
net.ipv4.conf.default.rp_filter = 2
END
printf 'tun\n' >/etc/modules-load.d/nexthop.conf

# What is of no use in the image, or must not be the same in two machines made from it.
apt-get -q -y purge gcc libc6-dev python3-dev
apt-get -q -y autoremove --purge
apt-get clean
rm -rf /var/lib/apt/lists/* "$home/setuptools.lock" "$lock" "$dist"
if command -v cloud-init >/dev/null; then cloud-init clean --logs; fi
truncate -s 0 /etc/machine-id
