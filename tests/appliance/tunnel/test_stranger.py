"""Strangers' tasks: what they held is given back, however they end."""

import asyncio
import socket

import pytest

from appliance.tunnel import stranger
from appliance.tunnel.gate import PLACES_PER_SOURCE, Gate

SOURCE = "192.0.2.1"


async def nothing():
    """End at once."""


@pytest.mark.parametrize("cut", [False, True], ids=["by itself", "cut before it began"])
def test_its_place_is_free_and_its_connection_closed_when_it_is_over(cut):
    async def story():
        gate, (near, far) = Gate(), socket.socketpair()
        for _ in range(PLACES_PER_SOURCE - 1):
            gate.enter(SOURCE)
        place = gate.enter(SOURCE)
        assert place is not None
        with far:
            async with asyncio.TaskGroup() as group:
                stranger.receive(group, gate, place, near, nothing())
                if cut:
                    place.cut()
            await asyncio.sleep(0)
            assert far.recv(1) == b""
        assert gate.enter(SOURCE) is not None
        assert gate.enter(SOURCE) is None

    asyncio.run(story())
