"""The life of one CIDR as a model: operator, both loops, the cloud, deaths and other people, each step by step.

The loops are cut into their side effects, so that anything may happen between two of them. A request to the cloud is
sent in one step and lands in another; its sender may give up or die in between, and it lands all the same.

`forward` and `attract` live in two processes, and each dies by itself. What nexthop-forward says is heard in order, but
later (`wire`); `carrying` is what nexthopd has heard last. Removing takes an answer, which comes from what is asked for
at the moment in which the question is heard; without one nothing is removed.

    black hole   the cloud sends the CIDR here, and the kernel does not carry it

There are two clouds. In the first a request that was accepted shows in what one reads (Aliyun: status Pending). In the
second it may be invisible until it lands, however late.

A record has a revision, and "gone" names the one that was read. Of revisions nothing matters but whether it is the
record's own: so with each POST what was read before becomes the word of an earlier life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from appliance.model import Phase
from appliance.reconcile import AttractStep, Entry, ForwardStep, Installed, attract_step, forward_step

Pc = tuple[Any, ...]  # where a loop stands: a name, and what it remembers
IDLE: Final[Pc] = ("idle",)

# What nexthop-forward says. The end of the line, too, is heard as NOT_CARRIED: nobody answers for it any more.
CARRIED: Final = "carried"
NOT_CARRIED: Final = "not carried"
MAY_IT_GO: Final = "may it go"  # and it is not carried from now on
GONE: Final = "gone"
GONE_BEFORE: Final = "gone, of an earlier life"

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
            if word not in {GONE, GONE_BEFORE}:
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
            yield "POST", reborn(w._replace(phase=Phase.PRESENT, released=False))
        else:
            yield "DELETE", w._replace(phase=Phase.LEAVING)

    def forward(self, w: World) -> Iterator[Step]:
        idle = w._replace(forward=IDLE)
        match w.forward:
            case ("idle",):
                step = self.forward_step(w)
                last = GONE if w.phase is Phase.WITHDRAWN else ""  # what is to be said of the record that was read
                yield f"forward decides to {step.value}", w._replace(forward=(step, last))
            case (ForwardStep.KEEP, _):
                yield from say("forward tells what it has seen", idle, CARRIED)
            case (ForwardStep.ADD, _):
                yield "forward adds the route", w._replace(route=True, forward=("added",))
            case ("added",):
                yield from say("forward tells what it reads back", idle, CARRIED if w.route else NOT_CARRIED)
            case (ForwardStep.REMOVE, last):
                yield from say("forward asks", w._replace(forward=("asked", last)), MAY_IT_GO)
            case ("asked" | "answered" as answer, last):  # an answer that comes too late is none
                yield "forward gives up waiting", idle._replace(wire=unasked(w.wire))
                if answer == "answered":
                    yield "forward removes the route", w._replace(route=False, forward=("gone", last) if last else IDLE)
            case (ForwardStep.DROP, last):
                after = w._replace(forward=("gone", last))
                yield from say("forward tells that it carries it no more", after, NOT_CARRIED)
            case ("gone", last):
                yield from say(f"forward tells that it is {last}", idle, last)
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
        elif word == GONE_BEFORE:
            yield "nexthopd hears of an earlier life: gone", heard
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


def reborn(w: World) -> World:
    """Make what was read of the record until now the word of an earlier life."""
    aged = {GONE: GONE_BEFORE}
    wire = tuple(aged.get(word, word) for word in w.wire)
    return w._replace(wire=wire, forward=tuple(aged.get(each, each) for each in w.forward))


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
