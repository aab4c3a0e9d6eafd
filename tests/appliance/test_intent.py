from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.intent import IntentStore, StoreUnavailable, UnknownCidr
from appliance.model import Bar, Intent, Phase
from appliance.records import MIGRATIONS
from tests.appliance.fakes import POD, SERVICE


@pytest.fixture
def store(tmp_path: Path) -> IntentStore:
    return IntentStore(tmp_path / "nexthop.db", clock=lambda: 1000.0)


def reopened(store: IntentStore) -> IntentStore:
    return IntentStore(store._path, clock=lambda: 2000.0)


def phase(store: IntentStore) -> Phase | None:
    found = store.get(POD)
    return None if found is None else found.phase


def drop(store: IntentStore) -> bool:
    """Drop the record as it is now."""
    found = store.get(POD)
    return store.drop(POD, found.revision if found else 0)


def withdrawn(store: IntentStore) -> int:
    """Ask for it and give it back; return the revision at which the cloud sends it here no more."""
    store.put(Intent(POD, "hk"))
    store.leave(POD)
    store.withdrawn(POD)
    found = store.get(POD)
    assert found is not None
    return found.revision


def test_what_was_acknowledged_is_read_by_the_next_process(store: IntentStore) -> None:
    assert store.put(Intent(POD, "hk", snat=False, comment="pods")) is True
    assert reopened(store).all() == (Intent(POD, "hk", snat=False, comment="pods", created_at=1000.0),)


def test_asking_twice_changes_nothing(store: IntentStore) -> None:
    calls: list[None] = []
    store.put(Intent(POD, "hk"))
    store.on_change(lambda: calls.append(None))
    assert store.put(Intent(POD, "hk")) is False
    assert calls == []
    assert len(store.history()) == 1


