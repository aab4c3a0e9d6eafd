"""The life of one CIDR, exhaustively: every interleaving of operator, both loops, the cloud, deaths and other people.

The loops are cut into their side effects, so that anything may happen between two of them. A request to the cloud is
sent in one step and lands in another; its sender may give up or die in between, and it lands all the same.

`forward` and `attract` live in two processes, and each dies by itself. What nexthop-forward says is heard in order, but
later (`wire`); `carrying` is what nexthopd has heard last. Removing takes an answer, which comes from what is asked for
at the moment in which the question is heard; without one nothing is removed.

    black hole   the cloud sends the CIDR here, and the kernel does not carry it

Two clouds are walked. In the first a request that was accepted shows in what one reads (Aliyun: status Pending); there
must never be a black hole, not for a moment. In the second it may be invisible until it lands, however late; there must
be none once everything has come to rest. In both, everything comes to rest, and in the right place.

The same walk finds the black hole of the obvious design (`Naive`), so it is able to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import pytest

from appliance.model import Phase
from appliance.reconcile import AttractStep, Entry, ForwardStep, Installed, attract_step, forward_step

Pc = tuple[Any, ...]  # where a loop stands: a name, and what it remembers
IDLE: Final[Pc] = ("idle",)

# What nexthop-forward says. The end of the line, too, is heard as NOT_CARRIED: nobody answers for it any more.
CARRIED: Final = "carried"
NOT_CARRIED: Final = "not carried"
MAY_IT_GO: Final = "may it go"  # and it is not carried from now on
GONE: Final = "gone"

# Words under way, not counting the end of the line. More would only make `carrying` older, and an old one does harm
# only where the route has gone since: not before the question was answered, and so all that was said before was heard.
ROOM: Final = 2


class World(NamedTuple):
    phase: Phase | None = None
    released: bool = False
    route: bool = False
    carrying: bool = False  # as nexthopd has heard it; in memory only
    wire: tuple[str, ...] = ()  # said by nexthop-forward, and not heard yet
    entry: str = ""  # "", "ours" or "foreign"
    creating: bool = False  # requests in flight
    deleting: bool = False
    seen: bool = False  # Naive only: attract's last observation
    forward: Pc = IDLE
    attract: Pc = IDLE

    @property
    def told(self) -> bool:
        """Return whether nexthop-forward carries it, as far as it has said: it says so whenever that changes."""
        for word in reversed(self.wire):
            if word != GONE:
                return word == CARRIED
        return self.carrying

    @property
    def black_hole(self) -> bool:
        return self.entry == "ours" and not self.route

    @property
    def at_rest(self) -> bool:
        return not (self.creating or self.deleting or self.wire) and self.forward == self.attract == IDLE

    @property
    def settled(self) -> bool:
        """Return whether this is where the operator wants it, everywhere."""
        if self.phase is Phase.PRESENT:
            return self.at_rest and self.route and self.carrying and self.entry != ""
        return self.at_rest and not (self.phase or self.route or self.carrying or self.entry == "ours")


Step = tuple[str, World]
Moves = Callable[[World], Iterator[Step]]


class Phases:
    """Ours: the real decisions."""

    def __init__(self, *, pending_shows: bool) -> None:
        self.pending_shows = pending_shows

    def moves(self) -> Sequence[Moves]:
        """Return all that may happen while nobody meddles."""
        return (self.operator, self.forward, self.hear, self.attract, self.death, cloud)

    def operator(self, w: World) -> Iterator[Step]:
        if w.phase is not Phase.PRESENT:
            yield "POST", w._replace(phase=Phase.PRESENT, released=False)
        else:
            yield "DELETE", w._replace(phase=Phase.LEAVING)

    def forward(self, w: World) -> Iterator[Step]:
        idle = w._replace(forward=IDLE)
        match w.forward:
            case ("idle",):
                step = self.forward_step(w)
                known = (w.phase,) if step is ForwardStep.REMOVE else ()
                yield f"forward decides to {step.value}", w._replace(forward=(step, *known))
            case (ForwardStep.KEEP,):
                yield from say("forward tells what it has seen", idle, CARRIED)
            case (ForwardStep.ADD,):
                yield "forward adds the route", w._replace(route=True, forward=("added",))
            case ("added",):
                yield from say("forward tells what it reads back", idle, CARRIED if w.route else NOT_CARRIED)
            case (ForwardStep.REMOVE, phase):
                yield from say("forward asks", w._replace(forward=("asked", phase)), MAY_IT_GO)
            case ("asked", _) | ("answered", _):  # an answer that comes too late is none
                yield "forward gives up waiting", idle._replace(wire=unasked(w.wire))
                if w.forward[0] == "answered":
                    let_go = ("gone",) if w.forward[1] is Phase.WITHDRAWN else IDLE  # its phase as this pass began
                    yield "forward removes the route", w._replace(route=False, forward=let_go)
            case (ForwardStep.DROP,):
                yield from say("forward tells that it carries it no more", w._replace(forward=("gone",)), NOT_CARRIED)
            case ("gone",):
                yield from say("forward tells that it is gone", idle, GONE)
            case _:
                yield from say("forward has nothing to do", idle, NOT_CARRIED)

    def forward_step(self, w: World) -> ForwardStep:
        return forward_step(w.phase, Installed.WHOLE if w.route else Installed.NONE)

    def hear(self, w: World) -> Iterator[Step]:
        """Let nexthopd hear the next word."""
        if not w.wire:
            return
        word, heard = w.wire[0], w._replace(wire=w.wire[1:])
        if word == MAY_IT_GO:
            after = ("answered", w.forward[1]) if self.may_go(w) else IDLE
            yield "nexthopd answers", heard._replace(carrying=False, forward=after)
        elif word == GONE:
            dropped = heard._replace(phase=None, released=True)
            yield "nexthopd hears: gone", dropped if w.phase is Phase.WITHDRAWN else heard
        else:
            yield f"nexthopd hears: {word}", heard._replace(carrying=word == CARRIED)

    def may_go(self, w: World) -> bool:
        return w.phase in {Phase.WITHDRAWN, None}

    def attract(self, w: World) -> Iterator[Step]:
        """Whether it waits for an answer or gives up is one: all it does with either is to look again, some time."""
        idle = w._replace(attract=IDLE)
        match w.attract:
            case ("idle",):
                yield "attract observes", w._replace(attract=("observed", self.view(w)))
            case ("observed", Entry() as entry):
                step = self.attract_step(w, entry)
                after = idle
                if step is AttractStep.MARK_WITHDRAWN:
                    after = idle._replace(phase=Phase.WITHDRAWN)
                elif step in {AttractStep.ENSURE, AttractStep.WITHDRAW}:
                    after = w._replace(attract=(step,))
                yield f"attract decides to {step.value}", after
            case (AttractStep.ENSURE,) if self.pending_shows and w.entry:
                yield "attract sends a create, which is refused: the place is taken", idle
            case (AttractStep.ENSURE,):
                yield "attract sends a create", idle._replace(creating=True)
            case _:
                yield "attract sends a delete", idle._replace(deleting=True)

    def attract_step(self, w: World, entry: Entry) -> AttractStep:
        return attract_step(w.phase, entry, carried=w.carrying, released=w.released)

    def view(self, w: World) -> Entry:
        if w.entry == "foreign":
            return Entry.FOREIGN
        if self.pending_shows and (w.creating or (w.deleting and w.entry == "ours")):
            return Entry.UNSETTLED
        return Entry.READY if w.entry == "ours" else Entry.ABSENT

    def console(self, w: World) -> Iterator[Step]:
        """Somebody else works on the route table, which has one place for a CIDR: a pending entry is in it already."""
        if w.entry:
            yield "somebody deletes the entry", w._replace(entry="")
        elif not (self.pending_shows and w.creating):
            yield "somebody makes an entry", w._replace(entry="foreign")

    def death(self, w: World) -> Iterator[Step]:
        """Each process begins anew, alone. What nexthop-forward had said is heard still, then the end of the line."""
        end = (NOT_CARRIED,) if w.told else ()
        yield "nexthop-forward dies", w._replace(forward=IDLE, wire=(*unasked(w.wire), *end))
        first = (CARRIED,) if w.told else ()
        forward = IDLE if w.forward[0] == "asked" else w.forward
        yield "nexthopd dies", w._replace(carrying=False, seen=False, wire=first, forward=forward, attract=IDLE)


def say(name: str, after: World, word: str) -> Iterator[Step]:
    """Put a word on the wire, once there is room; what was said already is not said again."""
    if word in {CARRIED, NOT_CARRIED} and after.told == (word == CARRIED):
        yield name, after
    elif len(after.wire) < ROOM:
        yield name, after._replace(wire=(*after.wire, word))


def unasked(wire: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is under way once nobody waits for an answer: only what goes with the question is left of it."""
    return tuple(NOT_CARRIED if word == MAY_IT_GO else word for word in wire)


