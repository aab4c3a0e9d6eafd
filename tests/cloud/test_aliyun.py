"""The Aliyun provider, by the real SDK over HTTP, against the emulator."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from cloud.aliyun import Rpc, connect
from cloud.credentials import Fixed, Keys
from cloud.emulator.world import NextHop, Wanted
from cloud.provider import CloudError, Denied, Network, Owner, QuotaExceeded, Unavailable
from tests.cloud.contract import Cloud, ProviderContract
from tests.cloud.world import KEY, POD_CIDR, QUICK, Running, running, world_file
from tests.listening import listening


class TestContract(ProviderContract):
    def cloud(self) -> AbstractAsyncContextManager[Cloud]:
        return self._cloud()

    @contextlib.asynccontextmanager
    async def _cloud(self) -> AsyncIterator[Cloud]:
        async with running() as here:

            async def stranger(destination: Network) -> None:
                here.emulator.world.create(Wanted("vtb-system", str(destination), NextHop("Instance", "i-host")), 0.0)

            yield Cloud(here.provider(), stranger, lambda: len(here.writes()))


def in_world(test: Callable[[Running], Awaitable[None]], settle_ms: int = 30) -> None:
    async def main() -> None:
        async with running(world_file(settle_ms=settle_ms)) as here:
            await test(here)

    asyncio.run(main())


def test_only_the_tables_that_vswitches_use_are_programmed() -> None:
    async def test(here: Running) -> None:
        provider = here.provider()
        await provider.ensure([POD_CIDR])
        seen = await provider.observe()
        assert seen.vpc.tables == ("vtb-other", "vtb-system")
        assert here.emulator.world.entries("vtb-unused", 1e12)[-1].custom is False

    in_world(test)


def test_the_entry_of_a_machine_that_this_one_takes_over_from_is_modified_in_place() -> None:
    async def test(here: Running) -> None:
        await here.provider(appliance="a", instance="i-host").ensure([POD_CIDR])
        await here.provider(appliance="a", epoch=2).ensure([POD_CIDR])
        assert here.writes() == ["CreateRouteEntry"] * 2 + ["ModifyRouteEntry"] * 2
        seen = await here.provider(appliance="a", epoch=2).observe()
        assert {entry.next_hop for entry in seen.to(POD_CIDR)} == {"i-nexthop"}

    in_world(test)


def test_the_entries_of_another_appliance_are_foreign() -> None:
    async def test(here: Running) -> None:
        await here.provider(appliance="i-nexthop1").ensure([POD_CIDR])
        seen = await here.provider(appliance="i-nexthop").observe()
        assert {entry.owner for entry in seen.to(POD_CIDR)} == {Owner.FOREIGN}

    in_world(test)


def test_every_page_is_read_and_a_full_table_is_told() -> None:
    async def test(here: Running) -> None:
        for n in range(200):
            wanted = Wanted("vtb-system", f"10.200.{n}.0/24", NextHop("Instance", "i-host"))
            here.emulator.world.create(wanted, 0.0)
        seen = await here.provider().observe()
        assert sum(entry.owner is Owner.FOREIGN for entry in seen.entries) == 200
        refused = await here.provider().ensure([POD_CIDR])
        assert isinstance(refused[POD_CIDR], QuotaExceeded)
        assert len(here.writes()) == 1  # the full table was not asked
        # The other table is not full, and got its entry.
        assert [entry.table for entry in (await here.provider().observe()).to(POD_CIDR)] == ["vtb-other"]

    in_world(test, settle_ms=0)


def test_connect_finds_out_by_metadata_who_we_are_and_signs_with_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the SDK would obey on its own: other keys and a proxy that is not there.
    monkeypatch.setenv("ALIYUN_ACCESS_KEY_ID", "LTAI-wrong")
    monkeypatch.setenv("ALIYUN_ACCESS_KEY_SECRET", "wrong")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def test(here: Running) -> None:
        base = here.metadata._base
        provider = await connect(endpoint=here.api, protocol="http", metadata=base, pace=QUICK)
        assert provider.identity.instance_id == "i-nexthop"
        await provider.ensure([POD_CIDR])
        seen = await provider.observe()
        assert {entry.description for entry in seen.to(POD_CIDR)} == {"nexthop:i-nexthop:1:i-nexthop"}
        assert {entry.name for entry in seen.to(POD_CIDR)} == {"nexthop-i-nexthop"}

    in_world(test)


def _chain(error: BaseException | None) -> str:
    """Return everything that an exception says and leads to, whether or not a traceback would print it."""
    told = ""
    while error is not None:
        told += f"{error!r} {error} {error.args!r} {vars(error)!r} {getattr(error, '__notes__', '')}"
        error = error.__cause__ or error.__context__
    return told


# The HTTP library inside the SDK forgets its socket when a TLS handshake fails.
FORGETS = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    "cause",
    ["wrong-secret", "unknown-key", "refused", "silent", "garbage", pytest.param("unverified", marks=FORGETS)],
)
def test_no_key_token_or_signature_in_any_exception_or_log(cause: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = Keys("LTAIsecretid", "verysecret+/=", "very+secret/token=")
    private = ("LTAIsecretid", "verysecret", "very+secret", "very%2Bsecret", "Signature", "AccessKeyId=")

    async def failing() -> CloudError:
        async with _trap(cause) as (address, protocol):
            used = replace(keys, key_id=KEY.key_id, token="") if cause == "wrong-secret" else keys
            pace = replace(QUICK, read=0.3)
            rpc = Rpc("cn-shenzhen", Fixed(used), endpoint=address, protocol=protocol, pace=pace)
            with pytest.raises((Denied, Unavailable)) as caught:
                await rpc("DescribeVpcs", {})
            return caught.value

    said = _chain(asyncio.run(failing())) + caplog.text
    gc.collect()  # what the SDK forgot is warned of here, and not in a later test
    assert "DescribeVpcs" in said
    assert KEY.key_id not in said
    assert [secret for secret in private if secret in said] == []


@contextlib.asynccontextmanager
async def _trap(cause: str) -> AsyncIterator[tuple[str, str]]:
    """Give an address at which a call fails for this cause."""
    if cause in {"wrong-secret", "unknown-key"}:
        async with running() as here:
            yield here.api, "http"
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n") if cause != "unverified" else b""
        if cause == "silent":
            await reader.read()
        body = head[:400]  # what a proxy's error page might do: repeat the request
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    if cause == "refused":
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            host, port = nobody.getsockname()
        yield f"{host}:{port}", "http"
        return
    async with listening(answer) as (host, port):
        yield f"{host}:{port}", "https" if cause == "unverified" else "http"


def test_a_refused_key_is_denied_with_the_clouds_code_and_request_id() -> None:
    async def test(here: Running) -> None:
        with pytest.raises(Denied) as caught:
            await here.rpc(Keys("LTAI-nobody", "x"))("DescribeVpcs", {})
        assert caught.value.code == "InvalidAccessKeyId.NotFound"
        assert caught.value.request_id

    in_world(test)


def test_expired_keys_are_replaced_once_and_the_call_repeated() -> None:
    class Rotating:
        def __init__(self) -> None:
            self.order = [Keys("LTAI-revoked", "x"), KEY]

        async def keys(self) -> Keys:
            return self.order[0]

        def refused(self, keys: Keys) -> None:
            assert keys == self.order.pop(0)

    async def test(here: Running) -> None:
        rpc = Rpc("cn-shenzhen", Rotating(), endpoint=here.api, protocol="http", pace=QUICK)
        assert (await rpc("DescribeVpcs", {}))["TotalCount"] == 1

    in_world(test)


def test_a_destination_of_ours_can_contain_the_vswitches() -> None:
    async def test(here: Running) -> None:
        assert await here.provider().ensure([IPv4Network("172.16.0.0/12")]) == {}

    in_world(test)
