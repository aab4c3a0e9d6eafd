"""The fuzzer's targets without the fuzzer: what hypothesis thinks of, the seeds, and the long run itself."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame, messages, session, virtio
from tests.fuzz import seeds, targets

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def line() -> Iterator[None]:
    """Close the sockets that all inputs share."""
    yield
    targets.line().close()
    targets.line.cache_clear()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_holds_for_its_seeds(name: str) -> None:
    for seed in seeds.of(name):
        targets.TARGETS[name](seed)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_holds_for_whatever_comes(name: str) -> None:
    given(st.binary(max_size=600))(targets.TARGETS[name])()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_holds_for_changed_seeds(name: str) -> None:
    @given(st.sampled_from(seeds.of(name)), st.lists(st.tuples(st.integers(0, 9999), st.integers(1, 255)), max_size=4))
    def changed(seed: bytes, changes: list[tuple[int, int]]) -> None:
        data = bytearray(seed)
        for at, value in changes:
            data[at % len(data)] ^= value
        targets.TARGETS[name](bytes(data))

    changed()


def test_headers_that_are_longer_than_a_virtio_header_can_say_are_refused() -> None:
    # Found by reading: extension headers of 65,512 bytes before the TCP header overflowed its fields.
    extensions = (bytes([0, 255]) + bytes(2046)) * 31 + bytes([6, 252]) + bytes(2022)
    tcp = bytes(12) + bytes([5 << 4]) + bytes(7)
    packet = b"\x60\0\0\0" + (len(extensions) + len(tcp)).to_bytes(2) + bytes(34) + extensions + tcp
    assert len(packet) <= frame.LARGEST_PACKET
    with pytest.raises(virtio.BadPacket):
        virtio.rebuild(virtio.UNSUMMED, 0, memoryview(packet), bytearray(10))


@pytest.mark.parametrize("field", ['"version":Infinity', '"mtu":1500.5', '"mtu":NaN', '"mtu":true', '"session":5'])
def test_a_number_that_is_none_is_the_peers_mistake(field: str) -> None:
    client = session.Conversation(session.Role.CLIENT)
    client.hello(messages.Hello(messages.VERSIONS, "a", b"k" * 32, b"", b"r" * 32))
    welcome = seeds.of("control")[1][4:]
    text = welcome[4:].decode().replace(" ", "")
    name = field.partition(":")[0]
    start = text.index(name)
    text = text[:start] + field + text[min(i for i in (text.find(",", start), text.find("}", start)) if i > 0) :]
    with pytest.raises(frame.RemoteProtocolError):
        client.receive(len(text).to_bytes(4) + text.encode())


@pytest.mark.skipif("NEXTHOP_SOAK" not in os.environ, reason="an hour: ./run soak")
def test_an_hour_of_guided_fuzzing_finds_nothing_and_needs_no_more_memory() -> None:
    pytest.importorskip("atheris", reason="it has no wheel for this machine")
    command = (sys.executable, "-m", "tests.fuzz", "--minutes", "60", "--corpus", ".cache/fuzz")
    done = subprocess.run(command, capture_output=True, text=True, timeout=4000, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    sys.stdout.write(done.stderr[-600:])
