"""The life of one CIDR, exhaustively: every interleaving of operator, both loops, the cloud, crashes and other people.

The loops are cut into their side effects, so that anything may happen between two of them. A request to the cloud is
sent in one step and lands in another; its sender may give up or die in between, and it lands all the same.

    black hole   the cloud sends the CIDR here, and the kernel does not carry it

Two clouds are walked. In the first a request that was accepted shows in what one reads (Aliyun: status Pending); there
must never be a black hole, not for a moment. In the second it may be invisible until it lands, however late; there must
be none once everything has come to rest. In both, everything comes to rest, and in the right place.

The same walk finds the black hole of the obvious design (`Naive`), so it is able to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from appliance.model import Phase
from appliance.reconcile import AttractStep, Entry, ForwardStep, Installed, attract_step, forward_step

Pc = tuple[Any, ...]  # where a loop stands: a name, and what it remembers
IDLE: Pc = ("idle",)


@dataclass(frozen=True, slots=True)
class World:
    phase: Phase | None = None
    released: bool = False
    route: bool = False
    carrying: bool = False  # in memory only
    entry: str = ""  # "", "ours" or "foreign"
    creating: bool = False  # requests in flight
    deleting: bool = False
    seen: bool = False  # Naive only: attract's last observation
    forward: Pc = IDLE
    attract: Pc = IDLE

    @property
    def black_hole(self) -> bool:
        return self.entry == "ours" and not self.route

    @property
    def settled(self) -> bool:
        """Return whether this is where the operator wants it, everywhere."""
        if self.creating or self.deleting:
            return False
        if self.phase is Phase.PRESENT:
            return self.route and self.carrying and self.entry != ""
        return self.phase is None and not self.route and not self.carrying and self.entry != "ours"


Step = tuple[str, World]


class Phases:
    """Ours: the real decisions."""

    def __init__(self, *, pending_shows: bool) -> None:
        self.pending_shows = pending_shows

    def operator(self, w: World) -> Iterator[Step]:
        if w.phase is not Phase.PRESENT:
            yield "POST", replace(w, phase=Phase.PRESENT, released=False)
        else:
            yield "DELETE", replace(w, phase=Phase.LEAVING)

    def forward(self, w: World) -> Iterator[Step]:
        match w.forward:
            case ("idle",):
                have = Installed.WHOLE if w.route else Installed.NONE
                yield "forward observes", replace(w, forward=("decided", forward_step(w.phase, have)))
            case ("decided", ForwardStep.KEEP):
                yield "forward confirms", replace(w, forward=("read-back",))
            case ("decided", ForwardStep.ADD):
                yield "forward adds the route", replace(w, route=True, forward=("read-back",))
            case ("read-back",):
                yield "forward grows carrying to what it reads", replace(w, carrying=w.route, forward=IDLE)
            case ("decided", ForwardStep.REMOVE) if w.phase in {Phase.WITHDRAWN, None}:  # still so: it looks again
                yield "forward shrinks carrying", replace(w, carrying=False, forward=("shrunk",))
            case ("shrunk",):
                yield "forward removes the route", replace(w, route=False, forward=("removed",))
            case ("removed",):
                yield "forward reads back", replace(w, forward=("gone",) if not w.route else IDLE)
            case ("decided", ForwardStep.DROP):
                yield "forward shrinks carrying", replace(w, carrying=False, forward=("gone",))
            case ("gone",) if w.phase is Phase.WITHDRAWN:
                yield "forward drops the record", replace(w, phase=None, released=True, forward=IDLE)
            case _:
                yield "forward has nothing to do", replace(w, carrying=w.carrying and w.route, forward=IDLE)

    def attract(self, w: World) -> Iterator[Step]:
        match w.attract:
            case ("idle",):
                yield "attract observes", replace(w, attract=("observed", self.view(w)))
            case ("observed", Entry() as entry):
                step = attract_step(w.phase, entry, carried=w.carrying, released=w.released)
                yield f"attract decides to {step.value}", replace(w, attract=("decided", step))
            case ("decided", AttractStep.ENSURE) if self.pending_shows and w.entry:
                yield "attract sends a create, which is refused: the place is taken", replace(w, attract=IDLE)
            case ("decided", AttractStep.ENSURE):
                yield "attract sends a create", replace(w, creating=True, attract=("creating",))
            case ("decided", AttractStep.WITHDRAW):
                yield "attract sends a delete", replace(w, deleting=True, attract=("deleting",))
            case ("decided", AttractStep.MARK_WITHDRAWN) if w.phase is Phase.LEAVING:
                yield "attract marks it withdrawn", replace(w, phase=Phase.WITHDRAWN, attract=IDLE)
            case ("creating",) if not w.creating:
                yield "attract gets its answer", replace(w, attract=IDLE)
            case ("deleting",) if not w.deleting:
                yield "attract gets its answer", replace(w, attract=IDLE)
            case ("creating",) | ("deleting",):
                yield "attract gives up waiting", replace(w, attract=IDLE)
            case _:
                yield "attract has nothing to do", replace(w, attract=IDLE)

    def view(self, w: World) -> Entry:
        if w.entry == "foreign":
            return Entry.FOREIGN
        if self.pending_shows and (w.creating or (w.deleting and w.entry == "ours")):
            return Entry.UNSETTLED
        return Entry.READY if w.entry == "ours" else Entry.ABSENT

    def console(self, w: World) -> Iterator[Step]:
        """Somebody else works on the route table, which has one place for a CIDR: a pending entry is in it already."""
        if w.entry:
            yield "somebody deletes the entry", replace(w, entry="")
        elif not (self.pending_shows and w.creating):
            yield "somebody makes an entry", replace(w, entry="foreign")

    def crash(self, w: World) -> Iterator[Step]:
        fresh = replace(w, carrying=False, seen=False, forward=IDLE, attract=IDLE)
        if fresh != w:
            yield "the daemon dies and starts again", fresh


class Naive(Phases):
    """Two set equations: the kernel holds what is wanted or seen in the cloud, the cloud what is wanted and carried."""

    def operator(self, w: World) -> Iterator[Step]:
        if w.phase is None:
            yield "POST", replace(w, phase=Phase.PRESENT)
        else:
            yield "DELETE", replace(w, phase=None)

    def forward(self, w: World) -> Iterator[Step]:
        if w.forward == IDLE:
            wanted = w.phase is not None or w.seen
            step = ForwardStep.KEEP if wanted and w.route else ForwardStep.ADD if wanted else ForwardStep.REMOVE
            yield "forward observes", replace(w, forward=("decided", step))
        else:
            yield from super().forward(w)

    def attract(self, w: World) -> Iterator[Step]:
        match w.attract:
            case ("observed", Entry() as entry):
                there = entry in {Entry.READY, Entry.UNSETTLED}
                wanted = w.phase is not None and w.carrying
                step = AttractStep.REST
                if wanted and entry is Entry.ABSENT:
                    step = AttractStep.ENSURE
                if there and w.phase is None:
                    step = AttractStep.WITHDRAW
                yield f"attract decides to {step.value}", replace(w, seen=there, attract=("decided", step))
            case _:
                yield from super().attract(w)


def cloud(w: World) -> Iterator[Step]:
    if w.creating:
        yield "a create lands", replace(w, creating=False, entry=w.entry or "ours")
    if w.deleting:
        yield "a delete lands", replace(w, deleting=False, entry="" if w.entry == "ours" else w.entry)


def shell(w: World) -> Iterator[Step]:
    """Somebody else works on this machine."""
    if w.route:
        yield "somebody deletes the route", replace(w, route=False)


Moves = Callable[[World], Iterator[Step]]


class BlackHole(AssertionError):
    """The walk found one; the message is the way there."""


def walk(moves: Sequence[Moves], forbidden: Callable[[World], bool] = lambda w: False) -> set[World]:
    """Visit every reachable world, nearest first; raise with the shortest way to a forbidden one."""
    start = World()
    came: dict[World, tuple[str, World] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        if forbidden(world):
            raise BlackHole(story(world, came))
        for move in moves:
            for name, after in move(world):
                if after not in came:
                    came[after] = (name, world)
                    queue.append(after)
    return set(came)


def story(world: World, came: dict[World, tuple[str, World] | None]) -> str:
    lines: list[str] = []
    while (step := came[world]) is not None:
        lines.append(step[0])
        world = step[1]
    return "\n".join(reversed(lines))


def rest(model: Phases, world: World) -> World:
    """Let everything in flight land and both loops go on, with nobody interfering, until nothing changes any more."""
    for _ in range(12):
        before = world
        for move in (cloud, cloud, model.forward, model.attract):
            for _ in range(8):  # more than any pass has steps
                landed = dict(cloud(world))
                if move is not cloud and landed:
                    world = next(iter(landed.values()))
                world = next((after for _, after in move(world)), world)
                if move is not cloud and (world.forward if move == model.forward else world.attract) == IDLE:
                    break
        if world == before:
            return world
    pytest.fail(f"comes never to rest: {world}")


@pytest.mark.parametrize("pending_shows", [True, False])
def test_everything_comes_to_rest_where_the_operator_wants_it(pending_shows: bool) -> None:
    model = Phases(pending_shows=pending_shows)
    moves = [model.operator, model.forward, model.attract, model.crash, cloud, model.console, shell]
    reached = walk(moves)
    assert len(reached) > 1000
    for world in reached:
        at_rest = rest(model, world)
        assert at_rest.settled, f"from {world}\nto {at_rest}"
        assert not at_rest.black_hole


def test_there_is_no_black_hole_for_a_moment_whoever_dies_or_meddles_with_the_cloud() -> None:
    model = Phases(pending_shows=True)
    walk(
        [model.operator, model.forward, model.attract, model.crash, cloud, model.console],
        forbidden=lambda world: world.black_hole,
    )


def test_a_foreign_entry_is_never_touched() -> None:
    model = Phases(pending_shows=False)
    for world in walk([model.operator, model.forward, model.attract, model.crash, cloud, model.console]):
        if world.entry == "foreign":
            for move in (model.forward, model.attract, model.crash, cloud):
                assert all(after.entry == "foreign" for _, after in move(world))


def test_a_cidr_is_forgotten_only_after_the_kernel_let_go_of_it() -> None:
    model = Phases(pending_shows=True)
    for world in walk([model.operator, model.forward, model.attract, model.crash, cloud, model.console, shell]):
        assert world.phase is not None or not world.route


def test_the_obvious_design_has_a_black_hole() -> None:
    naive = Naive(pending_shows=True)
    with pytest.raises(BlackHole) as found:
        walk(
            [naive.operator, naive.forward, naive.attract, naive.crash, cloud],
            forbidden=lambda world: world.black_hole,
        )
    assert "DELETE" in str(found.value)
    assert str(found.value).splitlines()[-1] == "a create lands"


def test_without_the_memory_of_what_was_released_a_late_create_would_stay() -> None:
    """Why `released` is on disk: the daemon that sent the request need not be the one that lives when it lands."""

    class Forgetful(Phases):
        def attract(self, w: World) -> Iterator[Step]:
            for name, after in super().attract(replace(w, released=False)):
                yield name, replace(after, released=w.released)

    model = Forgetful(pending_shows=False)
    reached = walk([model.operator, model.forward, model.attract, model.crash, cloud])
    assert any(rest(model, world).black_hole for world in reached)


def test_removing_on_yesterdays_phase_would_make_a_black_hole() -> None:
    """Why `forward` reads the phase again in the moment in which it shrinks `carrying`."""

    class Hasty(Phases):
        def forward(self, w: World) -> Iterator[Step]:
            if w.forward == ("decided", ForwardStep.REMOVE):
                yield "forward shrinks carrying", replace(w, carrying=False, forward=("shrunk",))
            else:
                yield from super().forward(w)

    model = Hasty(pending_shows=True)
    with pytest.raises(BlackHole):
        walk([model.operator, model.forward, model.attract, cloud], forbidden=lambda world: world.black_hole)
