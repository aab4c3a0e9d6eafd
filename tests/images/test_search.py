"""The search finds what an image must not hold, also what was deleted."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.images.search import search

pytestmark = pytest.mark.skipif(shutil.which("mke2fs") is None, reason="e2fsprogs is not installed")


def disk(tmp_path, **files: str):
    tree = tmp_path / "tree"
    for name, content in {"etc/machine-id": "", "etc/shadow": "root:!*:19000::::::\n", **files}.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        file.truncate(10 << 20)
    subprocess.run(["mke2fs", "-q", "-b", "4096", "-d", str(tree), "-E", "offset=1048576", str(raw), "8M"], check=True)
    return raw


def test_a_clean_disk_is_clean(tmp_path) -> None:
    assert list(search(disk(tmp_path), "the build's password")) == []


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n", "/etc/machine-id is not empty"),
        ("etc/ssh/ssh_host_ed25519_key", "x", "/etc/ssh/ssh_host_ed25519_key is there"),
        ("root/.bash_history", "ls", "/root/.bash_history is there"),
        ("etc/shadow", "root:$y$j9T$abc:19000::::::\n", "root has a password"),
        ("opt/k", "-----BEGIN PRIVATE KEY-----\n" + "A" * 64, "a private key"),
        ("opt/t", "nexthop1_" + "a" * 80, "a join token"),
        ("opt/a", "LTAI" + "5" * 20, "an access key"),
        ("opt/p", "the build's password", "a secret of the build"),
    ],
)
def test_each_thing_is_found(tmp_path, name: str, content: str, complaint: str) -> None:
    found = list(search(disk(tmp_path, **{name: content}), "the build's password"))
    assert len(found) == 1
    assert complaint in found[0]


def test_what_everybody_has_is_no_secret(tmp_path) -> None:
    example = {
        "usr/lib/python3/dist-packages/cloudinit/config/cc_ssh.py": "-----BEGIN RSA PRIVATE KEY-----\n" + "C" * 64
    }
    assert list(search(disk(tmp_path, **example))) == []


def test_what_was_deleted_is_found_too(tmp_path) -> None:
    raw = disk(tmp_path, **{"root/key": "-----BEGIN RSA PRIVATE KEY-----\n" + "B" * 64})
    subprocess.run(["debugfs", "-w", "-R", "rm /root/key", f"{raw}?offset=1048576"], check=True, capture_output=True)
    assert [text.partition(" at ")[0] for text in search(raw)] == ["a private key"]
