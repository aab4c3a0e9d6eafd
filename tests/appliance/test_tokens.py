from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from appliance.intent import IntentStore
from appliance.tokens import MOST, Scope, TokenExists, Tokens, TooManyTokens, UnknownToken


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> IntentStore:
    return IntentStore(tmp_path / "db")


def test_a_token_is_found_by_its_text_alone_and_its_text_is_kept_nowhere(store: IntentStore, tmp_path: Path) -> None:
    tokens = Tokens(store)
    made, text = tokens.add("ops", Scope.READ)
    assert text.startswith("nht_")
    assert tokens.find(text) is not None
    for wrong in ("", "nht_", text[:-1], text + "A", text.upper(), text.removeprefix("nht_"), "nht_" + "\ud800" * 43):
        assert tokens.find(wrong) is None
    store.close()
    assert text.removeprefix("nht_").encode() not in (tmp_path / "db").read_bytes()
    assert Tokens(store).all()[0].name == made.name == "ops"


def test_its_time_ends(store: IntentStore, clock: Clock) -> None:
    tokens = Tokens(store, clock=clock)
    _, text = tokens.add("ops", Scope.READ, days=1)
    found = tokens.find(text)
    assert found is not None
    assert not found.expired(clock.now)
    clock.now += 86400
    assert found.expired(clock.now)


def test_its_use_is_written_down_at_most_once_a_minute(store: IntentStore, clock: Clock) -> None:
    tokens = Tokens(store, clock=clock)
    _, text = tokens.add("ops", Scope.READ)
    assert tokens.all()[0].last_used is None
    tokens.find(text)
    first = tokens.all()[0].last_used
    assert first == clock.now
    clock.now += 59
    tokens.find(text)
    assert tokens.all()[0].last_used == first
    clock.now += 2
    tokens.find(text)
    assert tokens.all()[0].last_used == clock.now


def test_every_hash_is_compared_in_constant_time(store: IntentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(store)
    texts = [tokens.add(f"t{number}", Scope.READ)[1] for number in range(5)]
    compared: list[bytes] = []
    real = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr("appliance.tokens.hmac.compare_digest", counting)
    for text in (texts[0], texts[-1], "nht_" + "A" * 43, "nonsense"):
        compared.clear()
        tokens.find(text)
        assert len(compared) == 5


def test_a_disk_that_cannot_be_read_keeps_no_known_owner_out(store: IntentStore, tmp_path: Path) -> None:
    tokens = Tokens(store)
    _, text = tokens.add("ops", Scope.WRITE)
    assert tokens.find(text)
    store.close()
    (tmp_path / "db").write_bytes(b"this is no database" * 1000)
    assert tokens.find(text)
    assert tokens.find("nht_" + "A" * 43) is None


def test_names_are_unique_and_tokens_few(store: IntentStore) -> None:
    tokens = Tokens(store)
    tokens.add("ops", Scope.READ)
    with pytest.raises(TokenExists):
        tokens.add("ops", Scope.WRITE)
    with pytest.raises(UnknownToken):
        tokens.rm("other")
    for number in range(MOST - 1):
        tokens.add(f"t{number}", Scope.READ)
    with pytest.raises(TooManyTokens):
        tokens.add("more", Scope.READ)
