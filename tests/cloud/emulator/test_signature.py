"""The gate takes what the real SDK signs, once, in its time, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import parse_qsl

import pytest
from aliyunsdkcore.auth.credentials import AccessKeyCredential, StsTokenCredential
from aliyunsdkcore.auth.signers.access_key_signer import AccessKeySigner
from aliyunsdkcore.auth.signers.sts_token_signer import StsTokenSigner
from aliyunsdkvpc.request.v20160428.CreateRouteEntryRequest import CreateRouteEntryRequest
from hypothesis import given
from hypothesis import strategies as st

from cloud.emulator.signature import Gate, Secret, sign, string_to_sign
from cloud.emulator.world import ApiError

NOW = 1_800_000_000.0
BASE = {
    "AccessKeyId": "LTAI",
    "SignatureMethod": "HMAC-SHA1",
    "SignatureVersion": "1.0",
    "SignatureNonce": "n1",
    "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW)),
}


def gate(known: Secret = Secret("secret")) -> Gate:  # noqa: B008 - frozen
    return Gate(lambda key_id: known if key_id == "LTAI" else None)


def signed(method: str = "POST", secret: str = "secret", **params: str) -> dict[str, str]:
    whole = BASE | params
    return whole | {"Signature": sign(method, whole, secret)}


def refused(action: Callable[[], None]) -> str:
    with pytest.raises(ApiError) as caught:
        action()
    return caught.value.code


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("text", ["plain", "~ * + / % & = ? : ,", "é 中 文", "'\"()!", "a b  c", "%2B%20"])
@pytest.mark.parametrize("token", ["", "sts+token/=="])
def test_the_real_sdks_signature_is_accepted(method: str, text: str, token: str) -> None:
    request = CreateRouteEntryRequest()
    request.set_method(method)
    request.set_Description(text)
    request.set_RouteTableId("vtb-1")
    request.set_accept_format("JSON")
    if token:
        signer = StsTokenSigner(StsTokenCredential("LTAI", "secret", token))
    else:
        signer = AccessKeySigner(AccessKeyCredential("LTAI", "secret"))
    _, url = signer.sign("cn-shenzhen", request)
    params = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    assert params["Description"] == text
    gate(Secret("secret", token)).admit(method, params, time.time())


def test_the_example_of_the_documentation() -> None:
    # Alibaba Cloud help, "Sign an RPC API call": DescribeRegions with the key testid / testsecret.
    params = {
        "Timestamp": "2016-02-23T12:46:24Z",
        "Format": "XML",
        "AccessKeyId": "testid",
        "Action": "DescribeRegions",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
        "Version": "2014-05-26",
        "SignatureVersion": "1.0",
    }
    assert sign("GET", params, "testsecret") == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="


@given(st.text(), st.text(min_size=1))
def test_any_change_of_a_parameter_breaks_the_signature(value: str, other: str) -> None:
    call = signed(Description=value)
    gate().admit("POST", call, NOW)
    changed = call | {"Description": value + other}
    assert refused(lambda: gate().admit("POST", changed, NOW)) == "SignatureDoesNotMatch"


def test_the_method_is_part_of_what_is_signed() -> None:
    assert refused(lambda: gate().admit("GET", signed("POST"), NOW)) == "SignatureDoesNotMatch"


def test_a_mismatch_tells_the_string_behind_a_colon_since_the_sdk_splits_there() -> None:
    call = signed(secret="other")
    with pytest.raises(ApiError) as caught:
        gate().admit("POST", call, NOW)
    assert caught.value.message.split(":")[1] == string_to_sign("POST", call)


def test_a_nonce_is_good_once() -> None:
    door = gate()
    door.admit("POST", signed(), NOW)
    assert refused(lambda: door.admit("POST", signed(), NOW + 60)) == "SignatureNonceUsed"


def test_a_forged_call_does_not_use_up_a_nonce() -> None:
    door = gate()
    assert refused(lambda: door.admit("POST", signed(secret="other"), NOW)) == "SignatureDoesNotMatch"
    door.admit("POST", signed(), NOW)


@pytest.mark.parametrize(("late", "fine"), [(-901, False), (-899, True), (0, True), (899, True), (901, False)])
def test_a_timestamp_is_good_for_a_quarter_of_an_hour_each_way(late: float, fine: bool) -> None:
    if fine:
        gate().admit("POST", signed(), NOW + late)
    else:
        assert refused(lambda: gate().admit("POST", signed(), NOW + late)) == "InvalidTimeStamp.Expired"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (signed(Timestamp="yesterday"), "InvalidTimeStamp.Format"),
        (signed(AccessKeyId="nobody"), "InvalidAccessKeyId.NotFound"),
        (signed(SignatureNonce=""), "MissingSignatureNonce"),
        (BASE, "MissingSignature"),
        (signed(SignatureVersion="2.0"), "InvalidSignatureMethod"),
        (signed(SecurityToken="unexpected"), "InvalidSecurityToken.MismatchWithAccessKey"),
    ],
)
def test_each_flaw_has_its_code(call: dict[str, str], code: str) -> None:
    assert refused(lambda: gate().admit("POST", call, NOW)) == code


def test_a_roles_key_needs_its_token_and_ends_with_it() -> None:
    role = Secret("secret", "token", expires=NOW + 10)
    assert refused(lambda: gate(role).admit("POST", signed(), NOW)) == "MissingSecurityToken"
    gate(role).admit("POST", signed(SecurityToken="token"), NOW + 9)
    late = NOW + 10
    assert (
        refused(lambda: gate(role).admit("POST", signed(SecurityToken="token"), late)) == "InvalidSecurityToken.Expired"
    )
    assert "token" not in repr(role)
