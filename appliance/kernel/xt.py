"""The bytes of a rule as ip_tables and ip6_tables hand them over. Pure: bytes and values, no library.

A rule is a header (addresses, devices, protocol), then matches, then one target; layouts of
uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h and netfilter/x_tables.h on 64-bit machines. A
*template* is a rule of the right shape whose header does not matter; `stamp` gives it one. A `Form` is what two equal
rules have in common once the parts that the kernel fills in as it likes (counters, offsets, the bytes behind a name)
are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from appliance.kernel.firewall import Line

if TYPE_CHECKING:
    from appliance.kernel.state import Network

_INV_IN, _INV_OUT = 0x01, 0x02  # IPT_INV_VIA_IN, IPT_INV_VIA_OUT
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


def stamp(template: bytes, line: Line, version: int) -> bytes:
    """Return the template with `line`'s devices and addresses in its header, and its size in a TCPMSS target."""
    layout = _LAYOUTS[version]
    fields = layout.header.unpack_from(template)
    width = layout.bits // 8
    source, source_mask = _address(line.source, width)
    address, mask = _address(line.destination, width)
    inverse = (_INV_IN if line.incoming.startswith("!") else 0) | (_INV_OUT if line.outgoing.startswith("!") else 0)
    incoming, incoming_mask = _device(line.incoming)
    outgoing, outgoing_mask = _device(line.outgoing)
    header = layout.header.pack(
        source,
        address,
        source_mask,
        mask,
        incoming,
        outgoing,
        incoming_mask,
        outgoing_mask,
        *fields[8:-1],
        inverse,
    )
    stamped = header + template[layout.header.size :]
    if not line.size:
        return stamped
    (end, _) = _OFFSETS.unpack_from(stamped, layout.offsets)
    return stamped[: end + _HEAD] + _U16.pack(line.size) + stamped[end + _HEAD + _U16.size :]


def mss(raw: bytes, version: int) -> int:
    """Return the size that a TCPMSS target sets (struct xt_tcpmss_info of linux/netfilter/xt_TCPMSS.h)."""
    (end, _) = _OFFSETS.unpack_from(raw, _LAYOUTS[version].offsets)
    return int(_U16.unpack_from(raw, end + _HEAD)[0])


def _address(network: Network | None, width: int) -> tuple[bytes, bytes]:
    if network is None:
        return bytes(width), bytes(width)
    return network.network_address.packed, network.netmask.packed


def ends(header: bytes, version: int) -> tuple[str, str, Network, Network]:
    """Return a rule's incoming and outgoing device ("" is any, "!eth0" any but eth0), destination and source.

    Not everything in a header is looked at: compare the `stamp` of what is made of it. ValueError when it is garbled.
    """
    fields = _LAYOUTS[version].header.unpack(header)
    inverse = fields[-1]
    incoming = ("!" if inverse & _INV_IN else "") + _text(fields[4])
    outgoing = ("!" if inverse & _INV_OUT else "") + _text(fields[5])
    destination, source = (ip_network((fields[at], int.from_bytes(fields[at + 2], "big").bit_count())) for at in (1, 0))
    return incoming, outgoing, destination, source


def _name(raw: bytes, at: int) -> bytes:
    return raw[at + _NAME.start : at + _NAME.stop].partition(b"\0")[0]


def _text(device: bytes) -> str:
    return device.partition(b"\0")[0].decode("ascii")


def _device(text: str) -> tuple[bytes, bytes]:
    """Return name and mask; the mask covers the final NUL, or else "tun-h" would match "tun-hk"."""
    name = text.removeprefix("!").encode("ascii")
    if not name:
        return bytes(_IFNAMSIZ), bytes(_IFNAMSIZ)
    return name.ljust(_IFNAMSIZ, b"\0"), (b"\xff" * (len(name) + 1)).ljust(_IFNAMSIZ, b"\0")
