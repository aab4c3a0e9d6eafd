"""The line between nexthop-forward and nexthopd, as each of the two holds its end: messages, in order.

It begins with a Hello from both, and the two are of one release or do not speak. That it ends is no error, not even in
the middle of a message: whoever was speaking has died, which either side must be ready for at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.forwardtalk import VERSION, BadMessage, Hello, Message, decode, encode

if TYPE_CHECKING:
    import asyncio


class Line:
    """One end. Hearing raises `BadMessage` for what no end of this release says, and `ConnectionError`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self) -> bool:
        """Say Hello and hear it; return False where the line ended instead."""
        self.say(Hello())
        hello = await self.hear()
        if hello is not None and hello != Hello():
            raise BadMessage(f"{hello}, and this program speaks version {VERSION}: restart both")
        return hello is not None

    async def hear(self) -> Message | None:
        """Return the next message, None at the end."""
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise BadMessage(f"a message without an end: {error}") from None
        return decode(line) if line.endswith(b"\n") else None

    def say(self, message: Message) -> None:
        """Say it, if the line has not ended. Never waits: what is not read yet is `unread`."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    @property
    def unread(self) -> int:
        """Bytes that the other end has not read."""
        return self._writer.transport.get_write_buffer_size()

    def close(self) -> None:
        """End it after what was said."""
        self._writer.close()

    def abort(self) -> None:
        """End it at once."""
        self._writer.transport.abort()
