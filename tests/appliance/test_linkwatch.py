from __future__ import annotations

from appliance.intent import StoreUnavailable
from appliance.linkwatch import LinkWatch
from appliance.status import LinkStatus


class Book:
    """Takes lines of history and repairs."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.repairs: list[tuple[str, str, int]] = []
        self.broken = False

    def record(self, who: str, what: str, *, cidr: str = "", detail: str = "") -> None:
        if self.broken:
            raise StoreUnavailable("the disk is full")
        self.lines.append((who, what))

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
