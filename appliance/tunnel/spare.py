"""Spare parts: of what is cut into parts, a few may be lost and are worked out again. Pure.

There is a spare part for every `SPARED` parts or fewer. With n of them, each is the sum (XOR, the last part with zeros
behind it) of every n-th part, so that neighbours, which are lost together, are in different sums. Of each sum one part
can be lost without harm. Where one datagram in a hundred is lost, that leaves one of three hundred units of eight.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Final

SPARED: Final = 8
"""Parts that share a spare one."""


def count(parts: int) -> int:
    """Return how many spare parts so many parts have."""
    return -(-parts // SPARED)


def make(whole: memoryview, size: int) -> list[bytes]:
    """Return the spare parts of what is cut into parts of `size` bytes."""
    parts = [int.from_bytes(whole[at : at + size], "little") for at in range(0, len(whole), size)]
    sums, length = count(len(parts)), min(size, len(whole))
    return [functools.reduce(operator.xor, parts[which::sums]).to_bytes(length, "little") for which in range(sums)]


def mend(whole: memoryview, size: int, seen: int, spares: Mapping[int, int]) -> bool:
    """Fill in the parts that are missing (bit n of `seen`: part n is there) from the spare ones, read as little-endian.

    Return whether that could be done; whether it is right, only what is sealed in there can tell.
    """
    parts = -(-len(whole) // size)
    sums = count(parts)
    gaps = [number for number in range(parts) if not seen >> number & 1]
    if len({number % sums for number in gaps}) < len(gaps) or not all(gap % sums in spares for gap in gaps):
        return False
    for gap in gaps:
        total = spares[gap % sums]
        for number in range(gap % sums, parts, sums):
            if number != gap:
                total ^= int.from_bytes(whole[number * size : (number + 1) * size], "little")
        there = whole[gap * size : (gap + 1) * size]
        there[:] = total.to_bytes(size, "little")[: len(there)]
    return True
