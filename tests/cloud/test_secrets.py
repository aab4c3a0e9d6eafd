"""A run in which everything goes wrong tells nobody the key, the token or a signature: not as they are, not
percent-encoded, not in base64; in no log, no exception, no problem document, and not in the emulator's log of calls.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
from collections.abc import Awaitable
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import quote

import pytest
from aliyunsdkcore.auth.signers.access_key_signer import AccessKeySigner
from aliyunsdkcore.auth.signers.sts_token_signer import StsTokenSigner

from api.cloud import _failed
from cloud.aliyun import Rpc
from cloud.answers import Mark
from cloud.credentials import Credentials, Fixed, InstanceRole, Keys
from cloud.emulator.worldfile import Fault
from cloud.metadata import Metadata, RoleCredentials
from cloud.provider import CloudError
from cloud.route_table import AliyunProvider
from tests.cloud.test_aliyun import _chain
from tests.cloud.world import KEY, ME, POD_CIDR, QUICK, running, world_file

FAULTS = [
    Fault("error", "Create*", nth=1, code="TaskConflict"),
    Fault("late", "Create*", nth=2),
    Fault("lost", "Describe*", nth=4),
    Fault("error", "Describe*", nth=6, code="InternalError", status=500),
    Fault("error", "*", nth=9, code="SignatureDoesNotMatch", message="string to sign is:POST&%2F&AccessKeyId%3D"),
    Fault("error", "*", nth=12, code="InvalidSecurityToken.Expired", status=403),
    Fault("error", "*", nth=14, code="Forbidden.RAM", status=403),
    Fault("error", "*", nth=17, code="NeverHeardOf", message="Signature=x"),
]


def hidden(text: str) -> set[str]:
    """Return a secret in every dress that it may wear: a piece that is long enough to know it by."""
    dresses = {text, quote(text, safe=""), quote(quote(text, safe=""), safe="")}
    for shift in range(3):  # base64 of something that contains it looks different at each of three offsets
        encoded = base64.b64encode(b"\0" * shift + text.encode()).decode().rstrip("=")
        dresses.add(encoded[4:-4])
        dresses.add(encoded[4:-4].replace("+", "-").replace("/", "_"))
    return {each for each in dresses if len(each) >= 8}


class Role(Metadata):
    """Hands out the emulator's role, and remembers what."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.gave: list[str] = []

    async def role_credentials(self) -> RoleCredentials:
        given = await super().role_credentials()
        self.gave += [given.key_id, given.secret, given.token]
        return given


@pytest.mark.parametrize("source", ["key", "role", "wrong"])
def test_a_run_of_faults_tells_no_secret(
    source: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("DEBUG", "sdk")  # at which the SDK prints its requests
    signatures: list[str] = []
    for signer in (AccessKeySigner, StsTokenSigner):
        monkeypatch.setattr(signer, "sign", _noting(signer.sign, signatures))
    private: list[str] = [KEY.key_id, KEY.secret]
    said: list[str] = []

    async def main() -> None:
        async with running(replace(world_file(settle_ms=5), fault=tuple(FAULTS))) as here:
            role = Role(here.metadata._base)
            wrong = Keys(KEY.key_id, secrets.token_urlsafe(24), "sts+token/" + secrets.token_urlsafe(24))
            private.extend([wrong.secret, wrong.token])
            sources: dict[str, Credentials] = {"key": Fixed(KEY), "role": InstanceRole(role), "wrong": Fixed(wrong)}
            pace = replace(QUICK, read=0.2, tries=2)
            rpc = Rpc("cn-shenzhen", sources[source], endpoint=here.api, protocol="http", pace=pace)
            provider = AliyunProvider(rpc, ME, Mark("i-nexthop"), pace=pace)
            for _ in range(6):
                said.extend(await _saying(provider.observe()))
                said.extend(await _saying(provider.ensure([POD_CIDR])))
                found = await provider.examine([POD_CIDR])
                said.extend(f"{each.text} {each.fix}" for each in found)
            said.append(json.dumps([asdict_of(call) for call in here.emulator.calls]))
            private.extend(role.gave)
            assert any(call.status != 200 for call in here.emulator.calls)
        # Nobody listens any more: the SDK puts the whole signed URL into what it says.
        said.extend(await _saying(provider.observe()))

    asyncio.run(main())
    output = capfd.readouterr()
    everything = "\n".join([*said, caplog.text, output.out, output.err])
    for record in caplog.records:
        everything += repr(vars(record))
    assert signatures
    assert "DescribeVpcs" in everything
    for secret in (*private, *signatures):
        for dress in hidden(secret):
            assert dress not in everything


def asdict_of(call: Any) -> dict[str, Any]:
    return asdict(call)


def _noting(sign: Any, signatures: list[str]) -> Any:
    def noted(self: Any, region: str, request: Any) -> Any:
        header, url = sign(self, region, request)
        signatures.append(url.partition("Signature=")[2].partition("&")[0])
        return header, url

    return noted


async def _saying(doing: Awaitable[Any]) -> list[str]:
    """Return all that is said by what goes wrong with it."""
    try:
        answer = await doing
    except CloudError as error:
        return _told(error)
    refusals = answer.values() if isinstance(answer, dict) else ()
    return [text for error in refusals for text in _told(error)]


def _told(error: CloudError) -> list[str]:
    """Return all that an error says anywhere: itself, what it leads to, and the API's answer."""
    document = _failed(error).document
    return [_chain(error), document.detail, *(f"{each.text} {each.next_step}" for each in document.reasons)]
