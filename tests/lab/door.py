"""The way from this machine's loopback into the appliance: `python -m tests.lab.door DESCRIPTOR PORT`.

A socket belongs to the network namespace that it was made in, wherever its descriptor goes. So this runs inside the
appliance's namespace, takes connections from a listener that was made outside, and leads each to PORT of the
appliance's own loopback. It ends with the lab, as everything in the lab's namespaces does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

_PIECE = 64 * 1024


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more, and say so to the other side."""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(ConnectionError):
        writer.close()


async def serve(listener: socket.socket, port: int) -> None:
    """Lead every connection to `port`, until cancelled."""

    async def led(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # the daemon is not there: the caller sees a closed connection
            writer.close()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_carry(reader, inner_writer))
            tasks.create_task(_carry(inner_reader, writer))

    server = await asyncio.start_server(led, sock=listener)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
