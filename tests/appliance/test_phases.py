"""Every interleaving of operator, both loops, the cloud, deaths and other people, walked; see `tests.appliance.phases`.

Where an accepted request shows in what one reads there must never be a black hole, not for a moment. Where it may be
invisible until it lands there must be none once everything has come to rest. In both, everything comes to rest, and in
the right place. The same walk finds the black hole of the obvious design (`Naive`), so it is able to; and it finds one,
or a record that is false for a moment, wherever a part of ours is left away.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from appliance.reconcile import AttractStep, Entry
from tests.appliance.phases import GONE, GONE_BEFORE, IDLE, Naive, Phases, Step, World, shell, unasked
from tests.appliance.walk import BlackHole, Peace, walk


@cache
def everything(*, pending_shows: bool) -> set[World]:
    """Return every world that there is, whoever does whatever."""
    model = Phases(pending_shows=pending_shows)
    return walk([*model.moves(), model.console, shell])


@pytest.mark.parametrize("pending_shows", [True, False])
def test_everything_comes_to_rest_where_the_operator_wants_it(pending_shows: bool) -> None:
    reached = everything(pending_shows=pending_shows)
    assert len(reached) > 10_000
    peace = Peace(Phases(pending_shows=pending_shows))
    for world in reached:
        end = peace.end(world)
        assert end.settled, f"from {world}\nto {end}"
        assert not end.black_hole


def test_there_is_no_black_hole_for_a_moment_whoever_dies_or_meddles_with_the_cloud() -> None:
    model = Phases(pending_shows=True)
    walk([*model.moves(), model.console], forbidden=lambda world: world.black_hole)


def test_a_foreign_entry_is_never_touched() -> None:
    model = Phases(pending_shows=False)
    for world in everything(pending_shows=False):
        if world.entry == "foreign":
            assert all(after.entry == "foreign" for move in model.moves() for _, after in move(world))


def test_a_cidr_is_forgotten_only_after_the_kernel_let_go_of_it() -> None:
    model = Phases(pending_shows=True)
    walk([*model.moves(), model.console, shell], forbidden=forgotten_too_early)


def test_without_a_revision_a_word_of_an_earlier_life_would_have_it_forgotten_too_early() -> None:
    """Why "gone" names what was read: the CIDR may have been asked for and given back once more before it is heard."""

    class Undated(Phases):
        def hear(self, w: World) -> Iterator[Step]:
            word, *later = w.wire or ("",)
            yield from super().hear(w._replace(wire=(GONE, *later)) if word == GONE_BEFORE else w)

    with pytest.raises(BlackHole) as found:
        walk(Undated(pending_shows=True).moves(), forbidden=forgotten_too_early)
    story = str(found.value).splitlines()
    assert story.count("POST") > 1
    assert story[-1] == "nexthopd hears: gone"


def forgotten_too_early(world: World) -> bool:
    return world.phase is None and world.route


def test_the_obvious_design_has_a_black_hole() -> None:
    with pytest.raises(BlackHole) as found:
        walk(Naive(pending_shows=True).moves(), forbidden=lambda world: world.black_hole)
    assert "DELETE" in str(found.value)
    assert str(found.value).splitlines()[-1] == "a create lands"


def test_without_the_memory_of_what_was_released_a_late_create_would_stay() -> None:
    """Why `released` is on disk: the daemon that sent the request need not be the one that lives when it lands."""

    class Forgetful(Phases):
        def attract_step(self, w: World, entry: Entry) -> AttractStep:
            return super().attract_step(w._replace(released=False), entry)

    model = Forgetful(pending_shows=False)
    peace = Peace(model)
    assert any(peace.end(world).black_hole for world in walk(model.moves()))


def test_removing_on_yesterdays_phase_would_make_a_black_hole() -> None:
    """Why nexthopd reads the phase again in the moment in which it hears that `carrying` shrinks."""

    class Hasty(Phases):
        def may_go(self, w: World) -> bool:
            return True

    with pytest.raises(BlackHole):
        walk(Hasty(pending_shows=True).moves(), forbidden=lambda world: world.black_hole)


def test_removing_without_an_answer_would_make_a_black_hole() -> None:
    """Why everything stays while nexthopd is away or silent: it may not know yet what is carried no more."""

    class Impatient(Phases):
        def forward(self, w: World) -> Iterator[Step]:
            yield from super().forward(w)
            if w.forward[0] == "asked":
                yield "forward removes the route", w._replace(route=False, wire=unasked(w.wire), forward=IDLE)

    with pytest.raises(BlackHole):
        walk(Impatient(pending_shows=True).moves(), forbidden=lambda world: world.black_hole)