class Naive(Phases):
    """Two set equations: the kernel holds what is wanted or seen in the cloud, the cloud what is wanted and carried."""

    def operator(self, w: World) -> Iterator[Step]:
        if w.phase is None:
            yield "POST", w._replace(phase=Phase.PRESENT)
        else:
            yield "DELETE", w._replace(phase=None)

    def forward_step(self, w: World) -> ForwardStep:
        if w.phase is None and not w.seen:
            return ForwardStep.REMOVE
        return ForwardStep.KEEP if w.route else ForwardStep.ADD

    def attract(self, w: World) -> Iterator[Step]:
        if w.attract[0] == "observed":
            w = w._replace(seen=w.attract[1] in {Entry.READY, Entry.UNSETTLED})
        yield from super().attract(w)

    def attract_step(self, w: World, entry: Entry) -> AttractStep:
        if w.phase is None:
            return AttractStep.WITHDRAW if w.seen else AttractStep.REST
        return AttractStep.ENSURE if w.carrying and entry is Entry.ABSENT else AttractStep.REST


def cloud(w: World) -> Iterator[Step]:
    if w.creating:
        yield "a create lands", w._replace(creating=False, entry=w.entry or "ours")
    if w.deleting:
        yield "a delete lands", w._replace(deleting=False, entry="" if w.entry == "ours" else w.entry)


