import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame, keys, unit
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


# ---- epochs ---------------------------------------------------------------------------------------------------------

NEXT = SESSION.renew(b"C" * 32, b"S" * 32)


def test_a_record_of_the_next_epoch_opens_once_its_key_is_there_and_ends_the_epoch_before():
    sealer, opener = pair()
    assert opened(opener, sealed(sealer, b"0")) == b"0"
    late = pair()[0]
    sealed(late, b"0")
    sealer.rekey(NEXT)
    first = sealed(sealer, b"1")
    with pytest.raises(NotAuthentic):
        opened(opener, first)
    opener.install(NEXT)
    assert opened(opener, first) == b"1"
    late._counter = 2
    with pytest.raises(NotAuthentic):
        opened(opener, sealed(late, b"the old key"))
    assert opened(opener, sealed(sealer, b"2")) == b"2"
    assert (sealer.used, opener.used) == (2, 2)


def test_records_of_the_old_epoch_open_until_the_new_one_begins():
    sealer, opener = pair()
    opener.install(NEXT)
    assert [opened(opener, sealed(sealer, plain)) for plain in (b"a", b"b")] == [b"a", b"b"]
    sealer.rekey(NEXT)
    assert opened(opener, sealed(sealer, b"c")) == b"c"


def test_an_epoch_cannot_be_worked_out_backwards_and_takes_both_ends_random_bytes():
    assert SESSION.secret not in (NEXT.secret, NEXT.renew(b"C" * 32, b"S" * 32).secret)
    assert SESSION.renew(b"C" * 32, b"x" * 32).secret != NEXT.secret != SESSION.renew(b"x" * 32, b"S" * 32).secret
    with pytest.raises(frame.LocalProtocolError):
        Session(b"sessions", b"s" * 32, keys.LAST_EPOCH).renew(b"C" * 32, b"S" * 32)


class Noting:
    """An AES-GCM that only notes what it is asked to seal with."""

    pairs: Counter[tuple[bytes, bytes]]

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt_into(self, nonce: bytes, *_: object) -> None:
        self.pairs[self._key, nonce] += 1


@given(st.lists(st.tuples(st.sampled_from(["seal", "seal", "rekey", "connect"]), st.integers(0, 9)), max_size=60))
def test_no_key_meets_a_nonce_twice_whatever_is_sealed_connected_and_made_anew(steps):
    """One session: its channels in both directions seal, new connections take new numbers, epochs follow each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Noting, "pairs", Counter(), raising=False)
        patch.setattr(keys, "AESGCM", Noting)
        patch.setattr(unit, "AESGCM", Noting)
        session, room, number = SESSION, memoryview(bytearray(100)), 0
        sealers: list[unit.Sealer | Sealer] = [unit.Sealer(session, direction) for direction in Direction]
        seals = 0
        for step, which in steps:
            if step == "connect":
                sealers += [Sealer(session, direction, number) for direction in Direction]
                number += 1
            elif step == "rekey":
                session = session.renew(b"C" * 32, b"S" * 32)
                for sealer in sealers:
                    sealer.rekey(session)
            else:
                sealers[which % len(sealers)].seal(frame.Kind.DATA, b"plain", room)
                seals += 1
        assert sum(Noting.pairs.values()) == len(Noting.pairs) == seals


def test_the_keys_that_are_kept_are_few_however_often_they_are_made_anew():
    _, opener = pair()
    session = SESSION
    for _ in range(100):
        session = session.renew(b"C" * 32, b"S" * 32)
        opener.install(session)
    assert len(opener._aeads) <= 16
    assert opened(opener, sealed(pair(session)[0], b"newest")) == b"newest"
