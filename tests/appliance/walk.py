"""To visit every world that the phases' model can reach, and to see where each of them comes to rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from tests.appliance.phases import IDLE, Moves, Phases, World, cloud


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
