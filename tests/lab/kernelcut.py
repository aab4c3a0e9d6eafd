"""What the real kernel makes of a super-packet: run in a network namespace of its own, as root.

    unshare --net python -m tests.lab.kernelcut <hex of a virtio header and a packet>

Writes it to one TUN, and prints the IPv4 packets that leave by another, which takes only small ones: in hex, by line.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
from pathlib import Path

from appliance.tunnel import tun

_SETUP = """
link set lo up
address add 10.0.0.254/24 dev in0
link set in0 mtu 65535 up
address add 10.9.0.254/24 dev out0
link set out0 mtu 1500 up
route add 10.0.1.0/24 dev out0
"""


def main() -> int:
    """Write, and print what comes until nothing does."""
    large, small = tun.attach("in0"), tun.attach("out0", large=False)
    for one in (large, small):
        fcntl.ioctl(one.fd, 0x400454E2, struct.pack("i", 1))  # TUNSETCARRIER
    subprocess.run(["ip", "-batch", "-"], input=_SETUP, text=True, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for device in ("all", "in0", "out0"):
        Path(f"/proc/sys/net/ipv4/conf/{device}/rp_filter").write_text("0")
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
    os.write(large.fd, bytes.fromhex(sys.argv[1]))
    while select.select([small.fd], [], [], 0.3)[0]:
        packet = os.read(small.fd, 65536)
        if packet[0] >> 4 == 4:  # and no solicitation of the device itself
            sys.stdout.write(packet.hex() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
