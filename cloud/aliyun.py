"""Aliyun by its own SDK (`aliyun-python-sdk-vpc`): sends one call, and says what went wrong in our words.

Rules: a call runs in a thread; two writes are never on their way at once, even when the waiter of the first has been
cancelled; the SDK retries nothing. **No key, token or signed URL leaves this file**: the SDK writes the whole signed
URL into its exceptions and its log, so its log is silent and none of its exceptions is chained to ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from aliyunsdkcore.acs_exception.exceptions import ClientException, ServerException
from aliyunsdkcore.auth.credentials import AccessKeyCredential, StsTokenCredential
from aliyunsdkcore.auth.signers.access_key_signer import AccessKeySigner
from aliyunsdkcore.auth.signers.sts_token_signer import StsTokenSigner
from aliyunsdkcore.client import AcsClient
from aliyunsdkecs.request.v20140526.DescribeNetworkInterfaceAttributeRequest import (
    DescribeNetworkInterfaceAttributeRequest,
)
from aliyunsdkecs.request.v20140526.DescribeSecurityGroupAttributeRequest import DescribeSecurityGroupAttributeRequest
from aliyunsdkecs.request.v20140526.DescribeSecurityGroupsRequest import DescribeSecurityGroupsRequest
from aliyunsdkecs.request.v20140526.ModifyNetworkInterfaceAttributeRequest import ModifyNetworkInterfaceAttributeRequest
from aliyunsdkvpc.request.v20160428.CreateRouteEntriesRequest import CreateRouteEntriesRequest
from aliyunsdkvpc.request.v20160428.CreateRouteEntryRequest import CreateRouteEntryRequest
from aliyunsdkvpc.request.v20160428.DeleteRouteEntriesRequest import DeleteRouteEntriesRequest
from aliyunsdkvpc.request.v20160428.DeleteRouteEntryRequest import DeleteRouteEntryRequest
from aliyunsdkvpc.request.v20160428.DescribeRouteEntryListRequest import DescribeRouteEntryListRequest
from aliyunsdkvpc.request.v20160428.DescribeRouteTableListRequest import DescribeRouteTableListRequest
from aliyunsdkvpc.request.v20160428.DescribeVpcsRequest import DescribeVpcsRequest
from aliyunsdkvpc.request.v20160428.DescribeVSwitchesRequest import DescribeVSwitchesRequest
from aliyunsdkvpc.request.v20160428.ModifyRouteEntryRequest import ModifyRouteEntryRequest

from cloud.answers import Body, Mark
from cloud.choice import Choice
from cloud.credentials import Credentials, Keys, named
from cloud.errors import classify, newer_credentials_may_help
from cloud.interface import let_us_route
from cloud.metadata import Metadata
from cloud.provider import CloudError, Denied, Quota, Unavailable
from cloud.retry import Pace
from cloud.route_table import AliyunProvider
from cloud.tally import Tally

__all__ = ["AliyunProvider", "Rpc", "connect"]

_REQUESTS: Final[Mapping[str, Any]] = {
    "CreateRouteEntries": CreateRouteEntriesRequest,
    "CreateRouteEntry": CreateRouteEntryRequest,
    "DeleteRouteEntries": DeleteRouteEntriesRequest,
    "DeleteRouteEntry": DeleteRouteEntryRequest,
    "DescribeNetworkInterfaceAttribute": DescribeNetworkInterfaceAttributeRequest,
    "DescribeRouteEntryList": DescribeRouteEntryListRequest,
    "DescribeRouteTableList": DescribeRouteTableListRequest,
    "DescribeSecurityGroupAttribute": DescribeSecurityGroupAttributeRequest,
    "DescribeSecurityGroups": DescribeSecurityGroupsRequest,
    "DescribeVSwitches": DescribeVSwitchesRequest,
    "DescribeVpcs": DescribeVpcsRequest,
    "ModifyNetworkInterfaceAttribute": ModifyNetworkInterfaceAttributeRequest,
    "ModifyRouteEntry": ModifyRouteEntryRequest,
}
_WRITES: Final = frozenset(action for action in _REQUESTS if not action.startswith("Describe"))
_ECS: Final = frozenset(action for action in _REQUESTS if "Interface" in action or "SecurityGroup" in action)
_SETTERS: Final = {"RouteEntries": "set_RouteEntriess"}  # the SDK's own plural of a plural
_SILENT: Final = logging.CRITICAL + 1
_LONGEST_MESSAGE: Final = 300
# What the SDK says of a call that got no answer, without the URL that it says it with.
_NO_ANSWER: Final = (
    ("timed out", "it timed out"),
    ("refused", "the connection was refused"),
    ("certificate", "its certificate is not accepted"),
    ("resolution", "its name does not resolve"),
    ("not known", "its name does not resolve"),
    ("unreachable", "there is no way to it"),
)


class Rpc:
    """The VPC API of one region, and what we need of ECS. `endpoint` is HOST[:PORT], or empty for the region's own."""

    def __init__(
        self,
        region: str,
        source: Credentials,
        *,
        endpoint: str = "",
        protocol: str = "https",
        pace: Pace = Pace(),  # noqa: B008
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally or Tally()
        self._region = region
        self._source = source
        self._endpoint = endpoint
        self._protocol = protocol
        self._pace = pace
        self._one_write = threading.Lock()
        self._client: tuple[Keys, Any] | None = None
        _silence()

    async def __call__(self, action: str, params: Mapping[str, Any]) -> Body:
        """Send one call and return the answer's body; raise `CloudError`. Keys that have just run out are replaced."""
        try:
            answer = await self._sent(action, params)
        except CloudError as error:
            self._tally.note(action, error.code or type(error).__name__)
            raise
        self._tally.note(action, "OK")
        return answer

    async def _sent(self, action: str, params: Mapping[str, Any]) -> Body:
        keys = await self._source.keys()
        try:
            return await asyncio.to_thread(self._send, keys, action, params)
        except Denied as error:
            if not newer_credentials_may_help(error):
                raise
            self._source.refused(keys)
            newer = await self._source.keys()
            if newer == keys:
                raise
        return await asyncio.to_thread(self._send, newer, action, params)

    def _send(self, keys: Keys, action: str, params: Mapping[str, Any]) -> Body:
        request = _REQUESTS[action]()
        for name, value in params.items():
            getattr(request, _SETTERS.get(name, f"set_{name}"))(value)
        request.set_protocol_type(self._protocol)
        if self._endpoint:
            request.set_endpoint(self._endpoint)
        client = self._client_for(keys)
        if action not in _WRITES:
            return self._answer(client, request, keys, action)
        with self._one_write:
            return self._answer(client, request, keys, action)

    def _answer(self, client: Any, request: Any, keys: Keys, action: str) -> Body:
        failure: CloudError
        try:
            told = json.loads(client.do_action_with_exception(request))
        except ServerException as error:
            code = str(error.get_error_code())
            kind = classify(code, int(error.get_http_status() or 0))
            message = f"{action}: {code}{_told(str(error.get_error_msg()), keys)}"
            failure = kind(message, code=code, request_id=str(error.get_request_id() or ""))
        except ClientException as error:
            code, text = str(error.get_error_code()), str(error).lower()
            reason = next((ours for theirs, ours in _NO_ANSWER if theirs in text), "no connection")
            failure = classify(code)(f"{action}: no answer from {self._host(action)}: {reason}", code=code)
        except Exception as error:
            failure = Unavailable(f"{action}: no sense in the answer of {self._host(action)} ({type(error).__name__})")
        else:
            if isinstance(told, dict):
                return told
            failure = Unavailable(f"{action}: no sense in the answer of {self._host(action)}")
        # Raised here, outside of every handler: not even `__context__` may lead to the SDK's exception.
        raise failure

    def _client_for(self, keys: Keys) -> Any:
        held = self._client
        if held is not None and held[0] == keys:
            return held[1]
        client = AcsClient(
            ak=keys.key_id,
            secret=keys.secret,
            region_id=self._region,
            auto_retry=False,
            connect_timeout=self._pace.connect,
            timeout=self._pace.read,
            proxy=self._proxies(),
        )
        if keys.token:
            # Set, not passed as `credential`: the factory prefers whatever ALIYUN_ACCESS_KEY_ID says to that.
            client._signer = StsTokenSigner(StsTokenCredential(keys.key_id, keys.secret, keys.token))
        else:
            client._signer = AccessKeySigner(AccessKeyCredential(keys.key_id, keys.secret))
        client.session.trust_env = False  # no ~/.netrc
        self._client = keys, client
        return client

    def _host(self, action: str = "") -> str:
        return self._endpoint or f"{'ecs' if action in _ECS else 'vpc'}.{self._region}.aliyuncs.com"

    def _proxies(self) -> dict[str, str | None]:
        """Return what the environment says, NO_PROXY included, which the SDK ignores; never a proxy for plain HTTP."""
        host = self._host().rpartition(":")[0] or self._host()
        direct: dict[str, str | None] = {"http": None, "https": None}  # not empty: the SDK would read the environment
        if self._protocol != "https" or host == "localhost" or host.startswith("127."):
            return direct
        if urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]  # not in typeshed
            return direct
        return direct | {"https": urllib.request.getproxies_environment().get("https")}


