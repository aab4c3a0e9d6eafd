"""`python -m tests.lab.unreachable ADDRESS`: send one UDP packet, print as JSON the ICMP unreachable that it met.

An unreachable network or host is no error for a connected UDP socket unless it asks for such errors with IP_RECVERR
(ip(7)); the error queue then also tells who sent it. Exits with 1 if none comes within 2 s.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from typing import Final

_IP_RECVERR: Final = 11  # linux/in.h
_ICMP: Final = 2  # SO_EE_ORIGIN_ICMP
_UNREACHABLE: Final = 3
_EXTENDED_ERROR: Final = struct.Struct("=IBBBxII")  # struct sock_extended_err, then the sockaddr of who sent the ICMP
_PATIENCE_MS: Final = 2000


def main(address: str) -> int:
    """Ask, and print what came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        asker.connect((address, 33434))
        poll = select.poll()
        poll.register(asker, select.POLLERR)
        begin = time.monotonic()
        asker.send(b"anyone?")
        if not poll.poll(_PATIENCE_MS):
            sys.stderr.write(f"no ICMP error for {address} within {_PATIENCE_MS} ms\n")
            return 1
        after = (time.monotonic() - begin) * 1e3
        _, control, _, _ = asker.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR):
            _, origin, icmp_type, code, _, _ = _EXTENDED_ERROR.unpack_from(data)
            sender = socket.inet_ntoa(data[_EXTENDED_ERROR.size + 4 :][:4])
            if (origin, icmp_type) == (_ICMP, _UNREACHABLE):
                sys.stdout.write(json.dumps({"after_ms": round(after, 3), "sender": sender, "code": code}) + "\n")
                return 0
    sys.stderr.write(f"something else went wrong: {control}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
