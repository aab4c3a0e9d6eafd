"""What an image must not hold, looked for in the disk itself: in its files by name, and in every block by content.

The file system is read without being mounted (debugfs), so no loop device is needed and nothing in it is changed.
Blocks are searched as they lie, so a file that was deleted before the image was closed is found, too.
"""

from __future__ import annotations

import mmap
import re
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTITION: Final = 1 << 20  # bytes before the file system, as images/base.sh lays it

EMPTY: Final = ("/etc/machine-id",)
ABSENT: Final = (
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/sshd_config.d/00-build.conf",
    "/etc/nexthop/nexthop.toml",
    "/etc/nexthop/firstboot.yaml",
    "/etc/nexthop/role",
    "/var/lib/nexthop/nexthop.db",
    "/var/lib/gtund",
    "/var/lib/cloud/instance",
    "/var/lib/systemd/random-seed",
    "/var/lib/dbus/machine-id",
    "/root/.bash_history",
    "/root/.python_history",
    "/root/.ssh/authorized_keys",
    "/usr/bin/gcc",
    "/usr/bin/cc",
)

# A private key's own lines, not the words that programs know it by; our tokens; the cloud's keys.
_SECRETS: Final = {
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}",
    "a join token": rb"nexthop1_[A-Za-z0-9_-]{60}",
    "an access key": rb"LTAI[A-Za-z0-9]{16,}|STS\.[A-Za-z0-9]{20,}",
}


# Debian's own: examples in a documentation, vectors of a self-test. Everybody has them, so they are no secret.
KNOWN: Final = ("/usr/lib/python3/dist-packages/cloudinit/config/", "/usr/lib/x86_64-linux-gnu/libgnutls.so")
_BLOCK: Final = 4096


def search(disk: Path, *secrets: str) -> Iterator[str]:
    """Yield what is in a raw disk and must not be; `secrets`: texts that the build knew."""
    for name in EMPTY:
        if _debugfs(disk, f"cat {name}")[0].strip():
            yield f"{name} is not empty"
    for name in ABSENT:
        if "File not found" not in _debugfs(disk, f"stat {name}")[1]:
            yield f"{name} is there"
    if not re.search(r"^root:[!*]", _debugfs(disk, "cat /etc/shadow")[0], re.MULTILINE):
        yield "root has a password"
    known = "|".join(re.escape(each) for each in secrets)
    patterns = _SECRETS | ({"a secret of the build": known.encode()} if known else {})
    with disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as blocks:
        for what, pattern in patterns.items():
            for found in re.finditer(pattern, blocks):
                where = _file(disk, found.start())
                if not where.startswith(KNOWN):
                    yield f"{what} at byte {found.start()}: {where or 'in no file'}"


def _file(disk: Path, byte: int) -> str:
    """Return the file that a byte of the disk belongs to; empty where it is free."""
    block = (byte - PARTITION) // _BLOCK
    inode = _debugfs(disk, f"icheck {block}")[0].split()[-1]
    return _debugfs(disk, f"ncheck {inode}")[0].split()[-1] if inode.isdecimal() else ""


def _debugfs(disk: Path, command: str) -> tuple[str, str]:
    """Return what it found, and what it has to say."""
    argv = ["debugfs", "-R", command, f"{disk}?offset={PARTITION}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, errors="replace")
    return done.stdout, done.stderr
