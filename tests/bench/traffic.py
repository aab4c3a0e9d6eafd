"""Both sides of the measurements that no Debian program makes as we need them. Run in the pod and on the host:

    python -m tests.bench.traffic serve                                          in the pod
    python -m tests.bench.traffic rr|udp|bulk|connect ADDRESS [options]          on the host; prints one JSON object

A measurement opens a TCP connection to the pod and says in one line of JSON what it wants:

    {"do": "echo"}                     every byte comes back: request/response
    {"do": "sink", "seconds": 50}      take bytes for so long, then tell how many had come by which time
    {"do": "udp", "size": 64}          open a UDP port, say which, count until the next byte, tell the count

The receiver's figures are the ones that count: what a sender handed to its kernel may still be in a queue.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import struct
import sys
import threading
import time
from typing import IO, Any, Final

PORT: Final = 5300
_CHUNK: Final = 256 << 10
_MARK_EVERY: Final = 0.1
_SETTLE: Final = 0.3
"""Seconds for datagrams that are still under way."""

_PATIENCE: Final = 10.0
_RCVBUF: Final = 1 << 20
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_NOW_OR_NEVER: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is not sent yet


# ---- the pod's side --------------------------------------------------------------------------------------------------


def serve() -> None:
    """Serve for ever, one thread per connection."""
    with socket.create_server(("", PORT), backlog=64) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_attend, args=(sock,), daemon=True).start()


def _attend(sock: socket.socket) -> None:
    try:
        with sock, sock.makefile("rb") as lines:
            line = lines.readline()
            if line:
                order = json.loads(line)
                {"echo": _echo, "sink": _sink, "udp": _count}[order["do"]](sock, order)
    except OSError:  # the measurement was cut short
        return


def _echo(sock: socket.socket, _order: dict[str, Any]) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _say(sock, {})
    while data := sock.recv(4096):
        sock.sendall(data)


def _sink(sock: socket.socket, order: dict[str, Any]) -> None:
    _say(sock, {})
    room = bytearray(_CHUNK)
    marks: list[tuple[float, int]] = []
    begin, after, total = time.monotonic(), 0.0, 0
    while after < order["seconds"]:
        sock.settimeout(max(0.001, order["seconds"] - after))
        try:
            length = sock.recv_into(room)
        except TimeoutError:
            length = 0
        after = time.monotonic() - begin
        total += length
        if not marks or after - marks[-1][0] >= _MARK_EVERY or after >= order["seconds"]:
            marks.append((after, total))
    sock.settimeout(None)
    _say(sock, {"marks": marks})
    while sock.recv_into(room):  # until the sender gives up: a close now would be a reset that overtakes our answer
        pass


def _count(sock: socket.socket, order: dict[str, Any]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as port:
        port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RCVBUF)
        port.bind((sock.getsockname()[0], 0))
        port.settimeout(_SETTLE)
        _say(sock, {"port": port.getsockname()[1]})
        over = threading.Event()
        threading.Thread(target=_await_word, args=(sock, over), daemon=True).start()
        room, size, count, first, last = bytearray(1 << 16), order["size"], 0, 0.0, 0.0
        receive, clock = port.recv_into, time.monotonic
        while True:
            try:
                length = receive(room)
            except TimeoutError:
                if over.is_set():
                    break
                continue
            if length == size:
                count += 1
                last = clock()
                first = first or last
        _say(sock, {"count": count, "seconds": last - first})


def _await_word(sock: socket.socket, over: threading.Event) -> None:
    with contextlib.suppress(OSError):
        sock.recv(1)
    over.set()


# ---- the host's side -------------------------------------------------------------------------------------------------


def request_response(address: str, seconds: float) -> dict[str, float]:
    """Send one byte, wait for it, again and again over one connection; return how often per second."""
    with _ask(address, {"do": "echo"})[0] as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count, begin = 0, time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            sock.sendall(b"?")
            if not sock.recv(1):
                raise ConnectionError("the pod closed the connection")
            count += 1
        return {"per_second": count / (now - begin)}


def datagrams(address: str, size: int, seconds: float) -> dict[str, float]:
    """Send as fast as one process can; return the packets per second that were sent, and that the pod received."""
    control, lines, answer = _ask(address, {"do": "udp", "size": size})
    with control, socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect((address, answer["port"]))
        payload, send, clock, sent = bytes(size), sock.send, time.monotonic, 0
        begin = clock()
        while clock() < begin + seconds:
            for _ in range(64):
                try:
                    send(payload)
                except (BlockingIOError, ConnectionRefusedError, InterruptedError):
                    continue
                sent += 1
        took = clock() - begin
        time.sleep(_SETTLE)
        control.sendall(b".")
        heard = json.loads(lines.readline())
    # A queue that goes on emptying after the last packet was sent must not count as rate.
    return {"sent": sent / took, "delivered": heard["count"] / max(took, heard["seconds"])}


def bulk(address: str, seconds: float, congestion: str) -> dict[str, Any]:
    """Send one TCP flow for so long; return when how many bytes had arrived, as the pod saw it."""
    sock, lines, _ = _ask(address, {"do": "sink", "seconds": seconds}, congestion)
    threading.Thread(target=_pour, args=(sock,), daemon=True).start()
    heard: dict[str, Any] = json.loads(lines.readline())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW_OR_NEVER)
    sock.close()
    return heard


def _pour(sock: socket.socket) -> None:
    payload = bytes(_CHUNK)
    try:
        while True:
            sock.sendall(payload)
    except OSError:
        return


def connects(address: str, count: int, pause: float, seconds: float) -> dict[str, list[float]]:
    """Open and close connections, `pause` seconds between two, until there were `count` or `seconds` are over.

    Return how long each took, in ms; one that is not there after `_PATIENCE` seconds counts as having taken so long.
    """
    took: list[float] = []
    end = time.monotonic() + seconds
    while len(took) < count and (begin := time.monotonic()) < end:
        with contextlib.suppress(TimeoutError), socket.create_connection((address, PORT), timeout=_PATIENCE):
            pass
        took.append((time.monotonic() - begin) * 1000)
        time.sleep(pause)
    return {"ms": took}


def _ask(address: str, order: dict[str, Any], congestion: str = "") -> tuple[socket.socket, IO[bytes], dict[str, Any]]:
    sock = socket.socket()
    if congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    sock.settimeout(_PATIENCE)
    sock.connect((address, PORT))
    lines = sock.makefile("rb")
    _say(sock, order)
    answer = json.loads(lines.readline())
    sock.settimeout(None)
    return sock, lines, answer


def _say(sock: socket.socket, message: dict[str, Any]) -> None:
    sock.sendall(json.dumps(message).encode() + b"\n")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.traffic")
    parser.add_argument("do", choices=("serve", "rr", "udp", "bulk", "connect"))
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--congestion", default="")
    options = parser.parse_args()
    match options.do:
        case "serve":
            serve()
        case "rr":
            figures: dict[str, Any] = request_response(options.address, options.seconds)
        case "udp":
            figures = datagrams(options.address, options.size, options.seconds)
        case "bulk":
            figures = bulk(options.address, options.seconds, options.congestion)
        case _:
            figures = connects(options.address, options.count, options.pause, options.seconds)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
