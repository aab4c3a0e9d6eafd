"""Keys come from where they are asked for, are renewed in time, and are never shown."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud.credentials import InstanceRole, Keys, from_environment, from_file
from cloud.metadata import Metadata, RoleCredentials
from cloud.provider import Denied, Unavailable
from tests.cloud.world import ME, Running, running, world_file


class Service(Metadata):
    """Gives credentials that live six hours, unless it is silent."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.now = 0.0
        self.asked = 0
        self.silent = False
        self.expires: float | None = None

    async def role_credentials(self) -> RoleCredentials:
        self.asked += 1
        if self.silent:
            raise Unavailable("silent")
        expires = self.now + 21600 if self.expires is None else self.expires
        return RoleCredentials(f"STS.{self.asked}", "secret", "token", expires)


def role() -> tuple[Service, InstanceRole]:
    service = Service()
    return service, InstanceRole(service, clock=lambda: service.now)


def ids(source: InstanceRole, service: Service, *times: float) -> list[str]:
    async def main() -> list[str]:
        found = []
        for service.now in times:
            found.append((await source.keys()).key_id)
        return found

    return asyncio.run(main())


def test_role_keys_are_fetched_once_and_again_twenty_minutes_before_they_expire() -> None:
    service, source = role()
    assert ids(source, service, 0, 10, 20399, 20400, 20401) == ["STS.1", "STS.1", "STS.1", "STS.2", "STS.2"]


def test_while_metadata_is_silent_the_old_keys_serve_to_their_end_and_no_longer() -> None:
    service, source = role()
    assert ids(source, service, 0) == ["STS.1"]
    service.silent = True
    assert ids(source, service, 20400, 21599) == ["STS.1", "STS.1"]
    with pytest.raises(Unavailable):
        ids(source, service, 21600)


def test_when_there_are_no_newer_ones_yet_metadata_is_asked_once_a_minute() -> None:
    service, source = role()
    service.expires = 1000.0
    ids(source, service, *range(0, 180, 10))
    assert service.asked == 3


def test_refused_keys_are_fetched_anew() -> None:
    _, source = role()

    async def main() -> list[str]:
        first = await source.keys()
        source.refused(first)
        second = await source.keys()
        source.refused(first)  # said late, by another call: the new ones stay
        return [first.key_id, second.key_id, (await source.keys()).key_id]

    assert asyncio.run(main()) == ["STS.1", "STS.2", "STS.2"]


def test_from_the_environment() -> None:
    names = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "i", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "s"}
    assert asyncio.run(from_environment(names).keys()) == Keys("i", "s")
    token = names | {"ALIBABA_CLOUD_SECURITY_TOKEN": "t"}
    assert asyncio.run(from_environment(token).keys()) == Keys("i", "s", "t")
    with pytest.raises(Denied, match="ALIBABA_CLOUD_ACCESS_KEY_SECRET"):
        from_environment({"ALIBABA_CLOUD_ACCESS_KEY_ID": "i"})


def test_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "key.toml"
    path.write_text('access_key_id = "i"\naccess_key_secret = "s"\n')
    path.chmod(0o600)
    assert asyncio.run(from_file(path).keys()) == Keys("i", "s")
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(Denied, match="chmod 600"):
            from_file(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_reads_the_daemons_own_file_as_purge_does(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('access_key_id = "i"\naccess_key_secret = "s"\n')
    path.chmod(0o600)
    os.chown(path, 65534, 65534)
    assert asyncio.run(from_file(path).keys()) == Keys("i", "s")


@pytest.mark.parametrize(
    "text", ["", "access_key_id = 7\naccess_key_secret = 's3cret'", "access_key_secret = 's3cret", "s3cret = 1"]
)
def test_a_bad_file_is_named_without_its_content(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(Denied) as caught:
        from_file(path)
    assert str(path) in str(caught.value)
    assert "'s3cret" not in str(caught.value)
    with pytest.raises(Denied, match="No such file"):
        from_file(tmp_path / "none")


def test_keys_show_nothing_of_themselves() -> None:
    assert repr(Keys("id", "secret", "token")) == "Keys()"
    assert "secret" not in repr(RoleCredentials("id", "secret", "token", 1.0))


@pytest.mark.parametrize("hardened", [False, True])
def test_metadata_tells_who_we_are_and_the_roles_keys_with_and_without_tokens(hardened: bool) -> None:
    async def test(here: Running) -> None:
        assert await here.metadata.identity() == ME
        given = await here.metadata.role_credentials()
        assert given.key_id.startswith("STS.")
        assert given.expires > datetime.now(UTC).timestamp() + 20000
        here.metadata._token = "1.stale"  # as after a reboot of the service: it is renewed by itself
        assert await here.metadata.read("meta-data/region-id") == "cn-shenzhen"
        with pytest.raises(Denied, match="404 for meta-data/nonsense"):
            await here.metadata.read("meta-data/nonsense")

    async def main() -> None:
        file = world_file()
        async with running(replace(file, metadata=replace(file.metadata, require_token=hardened))) as here:
            await test(here)

    asyncio.run(main())


def test_without_a_role_or_an_answer_the_error_says_so() -> None:
    async def main() -> None:
        file = world_file()
        plain = tuple(replace(instance, role=False) for instance in file.instance)
        async with running(replace(file, instance=plain)) as here:
            with pytest.raises(Denied, match="no RAM role"):
                await here.metadata.role_credentials()
        with pytest.raises(Unavailable, match="no answer"):
            await here.metadata.identity()

    asyncio.run(main())
