"""The virtual router: the kernel of this network namespace does what the route tables say.

Rule: one kernel table per route table, chosen by the interface a packet comes in by; what no table knows is dropped in
silence, as the cloud does. README.md has the table of rules. Everything set here is taken back by `__aexit__`, and what
a killed predecessor left is cleared by `__aenter__`; nothing else of the namespace is touched.

Sources: Documentation/networking/ip-sysctl.rst (rp_filter, send_redirects), ip-rule(8), nft(8).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cloud.emulator.world import Hop
from cloud.emulator.worldfile import WorldFile

log = logging.getLogger(__name__)

_TABLES: Final = 1000  # kernel table of the first route table
_INTERNET: Final = 900
_NOWHERE: Final = 901
_ALREADY_SO: Final = frozenset({errno.EEXIST, errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
_NFT: Final = "nexthop_emulator"
_SYSCTL: Final = Path("/proc/sys/net/ipv4")


class Router:
    """An asynchronous context: the kernel is a virtual router inside it."""

    def __init__(self, file: WorldFile) -> None:
        self._file = file
        self._tables = {table.id: _TABLES + n for n, table in enumerate(file.route_table)}
        self._interfaces = [vswitch.interface for vswitch in file.vswitch]
        self._internet = file.router.internet_interface
        self._elastic = {each.ip: each.eip for each in file.instance if each.eip and self._internet}
        self._ipr: Any = None  # pyroute2 is untyped; nothing of it leaves this class
        self._index: dict[str, int] = {}
        self._hops: frozenset[Hop] = frozenset()
        self._sysctls: list[tuple[Path, str]] = []
        self._addresses: list[str] = []

    async def __aenter__(self) -> Self:
        self._ipr = await AsyncIPRoute().__aenter__()
        try:
            await self._clear()
            for name in [*self._interfaces, *([self._internet] if self._internet else [])]:
                self._index[name] = await self._find(name)
            self._set_sysctls()
            await self._add_rules()
            if self._internet:
                await self._connect_internet()
            await _nft(self._ruleset())
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def program(self, hops: frozenset[Hop]) -> None:
        """Make the tables say exactly this; what is new comes before what is old goes, and a change is one step."""
        places = {(hop.table, hop.destination) for hop in hops}
        for hop in sorted(hops - self._hops, key=str):
            await self._ipr.route("replace", **self._route(hop))
        for hop in sorted(self._hops - hops, key=str):
            if (hop.table, hop.destination) not in places:
                await self._tolerant(self._ipr.route("del", **self._route(hop)))
        self._hops = hops
        log.info("router programmed: %s routes", len(hops))

    def _route(self, hop: Hop) -> dict[str, Any]:
        route: dict[str, Any] = {
            "dst": str(hop.destination),
            "table": self._tables[hop.table],
            "oif": self._index[hop.interface],
        }
        if hop.via is None:
            return route | {"scope": "link"}
        return route | {"gateway": str(hop.via), "flags": ["onlink"]}

    async def _find(self, name: str) -> int:
        found = list(await self._ipr.link_lookup(ifname=name))
        if not found:
            raise LookupError(f"there is no interface {name} in this network namespace: create it, or mend world.toml")
        return int(found[0])

    async def _add_rules(self) -> None:
        # From the last resort to the first choice, so that nothing is ever routed by the main table in between.
        await self._ipr.route("replace", dst="0.0.0.0/0", table=_NOWHERE, type="blackhole")
        for name in self._index:
            await self._rule(300, _NOWHERE, iifname=name)
        for vswitch in self._file.vswitch:
            for address in self._elastic:
                await self._rule(200, _INTERNET, iifname=vswitch.interface, src=str(address), src_len=32)
            table = self._tables[vswitch.table]
            await self._rule(100, table, iifname=vswitch.interface)
            if self._internet:
                cidr, length = str(vswitch.cidr.network_address), vswitch.cidr.prefixlen
                await self._rule(100, table, iifname=self._internet, dst=cidr, dst_len=length)

    async def _rule(self, priority: int, table: int, **selector: str | int) -> None:
        await self._ipr.rule("add", priority=priority, table=table, **selector)

    async def _connect_internet(self) -> None:
        index = self._index[self._internet]
        gateway = str(self._file.router.internet_gateway)
        way = {"dst": "0.0.0.0/0", "gateway": gateway, "oif": index, "table": _INTERNET, "flags": ["onlink"]}
        await self._ipr.route("replace", **way)
        for elastic in self._elastic.values():
            try:
                await self._ipr.addr("add", index=index, address=str(elastic), prefixlen=32)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
            else:
                self._addresses.append(str(elastic))

    def _set_sysctls(self) -> None:
        wanted: dict[str, str] = {"ip_forward": "1"}
        # Reverse path filtering asks the main table, which knows nothing of the VPC's; redirects would tell hosts to
        # go straight to a one-armed appliance's neighbour, which the cloud never says.
        for name in ("all", *self._interfaces, *([self._internet] if self._internet else [])):
            wanted |= {f"conf/{name}/rp_filter": "0", f"conf/{name}/send_redirects": "0"}
        for name, value in wanted.items():
            path = _SYSCTL / name
            before = path.read_text().strip()
            if before != value:
                path.write_text(value)
                self._sysctls.append((path, before))

    def _ruleset(self) -> str:
        """Return the nft table: addresses of the internet, one to one, and silence where a router would complain."""
        lines = [f"table ip {_NFT}", f"delete table ip {_NFT}", f"table ip {_NFT} {{"]
        silence = "icmp type destination-unreachable icmp code != frag-needed drop"
        lines.append(f"chain output {{ type filter hook output priority filter; {silence}; }}")
        if self._elastic:
            private = ", ".join(map(str, self._elastic))
            inward = "; ".join(f"ip daddr {eip} dnat to {ip}" for ip, eip in self._elastic.items())
            outward = "; ".join(f"ip saddr {ip} snat to {eip}" for ip, eip in self._elastic.items())
            # Only what an instance with an EIP sends or gets is tracked: the VPC's own traffic costs routing, no more.
            inside = f'oifname != "{self._internet}" accept'
            untracked = f'iifname != "{self._internet}" ip saddr != {{ {private} }} notrack'
            strangers = f'iifname "{self._internet}" ct status & (snat | dnat) == 0 drop'
            lines += [
                f"chain untracked {{ type filter hook prerouting priority raw; {untracked}; }}",
                f"chain inward {{ type nat hook prerouting priority dstnat; {inward}; }}",
                f"chain outward {{ type nat hook postrouting priority srcnat; {inside}; {outward}; }}",
                f"chain strangers {{ type filter hook forward priority filter; {strangers}; }}",
            ]
        return "\n".join([*lines, "}", ""])

    async def _close(self) -> None:
        try:
            await self._clear()
            for address in self._addresses:
                index = self._index[self._internet]
                await self._tolerant(self._ipr.addr("del", index=index, address=address, prefixlen=32))
        finally:
            for path, before in reversed(self._sysctls):
                if path.exists():  # its interface may be gone
                    path.write_text(before)
            self._sysctls.clear()
            await self._ipr.__aexit__(None, None, None)

    async def _clear(self) -> None:
        """Remove our rules, tables and nft table, whoever made them."""
        ours = {*self._tables.values(), _INTERNET, _NOWHERE}
        rules = [rule async for rule in await self._ipr.rule("dump", family=2)]
        for rule in rules:
            if rule.get("table") in ours:
                await self._tolerant(self._ipr.rule("del", **_same_rule(rule)))
        for table in sorted(ours):
            await self._tolerant(self._ipr.flush_routes(table=table))
        await _nft(f"table ip {_NFT}\ndelete table ip {_NFT}\n")

    async def _tolerant(self, request: Any) -> None:
        try:
            await request
        except NetlinkError as error:
            if error.code not in _ALREADY_SO:
                raise


def _same_rule(rule: Any) -> Mapping[str, Any]:
    """Return what names a dumped rule for its deletion."""
    same = {"priority": rule.get("priority"), "table": rule.get("table"), "iifname": rule.get("iifname")}
    for way in ("src", "dst"):
        if rule.get(way):
            same |= {way: rule.get(way), f"{way}_len": rule[f"{way}_len"]}
    return same


async def _nft(script: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "nft", "-f", "-", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await process.communicate(script.encode())
    if process.returncode:
        raise RuntimeError(f"nft refused the router's rules: {complaint.decode(errors='replace').strip()}")
