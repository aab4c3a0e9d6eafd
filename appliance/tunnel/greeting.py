"""The first bytes of a connection, waited for and left where they are: what is no client's costs no more than that."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from . import frame, gate


def plausible(sock: socket.socket) -> bool:
    """Return whether what a stranger has said so far may come from a client."""
    try:
        return gate.plausible(sock.recv(len(frame.PREFACE_MAGIC), socket.MSG_PEEK) or b"\0", frame.PREFACE_MAGIC)
    except BlockingIOError:
        return True
    except OSError:
        return False


async def first_byte(sock: socket.socket) -> bytes:
    """Wait for the first byte and leave it where it is."""
    return await _ahead(sock, 1)


async def awaited(sock: socket.socket) -> None:
    """Wait for the whole of a client's first word in TLS. Raise `RemoteProtocolError` if that is something else."""
    length = gate.greeting_length(await _ahead(sock, gate.RECORD_HEADER))
    if not length or len(await _ahead(sock, length)) < length:
        raise frame.RemoteProtocolError("it speaks no TLS")


async def _ahead(sock: socket.socket, length: int) -> bytes:
    """Wait for so many bytes, or the end, and leave them there; fewer wake nobody (SO_RCVLOWAT in socket(7))."""
    with contextlib.suppress(BlockingIOError):
        if len(there := sock.recv(length, socket.MSG_PEEK)) == length:  # mostly they came all at once
            return there
    loop, fd = asyncio.get_running_loop(), sock.fileno()  # by its number: a selector spells out a socket that is new
    readable: asyncio.Future[None] = loop.create_future()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, length)
    loop.add_reader(fd, settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(fd)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    return sock.recv(length, socket.MSG_PEEK)


def settle(future: asyncio.Future[None]) -> None:
    """Let go on whoever waits, if somebody still does."""
    if not future.done():
        future.set_result(None)


async def read_exactly(sock: socket.socket, length: int) -> bytes:
    """Return the next bytes; raise `RemoteProtocolError` when there are not as many."""
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < length:
        more = await loop.sock_recv(sock, length - len(data))
        if not more:
            raise frame.RemoteProtocolError("a preface that ends early")
        data += more
    return data
