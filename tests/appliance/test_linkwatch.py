from __future__ import annotations

from appliance.intent import StoreUnavailable
from appliance.linkwatch import LinkWatch
from appliance.model import Intent
from appliance.options import WhenDown
from appliance.reconcile import Withhold
from appliance.status import LinkStatus
from tests.appliance.fakes import POD, SERVICE


class Book:
    """Takes lines of history and repairs."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.repairs: list[tuple[str, str, int]] = []
        self.broken = False
        self.intents: tuple[Intent, ...] = ()

    def record(self, who: str, what: str, *, cidr: str = "", detail: str = "") -> None:
        if self.broken:
            raise StoreUnavailable("the disk is full")
        self.lines.append((who, what))

    def all(self) -> tuple[Intent, ...]:
        if self.broken:
            raise StoreUnavailable("the disk is full")
        return self.intents

    async def statuses(self) -> tuple[LinkStatus, ...]:
        return ()

    def repaired(self, kind: str, what: str, count: int) -> None:
        self.repairs.append((kind, what, count))


def watched() -> tuple[LinkWatch, Book]:
    book = Book()
    return LinkWatch(book, book, book.repaired), book


def link(state: str = "up", pid: int = 1, **counters: int) -> LinkStatus:
    return LinkStatus("hk", "tun-hk", state, pid=pid, counters=counters)


def test_a_link_that_comes_up_and_goes_down_is_told_once_each() -> None:
    watch, book = watched()
    for at, state in enumerate(["connecting", "up", "up", "down", "down", "connecting", "up"]):
        watch.take((link(state),), at)
    assert [what for _, what in book.lines] == ["came up", "went down", "came up"]


def test_how_long_a_link_has_been_down_is_known() -> None:
    watch, _ = watched()
    assert watch.down_for("hk", 0) is None
    watch.take((link("down"),), 10)
    watch.take((link("connecting"),), 12)
    assert watch.down_for("hk", 15) == 5
    watch.take((link("up"),), 16)
    assert watch.down_for("hk", 17) is None


def test_a_link_that_was_removed_is_forgotten() -> None:
    watch, _ = watched()
    watch.take((link("down"),), 10)
    watch.take((), 11)
    assert watch.down_for("hk", 12) is None


def test_what_a_gtun_repaired_is_counted_once_and_not_again_after_it_started_anew() -> None:
    watch, book = watched()
    watch.take((link(repaired_address=3, tx_packets=9),), 0)  # before our time
    watch.take((link(repaired_address=5),), 1)
    watch.take((link(repaired_address=5),), 2)
    watch.take((link(pid=2, repaired_address=1),), 3)
    assert book.repairs == [("address", "tun-hk", 2), ("address", "tun-hk", 1)]


def test_a_full_disk_does_not_end_the_watch() -> None:
    watch, book = watched()
    book.broken = True
    watch.take((link("up"),), 0)
    assert watch.down_for("hk", 1) is None


def test_an_entry_goes_after_the_hold_down_and_comes_back_with_the_link() -> None:
    watch, book = watched()
    policy = Intent(POD, "hk", when_down=WhenDown.WITHDRAW, hold_down=10)
    book.intents = (policy, Intent(SERVICE, "hk"))
    said = []
    assert watch.withhold(policy) is Withhold.NEW  # nothing is known yet: what is there stays, nothing is made
    states = {0: "up", 1: "up", 2: "down", 6: "connecting", 11: "down", 12: "down", 13: "down", 14: "up"}
    for at, state in states.items():
        watch.take((link(state),), at)
        said.append(watch.withhold(policy).value)
    assert said == ["nothing", "nothing", "new", "new", "new", "any", "any", "nothing"]
    assert watch.withhold(book.intents[1]) is Withhold.NOTHING


def test_a_link_that_flaps_faster_than_the_hold_down_takes_no_entry_away() -> None:
    watch, book = watched()
    book.intents = (policy := Intent(POD, "hk", when_down=WhenDown.WITHDRAW, hold_down=10),)
    for at in range(0, 100, 5):
        watch.take((link("up" if at % 10 else "down"),), at)
        assert watch.withhold(policy) is not Withhold.ANY


def test_who_listens_is_called_only_when_something_changes() -> None:
    watch, book = watched()
    book.intents = (Intent(POD, "hk", when_down=WhenDown.WITHDRAW, hold_down=10), Intent(SERVICE, "hk"))
    calls: list[None] = []
    watch.on_change(lambda: calls.append(None))
    for at in range(40):
        watch.take((link("up" if at < 5 or at > 30 else "down"),), at)
    assert len(calls) == 4  # up, down, long enough, up
    book.intents = (Intent(POD, "hk"),)
    watch.take((link(),), 41)
    calls.clear()
    for at in range(42, 60):
        watch.take((link("down" if at % 2 else "up"),), at)
    assert not calls