def shell(w: World) -> Iterator[Step]:
    """Somebody else works on this machine."""
    if w.route:
        yield "somebody deletes the route", w._replace(route=False)


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


@cache
def everything(*, pending_shows: bool) -> set[World]:
    """Return every world that there is, whoever does whatever."""
    model = Phases(pending_shows=pending_shows)
    return walk([*model.moves(), model.console, shell])


class Peace:
    """Nobody interferes: all that is under way lands and is heard, and both loops go on until nothing changes."""

    def __init__(self, model: Phases) -> None:
        self.model = model
        self.known: dict[World, World] = {}

    def end(self, world: World) -> World:
        """Return where it ends, which is a world in which another pass of each loop changes nothing."""
        way = [world]
        while way[-1] not in self.known:
            after = self.after(way[-1])
            if after == way[-1]:
                self.known[after] = after
            way.append(after)
            assert len(way) < 100, f"comes never to rest: {world}"
        self.known.update(dict.fromkeys(way, self.known[way[-1]]))
        return self.known[world]

    def after(self, world: World) -> World:
        """Return what follows: a step where anything is under way, and a pass of each loop where nothing is."""
        if not world.at_rest:
            return self.step(world)
        for begin in (self.model.forward, self.model.attract):
            world = next(begin(world))[1]
            while not world.at_rest:
                world = self.step(world)
        return world

    def step(self, world: World) -> World:
        for move in (cloud, self.model.hear):
            for _, after in move(world):
                return after
        # A loop that may give up goes on, where it can.
        *_, (_, after) = (self.model.forward if world.forward != IDLE else self.model.attract)(world)
        return after


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
    """As long as nexthopd hears of it before the next pass begins.

    Otherwise the CIDR may have been asked for and given back once more, and `gone` is taken for the end of that life.
    Its route is then removed as one that nobody asks for, after a question like any other: see where all comes to rest.
    """

    class Prompt(Phases):
        def forward(self, w: World) -> Iterator[Step]:
            if GONE not in w.wire:
                yield from super().forward(w)

    model = Prompt(pending_shows=True)
    walk([*model.moves(), model.console, shell], forbidden=lambda world: world.phase is None and world.route)


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