async def connect(
    *,
    endpoint: str = "",
    protocol: str = "https",
    metadata: str = "http://100.100.100.200",
    choice: Choice = Choice(),  # noqa: B008 - frozen
    credentials: str = "role",
    appliance_id: str = "",
    epoch: int = 1,
    quota: Quota = Quota(),  # noqa: B008 - frozen
    pace: Pace = Pace(),  # noqa: B008 - frozen
    tally: Tally | None = None,
) -> AliyunProvider:
    """Ask the metadata service who we are, and return the provider for our VPC; raise `Denied` or `Unavailable`.

    Our network interface is told to let us route, where it does not and we may.

    `credentials`: "role", "env" or the path of a file. `appliance_id` goes into the mark on our entries; the instance
    id by default. `epoch`: see `Mark`.
    """
    service = Metadata(metadata)
    identity = await service.identity()
    rpc = Rpc(
        identity.region, named(credentials, service), endpoint=endpoint, protocol=protocol, pace=pace, tally=tally
    )
    mark = Mark(appliance_id or identity.instance_id, epoch)
    await let_us_route(rpc, identity.eni)
    return AliyunProvider(rpc, identity, mark, choice=choice, quota=quota, pace=pace, skew=service.skew)


def _told(message: str, keys: Keys) -> str:
    """Return what the cloud says, unless it repeats what we signed or signed it with."""
    private = [each for key in (keys.key_id, keys.secret, keys.token) if key for each in (key, quote(key, safe=""))]
    if "Signature" in message or "AccessKeyId" in message or any(each in message for each in private):
        return ""
    return f": {message[:_LONGEST_MESSAGE]}"


def _silence() -> None:
    """Keep the SDK and the HTTP library inside it from logging: signed URLs, at levels from DEBUG to ERROR."""
    for name in ("aliyunsdkcore", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "aliyunsdkcore":
            logging.getLogger(name).setLevel(_SILENT)
