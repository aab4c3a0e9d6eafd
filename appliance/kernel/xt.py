"""The bytes of a rule as ip_tables and ip6_tables hand them over. Pure: bytes and values, no library.

A rule is a header (addresses, devices, protocol), then matches, then one target; layouts of
uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h and netfilter/x_tables.h on 64-bit machines. A
*template* is a rule of the right shape whose header does not matter; `stamp` gives it one. A `Form` is what two equal
rules have in common once the parts that the kernel fills in as it likes (counters, offsets, the bytes behind a name)
are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from appliance.kernel.rules import Line

if TYPE_CHECKING:
    from collections.abc import Mapping

_INV_IN, _INV_OUT = 0x01, 0x02  # IPT_INV_VIA_IN, IPT_INV_VIA_OUT
_ICMP: Final = {4: 1, 6: 58}  # IPPROTO_ICMP, IPPROTO_ICMPV6
_CARES: Final = 0x01  # IP6T_F_PROTO: the rule is about one protocol, which IPv4's says by naming one
_NAME: Final = slice(2, 31)  # of a match and of a target: u16 size, char name[29], u8 revision, then its parameters
_REVISION: Final = 31
_HEAD: Final = 32
_IFNAMSIZ: Final = 16
_VERDICTS: Final = {b"", b"ACCEPT", b"DROP", b"RETURN"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """`header`: src, dst, their masks, in and out device, their masks, protocol, [tos,] flags, inverse flags."""

    header: Struct
    offsets: int  # where u16 target_offset and u16 next_offset are
    size: int  # of the whole fixed part; matches follow
    bits: int


_LAYOUTS: Final = {
    4: _Layout(Struct("=4s4s4s4s16s16s16s16sHBB"), 88, 112, 32),
    6: _Layout(Struct("=16s16s16s16s16s16s16s16sHBBB3x"), 140, 168, 128),
}
_U16: Final = Struct("=H")
_OFFSETS: Final = Struct("=HH")
_SET: Final = Struct("=HBB44x")  # number of the set, how many dimensions, flags; no condition on counters
_SET_REVISION: Final = b"\4"  # the one that the iptables programs of Debian 12 and 13 can show
_SOURCE: Final = 2  # 1 << IPSET_DIM_ONE: the source is looked up, not the destination


class Form(NamedTuple):
    """What equal rules have in common."""

    header: bytes
    matches: tuple[tuple[bytes, int, bytes], ...]  # name, revision, parameters
    target: bytes  # its name, or the chain that it jumps to
    parameters: bytes  # the target's


def form(raw: bytes, version: int, target: bytes) -> Form:
    """Return what counts in a rule. `target` is its name: a rule read back does not hold a verdict's or a jump's."""
    layout = _LAYOUTS[version]
    end, total = _OFFSETS.unpack_from(raw, layout.offsets)
    matches, at = [], layout.size
    while at < end:
        (length,) = _U16.unpack_from(raw, at)
        matches.append((_name(raw, at), raw[at + _REVISION], raw[at + _HEAD : at + length]))
        at += max(length, _HEAD)  # a length of 0 would never end
    # A verdict or a jump is a number there, which libiptc sets from the name. All other targets' parameters count.
    verdict = _name(raw, end) in _VERDICTS or target.startswith(b"NEXTHOP-")
    parameters = b"" if verdict else raw[end + _REVISION : total]
    return Form(raw[: layout.header.size], tuple(matches), target, parameters)


def name_target(raw: bytes, version: int, target: bytes) -> bytes:
    """Return the rule with its target's name set: libiptc takes a verdict or a jump by its name only."""
    (end, _) = _OFFSETS.unpack_from(raw, _LAYOUTS[version].offsets)
    name = target.ljust(_NAME.stop - _NAME.start, b"\0")
    return raw[: end + _NAME.start] + name + raw[end + _NAME.stop :]


def stamp(template: bytes, line: Line, version: int, indexes: Mapping[str, int]) -> bytes:
    """Return the template with `line`'s devices and protocol in its header, its sets as matches, and its size.

    `indexes`: by which number the kernel knows each set.
    """
    layout = _LAYOUTS[version]
    fields = layout.header.unpack_from(template)
    inverse = (_INV_IN if line.incoming.startswith("!") else 0) | (_INV_OUT if line.outgoing.startswith("!") else 0)
    incoming, incoming_mask = _device(line.incoming)
    outgoing, outgoing_mask = _device(line.outgoing)
    anywhere = [bytes(layout.bits // 8)] * 4
    protocol, *flags = fields[8:-1]
    if line.icmp:
        protocol, flags[-1] = _ICMP[version], flags[-1] | (_CARES if version == 6 else 0)
    masks = (incoming, outgoing, incoming_mask, outgoing_mask)
    header = layout.header.pack(*anywhere, *masks, protocol, *flags, inverse)
    sets = [_set(indexes[name], side) for name, side in ((line.destination, 0), (line.source, _SOURCE)) if name]
    grown = sum(map(len, sets))
    end, total = _OFFSETS.unpack_from(template, layout.offsets)
    fixed = header + template[layout.header.size : layout.offsets] + _OFFSETS.pack(end + grown, total + grown)
    matches = template[len(fixed) : end] + b"".join(sets)
    target = template[end:]
    if line.size:
        target = target[:_HEAD] + _U16.pack(line.size) + target[_HEAD + _U16.size :]
    return fixed + matches + target


def _set(index: int, flags: int) -> bytes:
    """Return a match of one set: struct xt_set_info_match_v4 of linux/netfilter/xt_set.h."""
    parameters = _SET.pack(index, 1, flags)
    name = b"set".ljust(_NAME.stop - _NAME.start, b"\0")
    return _U16.pack(_HEAD + len(parameters)) + name + _SET_REVISION + parameters


def _name(raw: bytes, at: int) -> bytes:
    return raw[at + _NAME.start : at + _NAME.stop].partition(b"\0")[0]


def _device(text: str) -> tuple[bytes, bytes]:
    """Return name and mask; the mask covers the final NUL, or else "tun-h" would match "tun-hk"."""
    name = text.removeprefix("!").encode("ascii")
    if not name:
        return bytes(_IFNAMSIZ), bytes(_IFNAMSIZ)
    return name.ljust(_IFNAMSIZ, b"\0"), (b"\xff" * (len(name) + 1)).ljust(_IFNAMSIZ, b"\0")
