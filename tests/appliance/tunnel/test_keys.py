import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame, keys
from appliance.tunnel.keys import Direction, NotAuthentic, Opener, Sealer, Session, _expand, _extract

SESSION = Session.agree(b"sessions", b"c" * 32, b"s" * 32)


def sealed(sealer: Sealer, plain: bytes, kind: frame.Kind = frame.Kind.DATA) -> bytes:
    record = memoryview(bytearray(len(plain) + 100))
    return bytes(record[: sealer.seal(kind, plain, record)])


def opened(opener: Opener, record: bytes) -> bytes:
    plain = memoryview(bytearray(len(record)))
    return bytes(plain[: opener.open(frame.read_header(record), memoryview(record), plain)])


def pair(session: Session = SESSION, connection: int = 0) -> tuple[Sealer, Opener]:
    return Sealer(session, Direction.TO_SERVER, connection), Opener(session, Direction.TO_SERVER, connection)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_records_open_in_the_order_in_which_they_were_sealed(plains):
    sealer, opener = pair()
    assert [opened(opener, sealed(sealer, plain)) for plain in plains] == plains


@given(st.data())
def test_a_record_with_any_bit_changed_does_not_open(data):
    sealer, opener = pair()
    record = bytearray(sealed(sealer, b"some packets"))
    bit = data.draw(st.integers(0, len(record) * 8 - 1))
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises((NotAuthentic, frame.RemoteProtocolError, ValueError)):
        opened(opener, bytes(record))


def test_a_replayed_record_and_one_out_of_order_do_not_open():
    sealer, opener = pair()
    first, second = sealed(sealer, b"1"), sealed(sealer, b"2")
    with pytest.raises(NotAuthentic):
        opened(opener, second)
    opened(opener, first)
    with pytest.raises(NotAuthentic):
        opened(opener, first)


def test_no_two_directions_connections_epochs_or_sessions_share_a_key():
    sessions = [
        SESSION,
        Session.agree(b"session2", b"c" * 32, b"s" * 32),
        Session.agree(b"sessions", b"d" * 32, b"s" * 32),
    ]
    sessions += [session.renew(b"c" * 32, b"s" * 32) for session in sessions]
    all_keys = [
        session.key(direction, connection)
        for session, direction, connection in itertools.product(sessions, Direction, (0, 1, 2, keys.DATAGRAMS))
    ]
    proofs = [session.proof(connection) for session in sessions for connection in range(3)]
    assert len(set(all_keys + proofs)) == len(all_keys) + len(proofs)
    assert {len(key) for key in all_keys} == {32}


def test_a_record_of_another_connection_does_not_open():
    sealer, _ = pair(connection=1)
    _, opener = pair(connection=2)
    with pytest.raises(NotAuthentic):
        opened(opener, sealed(sealer, b"x"))


def test_hkdf_gives_what_its_standard_says():
    """RFC 5869, A.1: the pseudo-random key, and the first 32 bytes of the output, which are its first block."""
    secret = _extract(bytes(range(13)), b"\x0b" * 22)
    assert secret.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert (
        _expand(secret, bytes(range(0xF0, 0xFA))).hex()
        == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    )


def test_secrets_are_not_shown():
    assert SESSION.secret.hex() not in repr(SESSION)
    assert repr(SESSION.secret) not in repr(SESSION)
