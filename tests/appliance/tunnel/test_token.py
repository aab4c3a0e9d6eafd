import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.token import BadToken, JoinToken, decode, encode

TOKEN = JoinToken("203.0.113.10", 9443, "cGlu", "shenzhen", "c2VjcmV0")


def test_what_was_encoded_is_decoded():
    assert decode(encode(TOKEN)) == TOKEN
    assert decode(f"  {encode(TOKEN)}\n") == TOKEN


def test_a_token_is_one_word_that_a_shell_leaves_alone():
    assert all(letter.isalnum() or letter in "_-" for letter in encode(TOKEN))


@given(st.data())
def test_a_token_with_one_changed_character_is_damaged(data):
    text = encode(TOKEN)
    at = data.draw(st.integers(len("nexthop1_"), len(text) - 2))  # the last one holds bits that base64 does not use
    other = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda letter: letter != text[at]))
    with pytest.raises(BadToken, match="damaged"):
        decode(text[:at] + other + text[at + 1 :])


@given(st.text())
def test_no_text_makes_it_fail_otherwise_and_none_is_repeated(text):
    with pytest.raises(BadToken) as caught:
        decode("nexthop1_" + text)
    assert len(text) < 8 or text not in str(caught.value)


def wrapped(body: bytes) -> str:
    return "nexthop1_" + base64.urlsafe_b64encode(body + hashlib.sha256(body).digest()[:4]).decode().rstrip("=")


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b'{"host": "a"}', b"5"])
def test_a_whole_token_with_other_content_asks_for_an_upgrade(body):
    with pytest.raises(BadToken, match="upgrade the older end"):
        decode(wrapped(body))


def test_the_secret_is_not_shown():
    assert "c2VjcmV0" not in repr(TOKEN)


def test_an_ipv6_server_is_written_in_brackets():
    assert JoinToken("2001:db8::1", 9443, "", "a", "").server == "[2001:db8::1]:9443"
