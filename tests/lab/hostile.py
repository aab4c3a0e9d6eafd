"""What somebody with ill intent sends: beside the kernel on a client's machine, and on the line in between.

    python -m tests.lab.hostile inject DEVICE HEX...    on the client: put packets into its TUN as they are
    python -m tests.lab.hostile line WHAT SERVER        on the WAN: watch the datagrams to SERVER:9443, and add our own
    python -m tests.lab.hostile send ADDRESS            on a host: UDP to port 5400, eight segments every 10 ms
    python -m tests.lab.hostile sink FILE               in a pod: count what comes to UDP port 5400, into FILE

`line` sends under the client's own address and port, with the session's id and counters as it sees them pass. WHAT:
`replay`, `tamper` and `truncate` repeat each short datagram so, `fragments` forges one part of each unit that is next.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.tunnel import unit

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT: Final = 9443
FLOW: Final = 5400
_ETH_P_ALL: Final = 3
_OUTGOING: Final = 4
_UDP_SEGMENT: Final = 103
_SEGMENT: Final = 1400
_AHEAD: Final = 12
"""Units for which a part is forged before they are sent."""


def inject(device: str, packets: list[str]) -> None:
    """Send IP packets through a device, past the firewall and the routes of this machine."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        for text in packets:
            packet = bytes.fromhex(text)
            sock.sendto(packet, (device, 0x0800 if packet[0] >> 4 == 4 else 0x86DD))


def line(what: str, server: str) -> None:
    """Watch and send until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as out:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for header, datagram in _passing(socket.inet_aton(server)):
            for forged in _forge(what, datagram):
                udp = header[20:24] + struct.pack("!HH", 8 + len(forged), 0)
                whole = bytes([0x45, 0]) + bytes(6) + bytes([64, 17, 0, 0]) + header[12:20] + udp + forged
                out.sendto(whole, (server, 0))


def _passing(server: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (IP and UDP header, datagram) of what goes to the server; of many that the kernel joined, the first."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as tap:
        while True:
            packet, where = tap.recvfrom(1 << 17)
            ours = packet[:1] == b"\x45" and packet[9] == socket.IPPROTO_UDP and packet[16:20] == server
            if ours and where[2] != _OUTGOING and packet[22:24] == PORT.to_bytes(2):
                yield packet[:28], packet[28:]


def _forge(what: str, datagram: bytes) -> Iterator[bytes]:
    version, kind, epoch, session, counter, length = unit.PREFIX.unpack_from(datagram)
    size, number = unit.PLACE.unpack_from(datagram, unit.PREFIX.size)
    short = length <= size
    if what == "fragments":
        part = os.urandom(min(size, length - size) if length > size else 0)
        for ahead in range(1, _AHEAD if part and not number else 0):
            prefix = unit.PREFIX.pack(version, kind, epoch, session, counter + ahead, length)
            yield prefix + unit.PLACE.pack(size, 1) + part
    elif short and what == "replay":
        yield datagram
    elif short and what == "tamper":
        fresh = unit.PREFIX.pack(version, kind, epoch, session, counter + 64, length)
        yield fresh + datagram[len(fresh) : -1] + bytes([datagram[-1] ^ 1])
    elif short and what == "truncate":
        yield datagram[:-10]


def send(address: str) -> None:
    """Send until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, FLOW))
        while True:
            options = [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", _SEGMENT))]
            sock.sendmsg([bytes(8 * _SEGMENT)], options)
            time.sleep(0.01)


def sink(file: Path) -> None:
    """Count until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", FLOW))
        for number in range(1, 1 << 62):
            file.write_text(str(number - 1))
            sock.recv(2048)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["inject", device, *packets]:
            inject(device, packets)
        case ["line", what, server]:
            line(what, server)
        case ["send", address]:
            send(address)
        case ["sink", file]:
            sink(Path(file))
