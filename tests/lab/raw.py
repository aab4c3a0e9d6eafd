"""One packet of an IP protocol that is neither TCP, UDP nor ICMP, and its answer.

`python -m tests.lab.raw answer` prints "ready" and returns what it gets to where it came from, until it is killed;
`python -m tests.lab.raw ask ADDRESS` sends one packet and prints the milliseconds until the same bytes were back.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Final

PROTOCOL: Final = 253  # "use for experimentation and testing", RFC 3692 and IANA
_PATIENCE: Final = 3.0


def answer() -> None:
    """Return every packet to its sender."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL) as listener:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            packet, sender = listener.recvfrom(2048)
            listener.sendto(_payload(packet), sender)


def ask(address: str) -> float:
    """Send one packet and return the milliseconds until the answer is there."""
    wanted = os.urandom(32)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL) as asker:
        asker.settimeout(_PATIENCE)
        begin = time.monotonic()
        asker.sendto(wanted, (address, 0))
        while True:
            packet, sender = asker.recvfrom(2048)
            if sender[0] == address and _payload(packet) == wanted:
                return (time.monotonic() - begin) * 1e3


def _payload(packet: bytes) -> bytes:
    return packet[(packet[0] & 15) * 4 :]


if __name__ == "__main__":
    if sys.argv[1:] == ["answer"]:
        answer()
    else:
        sys.stdout.write(f"{ask(sys.argv[2]):.3f}\n")
