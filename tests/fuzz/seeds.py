"""A few inputs for each target that reach the middle of it, for the fuzzer to start from."""

from __future__ import annotations

import json
import struct

from appliance.tunnel import frame, messages, session, token, virtio
from appliance.tunnel.legacy import message as legacy

_TCP = struct.pack("!HHIIBBHHH", 443, 5000, 7, 9, 5 << 4, 0x18, 500, 0, 0)
_UDP = struct.pack("!HHHH", 53, 5000, 0, 0)


def _v4(protocol: int, payload: bytes) -> bytes:
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
        + bytes([100, 64, 240, 50, 10, 244, 1, 20])
        + payload
    )


def _v6(protocol: int, payload: bytes, extension: bytes = b"") -> bytes:
    first = 0 if extension else protocol
    header = struct.pack("!IHBB", 0x60000000, len(extension) + len(payload), first, 64)
    return header + b"\xfd" + bytes(14) + b"\1" + b"\xfd" + bytes(14) + b"\2" + extension + payload


def packets() -> tuple[tuple[int, int, bytes], ...]:
    """Return (shape, segment size, packet) of packets of every kind that a batch carries."""
    return (
        (virtio.SINGLE, 0, _v4(6, _TCP)),
        (virtio.UNSUMMED | virtio.TCP, 500, _v4(6, _TCP + bytes(2200))),
        (virtio.UNSUMMED | virtio.TCP | virtio.ECN, 500, _v6(6, _TCP + bytes(2200))),
        (virtio.UNSUMMED | virtio.UDP, 500, _v4(17, _UDP + bytes(1200))),
        (virtio.UNSUMMED | virtio.UDP, 500, _v6(17, _UDP + bytes(1200), bytes([17, 0, 0, 0, 0, 0, 0, 0]))),
        (virtio.SINGLE, 0, _v4(1, bytes(64))),
    )


def of(target: str) -> tuple[bytes, ...]:
    """Return the seeds of a target."""
    match target:
        case "record":
            return (bytes([2, 5]) + b"hello" + bytes([0, 0, 3]) + b"you" + bytes([0, 0]), bytes([3, 9] * 30))
        case "batch":
            each = [frame.PACKET.pack(shape << 24 | len(p), size) + p for shape, size, p in packets()]
            return (*each, b"".join(each))
        case "packet":
            return tuple(bytes([shape]) + struct.pack("!H", size) + bytes(10) + p for shape, size, p in packets())
        case "reassembly":
            return (bytes([0, 4, 200, 9, 1, 0, 1, 1, 1, 2, 1, 3, 1, 4]), bytes([0, 9, 9, 9, 2, 1, 3, 0, 7, 7]) * 3)
        case "channel":
            return (bytes([3, 9, 20, 0, 0, 0]), bytes([1, 1, 5, 200, 0, 0]) * 3, bytes([0, 9, 9, 9, 2, 3]) * 5)
        case "control":
            return tuple(bytes([side, 0, 255, 255]) + text for side in (0, 1) for text in _conversation())
        case "legacy":
            answer = legacy.Answer(legacy.SUCCESS).encode().replace(b'""', b'"100.64.240.50"', 1)
            return (b"\0\5" + legacy.Authorize("key").encode() + legacy.HEARTBEAT, b"\0\1" + answer)
        case _:
            return (token.encode(token.JoinToken("203.0.113.10", 9443, "pin", "a", "secret")).encode(),)


def _conversation() -> tuple[bytes, ...]:
    client, server = session.Conversation(session.Role.CLIENT), session.Conversation(session.Role.SERVER)
    client.hello(messages.Hello(messages.VERSIONS, "shenzhen", b"k" * 32, b"j" * 32, b"r" * 32, 4))
    hello = client.to_send()
    server.receive(hello)
    welcome = {
        "type": "welcome",
        "version": 1,
        "session": "00" * 8,
        "random": "cnJycnJycnJycnJycnJycnJycnJycnJycnJycnJycnI=",
        "address": "100.64.240.50/24",
        "gateway": "100.64.240.1",
        "mtu": 1500,
    }
    texts = [welcome, {"type": "refused", "code": "denied", "reason": "no"}, {"type": "bye", "code": "x", "reason": ""}]
    return (hello, *(struct.pack("!I", len(text)) + text for text in (json.dumps(each).encode() for each in texts)))
