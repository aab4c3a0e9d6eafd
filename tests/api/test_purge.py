"""A purge takes every entry of ours out of the cloud, wherever it lies; what it does to the kernel is for the lab."""

from __future__ import annotations

import asyncio

import pytest

from api import purge
from appliance.config import Config
from cloud.provider import Owner
from tests.appliance.fakes import POD, SERVICE, FakeCloud, entry


class NoRoutes:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


async def _nothing(*_: object) -> tuple[str, ...]:
    return ()


def test_what_lies_in_a_table_that_is_programmed_no_more_goes_and_what_leads_elsewhere_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cloud = FakeCloud()
    theirs = [entry(SERVICE, "vtb-1", Owner.EARLIER, "i-2"), entry(SERVICE, "vtb-2", Owner.FOREIGN, "i-2")]
    cloud.entries = list(theirs)
    cloud.elsewhere = [entry(POD, "vtb-9")]

    async def connect() -> FakeCloud:
        return cloud

    monkeypatch.setattr(purge, "provider_of", lambda _config: connect)
    monkeypatch.setattr(purge, "Routes", NoRoutes)
    monkeypatch.setattr("api.purge.host.purge", _nothing)
    monkeypatch.setattr(purge, "backends", tuple)
    assert asyncio.run(purge._purge(Config(), cloud=True)) == (f"route entry {POD}",)
    assert cloud.elsewhere == []
    assert cloud.entries == theirs