def test_new_attributes_of_a_present_cidr_are_taken_over(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    assert store.put(Intent(POD, "sg", comment="moved")) is False
    assert store.get(POD) == Intent(POD, "sg", comment="moved", created_at=1000.0)
    assert store.history(1)[0].what == "changed"


def test_phases_go_one_way_and_put_turns_back_from_any(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    assert store.withdrawn(POD) is False
    assert drop(store) is False
    assert store.leave(POD).phase is Phase.LEAVING
    assert store.leave(POD).phase is Phase.LEAVING
    assert drop(store) is False
    assert store.put(Intent(POD, "hk")) is True
    assert phase(store) is Phase.PRESENT
    store.leave(POD)
    assert store.withdrawn(POD) is True
    assert store.leave(POD).phase is Phase.WITHDRAWN
    assert store.put(Intent(POD, "hk")) is True
    assert drop(store) is False
    store.leave(POD)
    store.withdrawn(POD)
    assert drop(store) is True
    assert phase(store) is None
    assert drop(store) is False


def test_every_change_of_a_record_has_a_revision_that_none_had_before(store: IntentStore) -> None:
    seen = []
    for snat in (True, False):
        for change in (
            lambda snat=snat: store.put(Intent(POD, "hk", snat)),
            lambda snat=snat: store.put(Intent(POD, "hk", not snat)),
            lambda: store.leave(POD),
            lambda: store.withdrawn(POD),
        ):
            change()
            found = reopened(store).get(POD)
            assert found is not None
            seen.append(found.revision)
        store.put(Intent(POD, "hk", not snat, comment="again"))
        withdrawn(store)
        assert drop(store)
    assert seen == sorted(set(seen))


def test_what_was_seen_of_an_earlier_life_drops_nothing(store: IntentStore) -> None:
    first = withdrawn(store)
    second = withdrawn(store)  # revived
    assert store.drop(POD, first) is False
    assert store.drop(POD, second) is True
    third = withdrawn(store)  # made anew, where the record was dropped
    assert store.drop(POD, second) is False
    assert phase(store) is Phase.WITHDRAWN
    assert store.drop(POD, third) is True


def test_what_was_given_back_is_remembered_until_it_is_asked_for_again(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    store.leave(POD)
    store.withdrawn(POD)
    drop(store)
    assert reopened(store).released() == {POD}
    store.put(Intent(POD, "hk"))
    assert store.released() == frozenset()


def test_leaving_what_nobody_asked_for_is_an_error(store: IntentStore) -> None:
    with pytest.raises(UnknownCidr, match=r"10\.244\.0\.0/16"):
        store.leave(POD)
    assert store.history() == ()


def test_callbacks_come_after_the_change_is_on_disk(store: IntentStore) -> None:
    seen: list[Phase | None] = []
    store.on_change(lambda: seen.append(phase(reopened(store))))
    store.put(Intent(POD, "hk"))
    store.leave(POD)
    store.withdrawn(POD)
    drop(store)
    assert seen == [Phase.PRESENT, Phase.LEAVING, Phase.WITHDRAWN, None]


def test_history_says_who_did_what_and_when(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"), who="uid 1000")
    store.leave(POD, who="uid 0")
    store.record("forward", "repaired route", cidr=str(POD), detail="gone")
    lines = [(event.at, event.who, event.what, event.cidr) for event in store.history(3)]
    assert lines == [
        (1000.0, "forward", "repaired route", "10.244.0.0/16"),
        (1000.0, "uid 0", "removed", "10.244.0.0/16"),
        (1000.0, "uid 1000", "added", "10.244.0.0/16"),
    ]
    assert len(store.history(1)) == 1


def test_intents_come_in_numerical_order(store: IntentStore) -> None:
    six = ip_network("fd00::/64")
    for network in (six, POD, SERVICE, ip_network("9.0.0.0/8")):
        store.put(Intent(network, "hk"))
    assert [intent.network for intent in store.all()] == [ip_network("9.0.0.0/8"), SERVICE, POD, six]


def test_commits_are_as_durable_as_sqlite_can_make_them(store: IntentStore) -> None:
    store.all()
    assert store._open is not None
    assert store._open.execute("PRAGMA synchronous").fetchone() == (3,)
    assert store._open.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_read_only_file_is_read_and_refuses_changes(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    writable = store._open
    assert writable is not None
    writable.execute("PRAGMA query_only = ON")  # root writes read-only files: let SQLite refuse
    assert phase(store) is Phase.PRESENT
    with pytest.raises(StoreUnavailable, match=r"nexthop\.db"):
        store.leave(POD)
    assert phase(store) is Phase.PRESENT  # a fresh connection: the disk is back
    store.leave(POD)
    assert phase(reopened(store)) is Phase.LEAVING


def test_a_full_disk_refuses_and_changes_nothing(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    assert store._open is not None
    (pages,) = store._open.execute("PRAGMA page_count").fetchone()
    store._open.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        store.put(Intent(SERVICE, "hk", comment="x" * 100_000))
    assert [intent.network for intent in reopened(store).all()] == [POD]
    assert store.put(Intent(SERVICE, "hk")) is True


def test_a_damaged_file_and_a_missing_directory_are_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "nexthop.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable):
        IntentStore(path).all()
    with pytest.raises(StoreUnavailable):
        IntentStore(tmp_path / "nowhere" / "nexthop.db").all()


def test_a_damaged_record_is_unavailable_rather_than_ignored(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    with closing(sqlite3.connect(store._path)) as other, other:
        other.execute("UPDATE intent SET cidr = '10.244.0.0/160'")
    other.close()
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.all()


def test_comes_back_when_another_process_lets_go_of_the_file(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    other = sqlite3.connect(store._path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.leave(POD)
    other.close()
    assert store.leave(POD).phase is Phase.LEAVING


def test_a_newer_schema_is_left_alone(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    store.close()
    with closing(sqlite3.connect(store._path)) as other, other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()
    with pytest.raises(StoreUnavailable, match="newer"):
        store.all()


def test_a_migration_that_fails_half_way_leaves_the_file_as_it_was(
    store: IntentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(Intent(POD, "hk"))
    store.close()
    monkeypatch.setattr("appliance.records.MIGRATIONS", (*MIGRATIONS, "ALTER TABLE intent ADD x TEXT; NONSENSE"))
    with pytest.raises(StoreUnavailable):
        store.all()
    monkeypatch.undo()
    assert phase(store) is Phase.PRESENT


def test_another_thread_is_a_mistake_of_ours_and_not_a_broken_disk(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    caught: list[BaseException] = []

    def read() -> None:
        try:
            store.all()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert isinstance(caught[0], sqlite3.ProgrammingError)


def test_a_revived_cidr_keeps_the_day_it_was_first_asked_for(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    store.leave(POD)
    later = reopened(store)
    later.put(Intent(POD, "hk"))
    assert later.get(POD) == replace(Intent(POD, "hk"), created_at=1000.0)


def test_what_is_barred_survives_and_each_change_of_it_is_told_once(store: IntentStore) -> None:
    changes: list[None] = []
    store.on_change(lambda: changes.append(None))
    store.bar({})
    assert changes == []
    bars = {POD: Bar("overlaps-vswitch", "a vSwitch is there")}
    store.bar(bars)
    store.bar(bars)
    assert len(changes) == 1
    store.close()
    again = IntentStore(store.path)
    assert again.barred() == bars
    again.close()
    store.bar({})
    assert store.barred() == {}
    told = [(event.what, event.cidr) for event in store.history()]
    assert told == [("unbarred", str(POD)), ("barred", str(POD))]
