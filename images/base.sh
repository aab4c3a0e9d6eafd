#!/bin/sh
# Make a disk with a bare Debian that boots and asks cloud-init who it is: base.sh OUTPUT.qcow2
#
# It stands in for the public Debian image of a cloud where an image is built locally: Debian's cloud kernel, systemd
# with networkd, cloud-init, sshd, and what provision.sh would install from Debian, so that the local build needs no
# network. Needs root, mmdebstrap, e2fsprogs, sfdisk, grub-pc-bin and qemu-img; it mounts nothing and needs no loop device.
set -eu

disk=$1
here=$(cd "$(dirname "$0")" && pwd -P)
suite=bookworm
label=nexthop-root
size=4096 # MiB, of which an image uses what it uses: qcow2 holds no zeros

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

packages=$(grep -v '^#' "$here/packages" | paste -sd,)
mmdebstrap --quiet --mode=root --variant=minbase --components=main --include="$packages" \
    --include=linux-image-cloud-amd64,systemd-sysv,dbus,udev,kmod,e2fsprogs,zstd,cloud-init,openssh-server,procps,less \
    --include=isc-dhcp-client,systemd-resolved,libpam-systemd,sudo,curl \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    "$suite" "$work/root" >"$work/log" 2>&1 || { tail -30 "$work/log" >&2; exit 1; }

# cloud-init renders for networkd where there is neither ifupdown nor netplan.
chroot "$work/root" systemctl enable systemd-networkd systemd-resolved ssh >/dev/null 2>&1
printf 'datasource_list: [NoCloud, AliYun, None]\n' >"$work/root/etc/cloud/cloud.cfg.d/90_datasource.cfg"
printf 'LABEL=%s / ext4 errors=remount-ro 0 1\n' "$label" >"$work/root/etc/fstab"
mkdir -p "$work/root/boot/grub"
cat >"$work/root/boot/grub/grub.cfg" <<GRUB
serial --unit=0 --speed=115200
terminal_output serial
linux /vmlinuz root=LABEL=$label ro console=ttyS0 net.ifnames=0 quiet
initrd /initrd.img
boot
GRUB
rm -f "$work/root/etc/ssh"/ssh_host_*_key* "$work/root/var/cache/apt/"*.bin "$work/root/etc/hostname"
rm -rf "$work/root/var/lib/apt/lists"/* "$work/root/var/log"/*.log "$work/root/tmp"/*
: >"$work/root/etc/machine-id"

# One partition from the first MiB on. GRUB's first sector goes into the MBR, the rest between it and the partition,
# where its first sector expects it: at sector 1 (grub-core/boot/i386/pc/boot.S), so nothing has to be probed.
raw=$work/disk
truncate -s "${size}M" "$raw"
printf 'label: dos\nstart=1MiB, type=83, bootable\n' | sfdisk --quiet "$raw"
mke2fs -q -t ext4 -L "$label" -d "$work/root" -E offset=1048576 "$raw" "$((size - 1))M"
grub-mkimage -O i386-pc -o "$work/core" -p '(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 linux normal configfile serial terminal boot
dd if=/usr/lib/grub/i386-pc/boot.img of="$raw" bs=440 count=1 conv=notrunc status=none
dd if="$work/core" of="$raw" bs=512 seek=1 conv=notrunc status=none
qemu-img convert -O qcow2 "$raw" "$disk.part"
mv "$disk.part" "$disk"
