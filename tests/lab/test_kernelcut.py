"""What we merge, the real kernel takes apart as it came."""

from __future__ import annotations

import os
import subprocess

import pytest

from appliance.tunnel import virtio
from appliance.tunnel.coalesce import coalesce
from tests.appliance.tunnel.test_coalesce import TCP, UDP, Small, flow
from tests.lab.space import PYTHON, ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a network namespace"),
]


def routed(packet: bytes) -> bytes:
    """Return an IPv4 packet as a router passes it on: one hop less, and the checksum that follows."""
    head = bytearray(packet[:20])
    head[8] -= 1
    head[10:12] = bytes(2)
    head[10:12] = (0xFFFF - (int.from_bytes(head) % 0xFFFF or 0xFFFF)).to_bytes(2)
    return bytes(head) + packet[20:]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_the_kernel_takes_apart_what_was_merged(protocol: int) -> None:
    small = Small(b"", protocol=protocol, identification=500, sequence=7, target=b"\x0a\0\1\2")
    came = [one.packet() for one in flow(small, [bytes([number]) * 1000 for number in range(40)] + [b"last"])]
    ((shape, segment, pieces),) = coalesce(came)
    header = bytearray(virtio.HEADER.size)
    virtio.large(shape & virtio.SEGMENTED, segment, pieces[0], header)
    written = (bytes(header) + b"".join(pieces)).hex()
    command = ["unshare", "--net", *PYTHON, "tests.lab.kernelcut", written]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert [bytes.fromhex(line) for line in done.stdout.split()] == [routed(bytes(packet)) for _, _, packet in came]
