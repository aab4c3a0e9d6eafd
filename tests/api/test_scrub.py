"""Whatever a secret is wrapped in, it does not come through; what helps to find a fault does."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.scrub import Scrubber

SECRETS = {
    "an API token": "nht_" + base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("="),
    "a join token": "nexthop1_" + base64.urlsafe_b64encode(b'{"host": "203.0.113.10", "secret": "abc"}').decode(),
    "a key id": "LTAI5tQnKxR3vZmW8pYcUe1h",
    "a key's secret": "k9XvQ2mRt7LpZ4wYc1NfHb8sJdGa3E",
    "a security token": "STS.NUyr8mV2cXq4LpT7wZ9bKd1fA",
    "a link's key": base64.b64encode(bytes(range(100, 132))).decode(),
    "a signature": base64.b64encode(bytes(range(60, 80))).decode(),
}
ENCODINGS = {
    "as it is": lambda text: text,
    "in a URL": lambda text: "https://vpc.aliyuncs.com/?Action=X&Signature=" + quote(text, safe="") + "&Version=1",
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64url": lambda text: base64.urlsafe_b64encode(b"x" + text.encode()).decode().rstrip("="),
    "inside base64": lambda text: base64.b64encode(b"Authorization: Bearer " + text.encode() + b"\r\n").decode(),
    "base64 in hex": lambda text: base64.b64encode(text.encode()).decode().encode().hex(),
    "percent in percent": lambda text: "".join(f"%25{byte:02X}" for byte in text.encode()),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "base32 of more": lambda text: base64.b32encode(b"key " + text.encode() + b"\n").decode().lower(),
    "base64 in lines": lambda text: base64.encodebytes(b"Authorization: Bearer " + text.encode() * 3).decode(),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "hex with colons": lambda text: text.encode().hex(":"),
    "hex with spaces": lambda text: text.encode().hex(" "),
    "C": lambda text: ", ".join(f"0x{byte:02x}" for byte in text.encode()),
    "backslashes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "JavaScript": lambda text: "".join(f"\\u{byte:04x}" for byte in text.encode()),
    "octal": lambda text: "".join(f"\\{byte:03o}" for byte in text.encode()),
    "HTML": lambda text: "".join(f"&#{byte};" for byte in text.encode()),
    "HTML in hex": lambda text: "".join(f"&#x{byte:x};" for byte in text.encode()),
    "a list of numbers": lambda text: json.dumps(list(text.encode())),
    "JSON": lambda text: json.dumps({"AccessKeySecret": text}),
    "TOML": lambda text: f'key = "{text}"',
    "a header": lambda text: f"authorization: Bearer {text}",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("known", [True, False])
def test_no_secret_comes_through_in_any_encoding(secret: str, encoding: str, known: bool) -> None:
    text = SECRETS[secret]
    wrapped = ENCODINGS[encoding](text)
    told = Scrubber([text] if known else ())(f"before {wrapped} after\n")
    for form in ENCODINGS.values():
        assert form(text) not in told
    assert text[8:24] not in told
    assert told.startswith("before ")
    assert told.endswith(" after\n")


@given(st.binary(min_size=24, max_size=64), st.text(max_size=50), st.text(max_size=50))
def test_a_known_secret_never_comes_through(secret: bytes, before: str, after: str) -> None:
    text = base64.urlsafe_b64encode(secret).decode()
    told = Scrubber([text])(f"{before}{text}{after}")
    assert text not in told


def test_what_helps_is_left() -> None:
    text = """
10.244.0.0/16 dev tun-hk proto 110 metric 50
unreachable 10.244.0.0/16 proto 110 metric 4000
cloud: DescribeRouteEntryList: Forbidden.RAM [Forbidden.RAM, 0ED8D006-F706-4D23-88ED-E11ED28DCAC0]
-A NEXTHOP-POST -s 172.18.0.0/16 -d 10.244.0.0/16 -o tun-hk -j MASQUERADE
net.ipv4.conf.tun-hk.ignore_routes_with_linkdown = 1
2026-01-01 00:00:00,000 INFO appliance.links: link hk joined: client shenzhen of 203.0.113.10:9443
SHA256 Fingerprint=2F:01:9A:33:47:C4:5D:62:7B:80:91:A6:BF:C8:D9:E0:F1:02:13:24:35:46:57:68:79:8A:9B:AC:BD:CE:DF:E0
    link/ether 00:16:3e:12:34:56 brd ff:ff:ff:ff:ff:ff
{"rtt_ms": [21, 22, 21, 23, 24, 22, 21, 21, 23, 25, 24, 22, 21, 23, 24, 22], "at": [10, 12, 14, 16, 18, 20, 22]}
{"cidr": "10.244.0.0/16", "etag": "0123456789abcdef", "vpc_id": "vpc-uf6f7l4fg90oxp2tcfuda", "snat": true}
"""
    assert Scrubber()(text) == text
