"""Sets of prefixes in nftables, over netlink: what is in one, one prefix more or fewer, and the rule set's generation.

The nft program takes 20 ms for each of these, which is most of what one more CIDR may cost. The kernel counts a
generation at every transaction of anybody; a batch that names the generation it was made for is refused when another
transaction came first. An interval is two elements, its first address and the first behind it. Layouts of
uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from typing import Final

from appliance.kernel.netlink import ACK, CREATE, Message, Talk, attribute, attributes, nested
from appliance.kernel.prefixes import Prefix
from appliance.kernel.rules import version_of

_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_GENID: Final = 1  # NFNL_BATCH_GENID
_GEN_ID: Final = 1  # NFTA_GEN_ID
_LIST_ELEM: Final = 1  # NFTA_LIST_ELEM
_DATA_VALUE: Final = 1  # NFTA_DATA_VALUE
_INTERVAL_END: Final = 1  # NFT_SET_ELEM_INTERVAL_END
_INET: Final = b"\1\0\0\0"  # struct nfgenmsg: NFPROTO_INET, version 0, no resource
_WIDTHS: Final = {4: 4, 6: 16}
_BATCH: Final = 500  # prefixes in a message, whose list of elements holds 64 KiB


class _Command(IntEnum):
    """enum nf_tables_msg_types, NFT_MSG_*."""

    NEWSETELEM = 12
    GETSETELEM = 13
    DELSETELEM = 14
    GETGEN = 16


class _Batch(IntEnum):
    """NFNL_MSG_BATCH_*."""

    BEGIN = 16
    END = 17


class _List(IntEnum):
    """enum nft_set_elem_list_attributes, NFTA_SET_ELEM_LIST_*."""

    TABLE = 1
    SET = 2
    ELEMENTS = 3


class _Element(IntEnum):
    """enum nft_set_elem_attributes, NFTA_SET_ELEM_*."""

    KEY = 1
    FLAGS = 3


def generation(talk: Talk) -> int:
    """Return the number that every change of the rule set, by anybody, increases."""
    body = talk.ask(Message(_SUBSYSTEM << 8 | _Command.GETGEN, 0, bytes(4)))
    return int.from_bytes(dict(attributes(body, 4))[_GEN_ID], "big")


def members(talk: Talk, table: str, name: str) -> frozenset[Prefix] | None:
    """Return what is in a set, None where that is not all prefixes. Raises OSError, `Interrupted`."""
    bodies = talk.dump(Message(_SUBSYSTEM << 8 | _Command.GETSETELEM, 0, _INET + _names(table, name)))
    edges: list[tuple[int, bool]] = []
    for body in bodies:
        for kind, value in attributes(body, 4):
            if kind == _List.ELEMENTS:
                edges += [_edge(element) for _, element in attributes(value)]
    return prefixes(edges, 8 * _WIDTHS[version_of(name)])


def prefixes(edges: Iterable[tuple[int, bool]], bits: int) -> frozenset[Prefix] | None:
    """Return the prefixes between (address, whether an interval ends there); None where one is no prefix."""
    found: list[Prefix] = []
    first: int | None = None
    for address, ends in [*sorted(edges, key=lambda edge: (edge[0], not edge[1])), (1 << bits, True)]:
        if first is not None:
            size = address - first
            if size & (size - 1) or first & (size - 1):
                return None
            found.append((first, bits - size.bit_length() + 1))
        first = None if ends else address
    return frozenset(found)


def change(
    talk: Talk, table: str, at: int, added: Iterable[tuple[str, Prefix]], removed: Iterable[tuple[str, Prefix]]
) -> None:
    """Take (set, prefix) out and put others in, as one transaction. `at`: the generation that this was worked out for.

    Raises OSError, with ERESTART where the rule set is not what it was.
    """
    messages = [Message(_Batch.BEGIN, 0, _batch() + attribute(_BATCH_GENID, at.to_bytes(4, "big")))]
    for command, flags, pairs in ((_Command.DELSETELEM, 0, removed), (_Command.NEWSETELEM, CREATE, added)):
        by_name: dict[str, list[Prefix]] = {}
        for name, prefix in pairs:
            by_name.setdefault(name, []).append(prefix)
        for name, several in by_name.items():
            for start in range(0, len(several), _BATCH):
                elements = nested(_List.ELEMENTS, _elements(several[start : start + _BATCH], _WIDTHS[version_of(name)]))
                messages.append(Message(_SUBSYSTEM << 8 | command, flags, _INET + _names(table, name) + elements))
    messages[-1] = messages[-1]._replace(flags=messages[-1].flags | ACK)
    talk.do(*messages, Message(_Batch.END, 0, _batch()))


def _batch() -> bytes:
    return b"\0\0" + _SUBSYSTEM.to_bytes(2, "big")


def _names(table: str, name: str) -> bytes:
    return attribute(_List.TABLE, table.encode("ascii") + b"\0") + attribute(_List.SET, name.encode("ascii") + b"\0")


def _elements(several: Iterable[Prefix], width: int) -> Iterable[bytes]:
    for address, length in several:
        yield _packed(address, width, ends=False)
        behind = address + (1 << (8 * width - length))
        if behind < 1 << (8 * width):
            yield _packed(behind, width, ends=True)


def _packed(address: int, width: int, *, ends: bool) -> bytes:
    key = nested(_Element.KEY, [attribute(_DATA_VALUE, address.to_bytes(width, "big"))])
    return nested(_LIST_ELEM, [key, attribute(_Element.FLAGS, _INTERVAL_END.to_bytes(4, "big"))] if ends else [key])


@lru_cache(maxsize=1 << 16)
def _edge(element: bytes) -> tuple[int, bool]:
    parts = dict(attributes(element))
    value = dict(attributes(parts[_Element.KEY]))[_DATA_VALUE]
    return int.from_bytes(value, "big"), bool(parts.get(_Element.FLAGS, b"\0")[-1] & _INTERVAL_END)
